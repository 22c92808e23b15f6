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
from emberbox.orchestrator.machines.driver import BootFiles, Hardware, MachineSnapshot
from emberbox.orchestrator.machines.memory_format import (
    BLOCK_BYTES,
    DATA_START,
    Block,
    Contents,
    write_contents,
)
from emberbox.orchestrator.machines.pages import PAGE, Run
from emberbox.orchestrator.machines.qemu import guest_memory, page_map
from emberbox.orchestrator.machines.saved_memory import (
    MEMORY_FILE,
    RAM_FILE,
    STATE_FILE,
    SavedMemory,
    base_of,
    materialise,
    merge,
    save,
)
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


def saved(vmm: StandInVmm, path: Path, base: int | None = None) -> Path:
    """What was written, in the file `path`: against the base in that file, if there is one."""
    with guest_memory.opened(vmm.identity) as memory:
        save(memory, "a VMM", STATE, path, None if base is None else base_of(base))
    return path


def load(path: Path, vmm: StandInVmm, base: int | None = None) -> None:
    with SavedMemory.opened(path) as memory, guest_memory.opened(vmm.identity) as target:
        memory.load(target.write, None if base is None else base_of(base))


def pages_of(path: Path, base: int | None) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    with SavedMemory.opened(path) as memory:
        memory.load(
            lambda offset, data: found.update({offset: bytes(data)}),
            None if base is None else base_of(base),
        )
    return found


def runs_of(path: Path) -> list[Run]:
    with SavedMemory.opened(path) as memory:
        return list(memory.contents.runs)


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


@pytest.mark.parametrize("against_base", [True, False])
@pytest.mark.parametrize("chunk_pages", [1, 3, 1024])
def test_another_clone_continues_with_the_same_memory(
    vmm: StandInVmm,
    template: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chunk_pages: int,
    against_base: bool,
) -> None:
    monkeypatch.setattr(saved_memory, "_CHUNK_BYTES", chunk_pages * PAGE)
    monkeypatch.setattr(saved_memory, "BLOCK_BYTES", min(BLOCK_BYTES, chunk_pages * PAGE))
    for page in (0, 7, 8, 9, 10, 11, 40, PAGES - 1):
        vmm.write(page, 100 + page)
    base = template if against_base else None
    path = saved(vmm, tmp_path / "memory", base)
    with StandInVmm(template) as other:
        load(path, other, base)
        assert other.digest() == vmm.digest()
    assert os.pread(template, SIZE, 0) == TEMPLATE.ljust(SIZE, b"\0")


def test_pages_that_are_as_below_are_left_out(
    vmm: StandInVmm, template: int, tmp_path: Path
) -> None:
    for page in (2, 3, 4, 40):
        vmm.write(page, 200)
    vmm.write(3, 3)  # as it was
    assert runs_of(saved(vmm, tmp_path / "memory", template)) == [
        Run(2 * PAGE, PAGE),
        Run(4 * PAGE, PAGE),
        Run(40 * PAGE, PAGE),
    ]


def test_a_changed_byte_takes_next_to_nothing(
    vmm: StandInVmm, template: int, tmp_path: Path
) -> None:
    os.pwrite(template, os.urandom(8 * PAGE), 0)
    for page in range(8):
        vmm.write(page, 0)
    small = saved(vmm, tmp_path / "against", template).stat().st_size
    assert small < PAGE // 2
    assert saved(vmm, tmp_path / "alone").stat().st_size > 8 * PAGE


def test_what_cannot_be_compressed_is_saved_as_it_is(
    vmm: StandInVmm, template: int, tmp_path: Path
) -> None:
    noise = os.urandom(2 * PAGE)
    with guest_memory.opened(vmm.identity) as memory:
        memory.write(PAGE, memoryview(noise))
    path = saved(vmm, tmp_path / "memory", template)
    with SavedMemory.opened(path) as memory:
        [block] = memory.contents.blocks
        assert (block.stored, block.compressed) == (2 * PAGE, False)
    with StandInVmm(template) as other:
        load(path, other, template)
        assert other.digest() == vmm.digest()


def test_what_was_saved_against_a_base_needs_it(
    vmm: StandInVmm, template: int, tmp_path: Path
) -> None:
    vmm.write(3, 200)
    path = saved(vmm, tmp_path / "memory", template)
    with pytest.raises(SnapshotUnusable, match="without its base"):
        load(path, vmm)
    other = ram_file(b"another template".ljust(PAGE) * PAGES)
    with pytest.raises(SnapshotUnusable, match="damaged"):
        load(path, vmm, other)
    os.close(other)


def test_a_base_that_ends_too_early_is_an_error(vmm: StandInVmm, tmp_path: Path) -> None:
    vmm.write(40, 200)
    short = ram_file()
    os.ftruncate(short, 20 * PAGE)
    with pytest.raises(OSError, match="RAM image ends"):
        saved(vmm, tmp_path / "memory", short)
    os.close(short)


def test_a_save_of_what_was_loaded_is_whole_again(
    vmm: StandInVmm, template: int, tmp_path: Path
) -> None:
    vmm.write(3, 200)
    first = saved(vmm, tmp_path / "first", template)
    with StandInVmm(template) as second:
        load(first, second, template)
        second.write(9, 201)
        again = saved(second, tmp_path / "again", template)
        with StandInVmm(template) as third:
            load(again, third, template)
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


def test_a_merged_image_is_what_the_clone_had(
    vmm: StandInVmm, template: int, tmp_path: Path
) -> None:
    (tmp_path / "base").write_bytes(TEMPLATE.ljust(SIZE, b"\0"))
    vmm.write(3, 200)
    vmm.write(PAGES - 1, 201)
    with SavedMemory.opened(saved(vmm, tmp_path / "memory", template)) as memory:
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


