"""A VM's own memory: found, saved, verified, loaded and merged, with a process as its VMM."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emberbox.orchestrator.errors import MachineError, MachineGone, SnapshotUnusable
from emberbox.orchestrator.machines import saved_memory
from emberbox.orchestrator.machines.pages import PAGE, Run
from emberbox.orchestrator.machines.qemu import guest_memory, page_map
from emberbox.orchestrator.machines.saved_memory import Contents, SavedMemory, merge, save
from tests.unit.orchestrator.vmm_standin import PAGES, SIZE, StandInVmm, digest, ram_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STATE = b"device state"
TEMPLATE = b"".join(bytes([number]) * PAGE for number in range(PAGES // 2))
"""Half of the pages are in the file, half are holes."""


@pytest.fixture
def template() -> Iterator[int]:
    fd = ram_file(TEMPLATE)
    yield fd
    os.close(fd)


@pytest.fixture
def vmm(template: int) -> Iterator[StandInVmm]:
    with StandInVmm(template) as made:
        yield made


def own_pages(vmm: StandInVmm) -> list[int]:
    with guest_memory.opened(vmm.identity) as memory:
        return [
            page
            for run in memory.own_runs()
            for page in range(run.offset // PAGE, (run.offset + run.length) // PAGE)
        ]


def saved(vmm: StandInVmm, path: Path) -> Path:
    with guest_memory.opened(vmm.identity) as memory:
        save(memory, "a VMM", STATE, path)
    return path


def load(path: Path, vmm: StandInVmm) -> None:
    with SavedMemory.opened(path) as memory, guest_memory.opened(vmm.identity) as target:
        memory.load(target.write)


@pytest.fixture(params=["scan", "read"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what this kernel can do, and as on a kernel before 6.7."""
    if request.param == "read":

        def missing(*_arguments: object) -> list[Run]:
            raise OSError(errno.ENOTTY, "no such call")

        monkeypatch.setattr(page_map, "scanned", missing)


@pytest.mark.usefixtures("_way")
def test_a_clone_owns_what_it_has_written_and_nothing_that_it_read(vmm: StandInVmm) -> None:
    vmm.read(3)
    assert own_pages(vmm) == []
    for page in (0, 1, 5, 6, PAGES - 1):
        vmm.write(page, 200)
    assert own_pages(vmm) == [0, 1, 5, 6, PAGES - 1]


@pytest.mark.usefixtures("_way")
def test_a_vmm_that_ends_has_no_pages(vmm: StandInVmm) -> None:
    with guest_memory.opened(vmm.identity) as memory:
        vmm.end()
        with pytest.raises(MachineGone):
            memory.own_runs()


