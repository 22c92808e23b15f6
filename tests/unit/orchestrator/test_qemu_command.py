from __future__ import annotations

import itertools

import pytest

from emberbox.orchestrator.machines.driver import Hardware
from emberbox.orchestrator.machines.qemu.command import Command, Disk, Kernel, Memory, shape

DISKS = (
    Disk("root", 10, read_only=True),
    Disk("runtime", 11, read_only=True),
    Disk("scratch", 12, read_only=False),
)


def argv(kernel: Kernel | None = None, *, accelerator: str = "tcg") -> list[str]:
    command = Command(
        name="emberbox-n-i1",
        accelerator=accelerator,
        hardware=Hardware(2, 512),
        memory=Memory(7, share=kernel is not None),
        monitor_fd=8,
        tap_fd=9,
        disks=DISKS,
        kernel=kernel,
    )
    return command.argv("qemu-system-x86_64")


def options(arguments: list[str], name: str) -> list[str]:
    return [value for flag, value in itertools.pairwise(arguments) if flag == name]


def test_a_clone_maps_ram_privately_and_loads_no_kernel() -> None:
    arguments = argv()
    assert "-kernel" not in arguments
    assert options(arguments, "-incoming") == ["defer"]
    assert "-S" in arguments
    [ram] = [o for o in options(arguments, "-object") if o.startswith("memory-backend")]
    assert ram.endswith("mem-path=/proc/self/fd/7,share=off")


def test_a_cold_boot_shares_its_ram_so_that_a_snapshot_can_be_taken() -> None:
    arguments = argv(Kernel(20, 21))
    assert options(arguments, "-kernel") == ["/proc/self/fd/20"]
    assert "-incoming" not in arguments
    assert "-S" not in arguments
    assert any(o.endswith("share=on") for o in options(arguments, "-object"))


def test_qemu_may_not_spawn_or_gain_rights() -> None:
    [sandbox] = options(argv(), "-sandbox")
    assert {"on", "spawn=deny", "elevateprivileges=deny"} <= set(sandbox.split(","))


def test_no_file_is_named_by_path() -> None:
    named = [a for a in argv(Kernel(20, 21)) if "/" in a]
    assert all("/proc/self/fd/" in a or "/dev/fdset/" in a for a in named)


def test_only_the_scratch_disk_can_be_written() -> None:
    nodes = options(argv(), "-blockdev")
    assert ["read-only=on" in node for node in nodes] == [True, True, False]


def test_everything_named_by_number_is_inherited() -> None:
    command = Command("", "tcg", Hardware(1, 1), Memory(7, share=True), 8, 9, DISKS, Kernel(20, 21))
    assert sorted(command.descriptors) == [7, 8, 9, 10, 11, 12, 20, 21]


@pytest.mark.parametrize(("accelerator", "cpu"), [("kvm", "Haswell-v4"), ("tcg", "Haswell-v4,-")])
def test_the_cpu_is_named(accelerator: str, cpu: str) -> None:
    [named] = options(argv(accelerator=accelerator), "-cpu")
    assert named.startswith(cpu)


def test_the_shape_differs_with_the_accelerator_and_not_with_descriptors() -> None:
    hardware = Hardware(2, 512)
    assert shape("tcg", hardware) == shape("tcg", hardware)
    assert shape("tcg", hardware) != shape("kvm", hardware)
