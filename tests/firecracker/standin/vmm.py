"""The state of a Firecracker, call by call."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
import struct
from pathlib import Path
from typing import Any

from tests.firecracker.standin.guest import PAGE, Memory
from tests.firecracker.standin.schema import RefusedError, Version, check, operation

NOT_STARTED, RUNNING, PAUSED = "Not started", "Running", "Paused"
SNAPSHOT_FORMAT = "9.9.9"

_TUNSETIFF, _TAP_FLAGS = 0x400454CA, 0x0002 | 0x1000 | 0x4000
_MAC = re.compile(r"([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}")
_MOST_DEVICES = 17
_AFTER = {"PATCH /drives/{drive_id}", "PATCH /network-interfaces/{iface_id}", "PATCH /vm"}
_AFTER |= {"PUT /snapshot/create"}
_ALWAYS = {"PUT /logger", "PUT /metrics", "PUT /mmds", "PATCH /mmds"}


class Vmm:
    """Takes the calls of the API. `faults` is what a test wants to go wrong."""

    def __init__(self, identity: str, version: str, faults: dict[str, Any]) -> None:
        self.identity, self.version, self.faults = identity, version, faults
        self.state = NOT_STARTED
        self.memory: Memory | None = None
        self.config: dict[str, Any] = {"drives": {}, "network": {}}
        self.log, self.metrics = -1, -1
        self.must_exit = False
        self._kept: list[int] = []

    @property
    def short_version(self) -> Version:
        """Major and minor."""
        major, minor, *_ = self.version.split(".")
        return int(major), int(minor)

    def call(self, method: str, path: str, body: bytes) -> object:
        """The answer of one call, None for an empty one. Raises RefusedError."""
        published, definition = operation(self.short_version, method, path)
        name = f"{method} {published}"
        self._check_time(name)
        if method == "GET":
            return self._get(published)
        given = check(self.short_version, definition or "", json.loads(body or b"null"))
        if fault := (self.faults.get("refuse") or {}).get(f"{method} {path}"):
            raise RefusedError(fault)
        handler = getattr(self, "_" + _identifier(name), None)
        if handler is None:
            raise RefusedError(f"the stand-in does not know {name}")
        handler(path.rsplit("/", 1)[1], given)
        return None

    def flush(self) -> None:
        """Write a line of metrics, as each minute."""
        if self.metrics >= 0:
            line = json.dumps({"utc_timestamp_ms": 1, "vmm": {"stand_in": True}})
            _write(self.metrics, line.encode() + b"\n")

    def tell(self, text: str) -> None:
        """Write a line of the log."""
        _write(self.log if self.log >= 0 else 1, text.encode() + b"\n")

    def _check_time(self, name: str) -> None:
        started = self.state != NOT_STARTED
        if name.startswith("GET") or name in _ALWAYS:
            return
        if started and name not in _AFTER:
            raise RefusedError(
                "The requested operation is not supported after starting the microVM."
            )
        if not started and name in _AFTER:
            raise RefusedError(
                "The requested operation is not supported before starting the microVM."
            )

    def _get(self, path: str) -> object:
        match path:
            case "/":
                return {
                    "id": self.identity,
                    "state": self.state,
                    "vmm_version": self.version,
                    "app_name": "Firecracker (a stand-in for tests)",
                }
            case "/version":
                return {"firecracker_version": self.version}
            case "/vm/config":
                return self.config
        raise RefusedError(f"the stand-in does not know GET {path}")

    # Before the start

    def _put_logger(self, _: str, body: dict[str, Any]) -> None:
        if "log_path" in body:
            self.log = _open(body["log_path"], os.O_RDWR | os.O_NONBLOCK | os.O_CREAT)

    def _put_metrics(self, _: str, body: dict[str, Any]) -> None:
        if self.metrics >= 0:
            raise RefusedError("Cannot initialize the metrics system: already initialized.")
        self.metrics = _open(body["metrics_path"], os.O_RDWR | os.O_NONBLOCK | os.O_CREAT)

    def _put_machine_config(self, _: str, body: dict[str, Any]) -> None:
        if body["mem_size_mib"] <= 0:
            raise RefusedError("The memory size (MiB) is either 0 or too large.")
        if body.get("smt") and body["vcpu_count"] % 2 and body["vcpu_count"] > 1:
            raise RefusedError("The vCPU number must be 1 or an even number with SMT.")
        self.config["machine-config"] = body

    def _put_boot_source(self, _: str, body: dict[str, Any]) -> None:
        for name in ("kernel_image_path", "initrd_path"):
            if name in body:
                os.close(_open(body[name], os.O_RDONLY))
        self.config["boot-source"] = body

    def _put_drives(self, name: str, body: dict[str, Any]) -> None:
        if body["drive_id"] != name:
            raise RefusedError("The id from the path does not match the id from the body!")
        if "path_on_host" not in body or "is_read_only" not in body:
            raise RefusedError("missing field of a virtio-block device")
        drives = self.config["drives"]
        roots = [other for other, drive in drives.items() if drive["is_root_device"]]
        if body["is_root_device"] and roots not in ([], [name]):
            raise RefusedError("A root block device already exists!")
        self._check_devices()
        os.close(_open_drive(body))
        drives[name] = body

    def _put_network_interfaces(self, name: str, body: dict[str, Any]) -> None:
        if body["iface_id"] != name:
            raise RefusedError("The id from the path does not match the id from the body!")
        if "guest_mac" in body and not _MAC.fullmatch(body["guest_mac"]):
            raise RefusedError(f"Invalid MAC address: {body['guest_mac']}")
        self._check_devices()
        self._kept.append(_open_tap(body["host_dev_name"]))
        self.config["network"][name] = body

    def _put_entropy(self, _: str, body: dict[str, Any]) -> None:
        self._check_devices()
        self.config["entropy"] = body

    def _check_devices(self) -> None:
        devices = len(self.config["drives"]) + len(self.config["network"])
        if devices + ("entropy" in self.config) >= _MOST_DEVICES:
            raise RefusedError("No more devices can be attached.")

    def _put_actions(self, _: str, body: dict[str, Any]) -> None:
        if body["action_type"] != "InstanceStart":
            raise RefusedError("the stand-in does not know this action")
        if "boot-source" not in self.config:
            raise RefusedError("Cannot start microvm without kernel configuration.")
        if self.faults.get("no_kvm"):
            raise RefusedError("Internal error while starting microVM: Cannot open `/dev/kvm`")
        if Path("/dev/kvm").exists():  # as on a host that has none and no jailer
            _check_device_node("/dev/kvm", 10, 232)
        with Path(self.config["boot-source"]["kernel_image_path"]).open("rb") as kernel:
            if kernel.read(4) != b"\x7fELF":
                raise RefusedError("Kernel Loader: invalid ELF magic number")
        machine = self.config.get("machine-config", {"mem_size_mib": 128})
        tracked = machine.get("track_dirty_pages", False)
        self.memory = Memory(machine["mem_size_mib"] << 20, tracked=tracked)
        self.memory.write(0, 1)
        self._open_all()
        self.state = RUNNING
        self.flush()

    # After the start

    def _patch_vm(self, _: str, body: dict[str, Any]) -> None:
        self.state = PAUSED if body["state"] == "Paused" else RUNNING

    def _patch_drives(self, name: str, body: dict[str, Any]) -> None:
        _merge_limits(_existing(self.config["drives"], name), body)

    def _patch_network_interfaces(self, name: str, body: dict[str, Any]) -> None:
        _merge_limits(_existing(self.config["network"], name), body)

    def _put_snapshot_create(self, _: str, body: dict[str, Any]) -> None:
        assert self.memory is not None
        if self.state != PAUSED:
            raise RefusedError("Create snapshot error: the microVM is not paused.")
        changes = body.get("snapshot_type") == "Diff"
        if changes and not self.memory.tracked and self.short_version < (1, 13):
            raise RefusedError(
                "Diff snapshots are not allowed on uVMs with dirty page tracking off."
            )
        memory_path, state_path = body["mem_file_path"], body["snapshot_path"]
        if (target := self.faults.get("link_dump")) is not None:
            Path(memory_path).symlink_to(target)
        try:
            self.memory.dump(memory_path, changes=changes)
            self._write_state(state_path)
        except OSError as error:
            raise RefusedError(f"Cannot write the snapshot: {error}") from error
        if self.faults.get("short_dump"):
            os.truncate(memory_path, PAGE)
        if self.faults.get("large_state"):
            os.truncate(state_path, 1 << 30)

    def _write_state(self, path: str) -> None:
        assert self.memory is not None
        state = {
            "format": SNAPSHOT_FORMAT,
            "version": self.short_version,
            "config": self.config,
            "memory": self.memory.size,
        }
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        with os.fdopen(fd, "w") as file:
            json.dump(state, file)

    # Loading

    def _put_snapshot_load(self, _: str, body: dict[str, Any]) -> None:
        if self.config != {"drives": {}, "network": {}}:
            raise RefusedError("Loading a snapshot is not allowed after configuring resources.")
        try:
            self._load(body)
        except (OSError, ValueError, KeyError, RefusedError) as error:
            self.must_exit = True
            raise RefusedError(f"Load snapshot error: {error}") from error

    def _load(self, body: dict[str, Any]) -> None:
        if ("mem_backend" in body) == ("mem_file_path" in body):
            raise RefusedError("exactly one of mem_backend and mem_file_path must be present")
        backend = body.get("mem_backend", {"backend_type": "File"})
        if backend["backend_type"] != "File":
            raise RefusedError("the stand-in has no uffd")
        with Path(body["snapshot_path"]).open() as file:
            state = json.load(file)
        if state["format"] != SNAPSHOT_FORMAT or tuple(state["version"]) != self.short_version:
            raise RefusedError("the snapshot has another version")
        self.config = state["config"]
        self._open_all()
        for interface in self.config["network"].values():
            self._kept.append(_open_tap(interface["host_dev_name"]))
        fd = _open(backend.get("backend_path") or body["mem_file_path"], os.O_RDONLY)
        if os.fstat(fd).st_size != state["memory"]:
            raise RefusedError("the memory file has another size than the VM's memory")
        names = ("track_dirty_pages", "enable_diff_snapshots")
        tracked = any(body.get(name, False) for name in names)
        self.memory = Memory(state["memory"], fd, tracked=tracked)
        os.close(fd)
        self.state = RUNNING if body.get("resume_vm") else PAUSED

    def _open_all(self) -> None:
        self._kept += [_open_drive(drive) for drive in self.config["drives"].values()]


def _identifier(name: str) -> str:
    method, path = name.split(" ")
    parts = [part for part in path.split("/") if part and not part.startswith("{")]
    return "_".join([method.lower(), *parts]).replace("-", "_")


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags, 0o600)
    except OSError as error:
        raise RefusedError(f"Cannot open {path}: {error.strerror}") from error


def _open_drive(body: dict[str, Any]) -> int:
    return _open(body["path_on_host"], os.O_RDONLY if body["is_read_only"] else os.O_RDWR)


def _open_tap(name: str) -> int:
    _check_device_node("/dev/net/tun", 10, 200)
    fd = _open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP_FLAGS))
    except OSError as error:
        raise RefusedError(f"Open tap device failed: {error}") from error
    return fd


def _check_device_node(path: str, major: int, minor: int) -> None:
    """Present, the right one, and this process's own, as the jailer makes it."""
    status = Path(path).stat()
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(major, minor):
        raise RefusedError(f"{path} is no such device")
    if status.st_uid != os.geteuid():
        raise RefusedError(f"{path} is not this VMM's own")


def _existing(devices: dict[str, Any], name: str) -> dict[str, Any]:
    if name not in devices:
        raise RefusedError(f"Device not found: {name}")
    device: dict[str, Any] = devices[name]
    return device


def _merge_limits(device: dict[str, Any], body: dict[str, Any]) -> None:
    for name in ("rate_limiter", "rx_rate_limiter", "tx_rate_limiter"):
        for kind, bucket in body.get(name, {}).items():
            limits = device.setdefault(name, {})
            if bucket["size"] == 0 and bucket["refill_time"] == 0:
                limits.pop(kind, None)
            else:
                limits[kind] = bucket


def _write(fd: int, data: bytes) -> None:
    with contextlib.suppress(BlockingIOError):  # a full pipe: dropped, as Firecracker does
        os.write(fd, data)