def test_a_vmm_that_ends_while_its_pages_are_listed_has_not_none(
    vmm: StandInVmm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(*_arguments: object) -> list[Run]:
        vmm.end()
        return []

    monkeypatch.setattr(guest_memory, "own_runs", ends)
    with guest_memory.opened(vmm.identity) as memory, pytest.raises(MachineGone):
        memory.own_runs()


def test_a_scan_goes_on_where_its_answer_was_full(
    vmm: StandInVmm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_map, "_REGIONS", 2)
    pages = list(range(1, PAGES, 3))
    for page in pages:
        vmm.write(page, 200)
    assert own_pages(vmm) == pages


def test_a_page_that_is_again_as_it_was_is_saved_as_well(vmm: StandInVmm) -> None:
    vmm.write(4, 200)
    vmm.write(4, 4)
    assert own_pages(vmm) == [4]


@pytest.mark.parametrize(
    ("flags", "own"),
    [(0x80, True), (0x81, True), (0x40, True), (0xA0, False), (0x60, False), (0, False)],
)
def test_swapped_pages_are_own_and_file_pages_are_not(flags: int, own: bool) -> None:
    assert page_map._IS_OWN[flags] == own


def test_memory_of_its_own_is_all_that_was_touched() -> None:
    ram = ram_file()
    with StandInVmm(ram, "shared") as vmm:
        vmm.write(2, 7)
        vmm.write(60, 7)
        assert own_pages(vmm) == [2, 60]
    os.close(ram)


@pytest.mark.parametrize("buffer_pages", [1, 3, 1024])
def test_another_clone_continues_with_the_same_memory(
    vmm: StandInVmm,
    template: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    buffer_pages: int,
) -> None:
    monkeypatch.setattr(saved_memory, "_BUFFER_BYTES", buffer_pages * PAGE)
    for page in (0, 7, 8, 9, 10, 11, 40, PAGES - 1):
        vmm.write(page, 100 + page)
    path = saved(vmm, tmp_path / "memory")
    with StandInVmm(template) as other:
        load(path, other)
        assert other.digest() == vmm.digest()
    assert os.pread(template, SIZE, 0) == TEMPLATE.ljust(SIZE, b"\0")


def test_a_save_of_what_was_loaded_is_whole_again(
    vmm: StandInVmm, template: int, tmp_path: Path
) -> None:
    vmm.write(3, 200)
    first = saved(vmm, tmp_path / "first")
    with StandInVmm(template) as second:
        load(first, second)
        second.write(9, 201)
        again = saved(second, tmp_path / "again")
        with StandInVmm(template) as third:
            load(again, third)
            assert third.digest() == second.digest()
            assert (third.read(3), third.read(9)) == (200, 201)


def test_memory_that_was_booted_continues_from_nothing(tmp_path: Path) -> None:
    ram, empty = ram_file(), ram_file()
    with StandInVmm(ram, "shared") as vmm, StandInVmm(empty, "shared") as other:
        vmm.write(2, 7)
        vmm.write(50, 8)
        path = saved(vmm, tmp_path / "memory")
        with SavedMemory.opened(path) as memory:
            assert not memory.contents.based
        load(path, other)
        assert other.digest() == vmm.digest()
    os.close(ram)
    os.close(empty)


def test_a_merged_image_is_what_the_clone_had(vmm: StandInVmm, tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(TEMPLATE.ljust(SIZE, b"\0"))
    vmm.write(3, 200)
    vmm.write(PAGES - 1, 201)
    with SavedMemory.opened(saved(vmm, tmp_path / "memory")) as memory:
        merge(tmp_path / "base", memory, tmp_path / "merged")
    assert digest((tmp_path / "merged").read_bytes()) == vmm.digest()
    assert (tmp_path / "base").read_bytes() == TEMPLATE.ljust(SIZE, b"\0")


def test_a_merged_image_of_a_booted_vm_needs_no_base(tmp_path: Path) -> None:
    ram = ram_file()
    with StandInVmm(ram, "shared") as vmm:
        vmm.write(2, 7)
        with SavedMemory.opened(saved(vmm, tmp_path / "memory")) as memory:
            merge(tmp_path / "nowhere", memory, tmp_path / "merged")
        assert digest((tmp_path / "merged").read_bytes()) == vmm.digest()
    os.close(ram)


def test_nothing_written_is_a_file_without_data(vmm: StandInVmm, tmp_path: Path) -> None:
    path = saved(vmm, tmp_path / "memory")
    assert path.stat().st_size == PAGE
    with SavedMemory.opened(path) as memory:
        assert memory.contents.runs == ()
        assert memory.contents.made_with == "a VMM"


def test_every_flipped_byte_is_noticed(vmm: StandInVmm, tmp_path: Path) -> None:
    vmm.write(3, 200)
    path = saved(vmm, tmp_path / "memory")
    whole = path.read_bytes()
    used = len(Contents("a VMM", SIZE, True, (Run(3 * PAGE, PAGE),), 0).encoded())
    for place in (*range(used), PAGE, PAGE + 1, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(SnapshotUnusable, match="memory"), SavedMemory.opened(path) as memory:
            memory.load(lambda _offset, _data: None)


def test_every_shorter_file_is_noticed(vmm: StandInVmm, tmp_path: Path) -> None:
    vmm.write(3, 200)
    path = saved(vmm, tmp_path / "memory")
    whole = path.read_bytes()
    for length in (*range(100), PAGE, PAGE + 1, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(SnapshotUnusable, match="memory"), SavedMemory.opened(path) as memory:
            memory.load(lambda _offset, _data: None)


@given(st.binary(max_size=300))
def test_foreign_bytes_are_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "foreign"
    path.write_bytes(content)
    with pytest.raises(SnapshotUnusable), SavedMemory.opened(path):
        pass
    path.unlink()


@pytest.mark.parametrize(
    "runs",
    [
        (Run(SIZE, PAGE),),
        (Run(0, SIZE + PAGE),),
        (Run(PAGE, PAGE), Run(0, PAGE)),
        (Run(0, 2 * PAGE), Run(PAGE, PAGE)),
        (Run(0, 0),),
    ],
)
def test_pages_outside_or_out_of_order_are_refused(runs: tuple[Run, ...], tmp_path: Path) -> None:
    path = tmp_path / "memory"
    path.write_bytes(Contents("", SIZE, True, runs, 0).encoded())
    with pytest.raises(SnapshotUnusable, match="index"), SavedMemory.opened(path):
        pass


def test_device_state_of_another_moment_is_refused(vmm: StandInVmm, tmp_path: Path) -> None:
    (tmp_path / "devices").write_bytes(STATE)
    with SavedMemory.opened(saved(vmm, tmp_path / "memory")) as memory:
        assert memory.verified_state(tmp_path / "devices") == STATE
        (tmp_path / "devices").write_bytes(b"another")
        with pytest.raises(SnapshotUnusable, match="devices"):
            memory.verified_state(tmp_path / "devices")


def test_a_full_disk_is_told_before_memory_is_copied(
    vmm: StandInVmm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(saved_memory, "_copy_out", None)
    vmm.write(3, 200)
    with pytest.raises(OSError, match="No space left"):
        saved(vmm, tmp_path / "memory")


def test_a_vmm_that_has_ended_is_gone(vmm: StandInVmm, tmp_path: Path) -> None:
    with guest_memory.opened(vmm.identity) as memory:
        vmm.write(3, 200)
        vmm.end()
        with pytest.raises(MachineGone):
            save(memory, "a VMM", STATE, tmp_path / "memory")
        with pytest.raises(MachineGone):
            memory.read(0, memoryview(bytearray(PAGE)))
        with pytest.raises(MachineGone):
            memory.write(0, memoryview(bytes(PAGE)))
    with pytest.raises(MachineGone), guest_memory.opened(vmm.identity):
        pass


@pytest.mark.parametrize(
    ("mappings", "message"), [("", "not mapped"), ("private,private", "not in one piece")]
)
def test_a_vmm_that_maps_its_memory_otherwise_is_refused(
    template: int, mappings: str, message: str
) -> None:
    with (
        StandInVmm(template, mappings) as vmm,
        pytest.raises(MachineError, match=message),
        guest_memory.opened(vmm.identity),
    ):
        pass
