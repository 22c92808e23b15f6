"""The stand-in is as strict as the published interface: no test passes by its leniency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.firecracker.standin import jailer
from tests.firecracker.standin.schema import RefusedError, check, operation
from tests.firecracker.standin.vmm import Vmm

if TYPE_CHECKING:
    from pathlib import Path

V = (1, 15)


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/vm"), ("GET", "/vm"), ("PUT", "/nothing"), ("PUT", "/drives"), ("PUT", "/vm/")],
)
def test_unknown_methods_and_paths(method: str, path: str) -> None:
    with pytest.raises(RefusedError, match="Invalid request method"):
        operation(V, method, path)


@pytest.mark.parametrize(
    ("definition", "body", "told"),
    [
        ("Vm", {"state": "Running"}, "unknown variant"),
        ("Vm", {}, "missing field `state`"),
        ("Vm", {"state": "Paused", "more": 1}, "unknown field `more`"),
        ("Vm", [], "deserializing"),
        ("MachineConfiguration", {"vcpu_count": 33, "mem_size_mib": 1}, "out of range"),
        ("MachineConfiguration", {"vcpu_count": True, "mem_size_mib": 1}, "invalid type"),
        ("MachineConfiguration", {"vcpu_count": 1, "mem_size_mib": "1"}, "invalid type"),
        ("NetworkInterface", {"iface_id": "e", "host_dev_name": "t", "mtu": 1}, "unknown field"),
        ("MmdsConfig", {"network_interfaces": [1]}, "invalid type"),
        ("MachineConfiguration", {"cpu_template": "Z80"}, "unknown variant"),
        (
            "Drive",
            {"drive_id": "d", "is_root_device": False, "rate_limiter": {"ops": {"size": 1}}},
            "missing field `refill_time`",
        ),
    ],
)
def test_bodies_that_do_not_fit(definition: str, body: Any, told: str) -> None:
    with pytest.raises(RefusedError, match=told):
        check(V, definition, body)


def test_fields_and_paths_of_later_versions() -> None:
    load = {"snapshot_path": "s", "clock_realtime": True}
    with pytest.raises(RefusedError):
        check((1, 15), "SnapshotLoadParams", load)
    assert check((1, 16), "SnapshotLoadParams", load)
    with pytest.raises(RefusedError):
        check((1, 12), "SnapshotLoadParams", {"snapshot_path": "s", "track_dirty_pages": True})
    with pytest.raises(RefusedError):
        operation((1, 13), "PUT", "/serial")
    assert operation((1, 14), "PUT", "/serial")


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (("PATCH", "/vm", b'{"state": "Paused"}'), "before starting"),
        (("PUT", "/snapshot/create", b'{"mem_file_path": "m", "snapshot_path": "s"}'), "before"),
        (("PUT", "/actions", b'{"action_type": "InstanceStart"}'), "without kernel"),
        (("PUT", "/drives/a", b'{"drive_id": "b", "is_root_device": true}'), "does not match"),
        (("PUT", "/drives/a", b'{"drive_id": "a", "is_root_device": true}'), "missing field"),
        (("PUT", "/boot-source", b'{"kernel_image_path": "/nothing"}'), "Cannot open"),
        (("PUT", "/machine-config", b'{"vcpu_count": 1, "mem_size_mib": 0}'), "memory size"),
        (("GET", "/mmds", b""), "does not know"),
        (("PUT", "/vsock", b'{"guest_cid": 3, "uds_path": "u"}'), "does not know"),
    ],
)
def test_order_and_state(call: tuple[str, str, bytes], told: str) -> None:
    with pytest.raises(RefusedError, match=told):
        Vmm("i", "1.16.1", {}).call(*call)


def test_a_load_after_configuration_is_refused(tmp_path: Path) -> None:
    vmm = Vmm("i", "1.16.1", {})
    vmm.call("PUT", "/machine-config", b'{"vcpu_count": 1, "mem_size_mib": 1}')
    body = b'{"snapshot_path": "s", "mem_backend": {"backend_type": "File", "backend_path": "m"}}'
    with pytest.raises(RefusedError, match="not allowed after configuring"):
        vmm.call("PUT", "/snapshot/load", body)


def test_a_load_that_fails_ends_the_process() -> None:
    vmm = Vmm("i", "1.16.1", {})
    body = b'{"snapshot_path": "/nothing", "mem_file_path": "m"}'
    with pytest.raises(RefusedError, match="Load snapshot error"):
        vmm.call("PUT", "/snapshot/load", body)
    assert vmm.must_exit


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--id", "a b", "--exec-file", "/bin/firecracker", "--uid", "1", "--gid", "1"],
        ["--id", "a", "--exec-file", "/bin/sh", "--uid", "1", "--gid", "1"],
        ["--id", "a", "--exec-file", "/bin/sh", "--uid", "1", "--gid", "1", "--new"],
    ],
)
def test_a_jailer_checks_its_arguments(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((SystemExit, AssertionError)):
        jailer._parse(arguments)
    capsys.readouterr()