@pytest.mark.parametrize("largest_layer", [0, 2 * PAGE, SIZE])
def test_a_snapshot_of_a_clone_is_a_layer_when_it_is_small(
    vmm: StandInVmm, template: int, tmp_path: Path, largest_layer: int
) -> None:
    base, layer, whole = tmp_path / "base", tmp_path / "layer", tmp_path / "whole"
    for directory in (base, layer, whole):
        directory.mkdir()
    (base / RAM_FILE).write_bytes(TEMPLATE.ljust(SIZE, b"\0"))
    hardware, files = Hardware(1, 1), BootFiles(*[tmp_path] * 4)
    snapshot = MachineSnapshot(base, hardware, files, "an older VMM")
    for page in (1, 2, 3):
        vmm.write(page, 200)
    (tmp_path / STATE_FILE).write_bytes(STATE)
    saved(vmm, tmp_path / MEMORY_FILE, template)
    made = materialise(snapshot, tmp_path, layer, largest_layer=largest_layer)
    assert (made.directory, made.made_with) == (layer, "a VMM")
    assert (layer / STATE_FILE).read_bytes() == STATE
    if largest_layer < 3 * PAGE:
        assert made.base is None
        assert digest((layer / RAM_FILE).read_bytes()) == vmm.digest()
        return
    assert made.base == base
    with StandInVmm(template) as clone:
        load(layer / MEMORY_FILE, clone, template)
        assert clone.digest() == vmm.digest()
        clone.write(5, 201)
        (tmp_path / MEMORY_FILE).unlink(missing_ok=True)
        saved(clone, tmp_path / MEMORY_FILE, template)
        # One over a layer lies over the same base, and so does what is made whole of it.
        again = materialise(made, tmp_path, whole)
        assert again.base is None
        assert digest((whole / RAM_FILE).read_bytes()) == clone.digest()


def test_nothing_written_is_a_file_without_data(vmm: StandInVmm, tmp_path: Path) -> None:
    path = saved(vmm, tmp_path / "memory")
    assert path.stat().st_size == DATA_START + len("a VMM")
    with SavedMemory.opened(path) as memory:
        assert memory.contents.runs == ()
        assert memory.contents.made_with == "a VMM"


@pytest.mark.parametrize("against_base", [True, False])
def test_no_flipped_byte_changes_memory(
    vmm: StandInVmm, template: int, tmp_path: Path, against_base: bool
) -> None:
    base = template if against_base else None
    vmm.write(3, 200)
    path = saved(vmm, tmp_path / "memory", base)
    whole, pages = path.read_bytes(), pages_of(path, base)
    assert len(whole) < 500
    noticed = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            # There may be two ways to say the same in LZ4.
            assert pages_of(path, base) == pages
        except SnapshotUnusable:
            noticed += 1
    assert noticed > len(whole) - 10


def test_every_shorter_file_is_noticed(vmm: StandInVmm, tmp_path: Path) -> None:
    vmm.write(3, 200)
    path = saved(vmm, tmp_path / "memory")
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(SnapshotUnusable, match="memory"):
            load(path, vmm)


@given(st.binary(max_size=300))
def test_foreign_bytes_are_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "foreign"
    path.write_bytes(content)
    with pytest.raises(SnapshotUnusable), SavedMemory.opened(path):
        pass
    path.unlink()


PAGE_BLOCK = Block(PAGE, PAGE, 0)


@pytest.mark.parametrize(
    ("runs", "blocks"),
    [
        ((Run(SIZE, PAGE),), (PAGE_BLOCK,)),
        ((Run(0, SIZE + PAGE),), (PAGE_BLOCK,) * (PAGES + 1)),
        ((Run(PAGE, PAGE), Run(0, PAGE)), (PAGE_BLOCK,) * 2),
        ((Run(0, 2 * PAGE), Run(PAGE, PAGE)), (PAGE_BLOCK,) * 3),
        ((Run(0, 0),), ()),
        ((Run(0, PAGE),), ()),
        ((), (PAGE_BLOCK,)),
        ((Run(0, PAGE),), (Block(PAGE, PAGE + 1, 0),)),
        ((Run(0, PAGE),), (Block(PAGE, 0, 0),)),
        ((Run(0, PAGE),), (Block(PAGE // 2, 9, 0),) * 2),
        ((Run(0, 2 * BLOCK_BYTES),), (Block(2 * BLOCK_BYTES, 9, 0),)),
    ],
)
def test_an_index_that_cannot_be_is_refused(
    runs: tuple[Run, ...], blocks: tuple[Block, ...], tmp_path: Path
) -> None:
    path = tmp_path / "memory"
    contents = Contents(
        "", SIZE, based=True, against_base=False, runs=runs, blocks=blocks, state_checksum=0
    )
    with path.open("wb") as file:
        write_contents(file.fileno(), contents)
    with pytest.raises(SnapshotUnusable, match="index"), SavedMemory.opened(path):
        pass


def test_device_state_of_another_moment_is_refused(vmm: StandInVmm, tmp_path: Path) -> None:
    (tmp_path / "devices").write_bytes(STATE)
    with SavedMemory.opened(saved(vmm, tmp_path / "memory")) as memory:
        assert memory.verified_state(tmp_path / "devices") == STATE
        (tmp_path / "devices").write_bytes(b"another")
        with pytest.raises(SnapshotUnusable, match="devices"):
            memory.verified_state(tmp_path / "devices")


def test_a_full_disk_is_told(
    vmm: StandInVmm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
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
