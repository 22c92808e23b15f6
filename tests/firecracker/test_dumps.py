"""Saves over saves: whatever is written and saved in whichever order, no page is lost."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from emberbox.orchestrator.machines import saved_memory
from emberbox.orchestrator.machines.firecracker import dumps
from emberbox.orchestrator.machines.pages import PAGE, Run
from emberbox.orchestrator.machines.saved_memory import SavedMemory

PAGES = 600  # more than a chunk
SIZE = PAGES * PAGE

runs = st.tuples(st.integers(0, PAGES - 1), st.integers(1, 40), st.integers(0, 255))


class Machine:
    """Memory as its machine sees it, and what its VMM would dump."""

    def __init__(self, base: bytes) -> None:
        self.memory, self.base = bytearray(base), base
        self.dirty: set[int] = set()

    def write(self, first: int, count: int, value: int) -> None:
        for page in range(first, min(first + count, PAGES)):
            self.memory[page * PAGE : (page + 1) * PAGE] = bytes([value]) * PAGE
            self.dirty.add(page)

    def dump(self, path: Path) -> int:
        """What changed since the last dump, in a file of holes."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.ftruncate(fd, SIZE)
        for page in self.dirty:
            os.pwrite(fd, self.memory[page * PAGE : (page + 1) * PAGE], page * PAGE)
        self.dirty = set()
        return fd


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(runs, max_size=6), min_size=1, max_size=5))
def test_base_and_last_save_are_the_whole_memory(turns: list[list[tuple[int, int, int]]]) -> None:
    base = b"".join(bytes([page % 251]) * PAGE for page in range(PAGES))
    machine = Machine(base)
    with tempfile.TemporaryDirectory(prefix="fc-") as name, ExitStack() as stack:
        directory = Path(name)
        (directory / "base").write_bytes(base)
        layer = None
        for number, writes in enumerate(turns):
            for write in writes:
                machine.write(*write)
            fd = machine.dump(directory / "dump")
            stack.callback(os.close, fd)
            path = directory / f"saved-{number}"
            saved_memory.save(dumps.Changed(fd, SIZE, layer), "a VMM", b"state", path)
            layer = stack.enter_context(SavedMemory.opened(path))
            saved_memory.merge(directory / "base", layer, directory / f"ram-{number}")
            assert (directory / f"ram-{number}").read_bytes() == machine.memory


@settings(max_examples=10, deadline=None)
@given(st.lists(runs, max_size=6))
def test_whole_memory_has_no_empty_pages(writes: list[tuple[int, int, int]]) -> None:
    machine = Machine(bytes(SIZE))
    for write in writes:
        machine.write(*write)
    with tempfile.TemporaryDirectory(prefix="fc-") as name:
        path, whole = Path(name, "sparse"), Path(name, "whole")
        whole.write_bytes(machine.memory)
        fd = os.open(whole, os.O_RDONLY)
        memory = dumps.Whole(fd, SIZE)
        dumps.write_sparse(memory, path)
        filled = {page for run in memory.own_runs() for page in _pages(run)}
        os.close(fd)
        assert path.read_bytes() == machine.memory
        assert path.stat().st_mode & 0o777 == 0o444
    assert filled == {page for page in range(PAGES) if any(machine.memory[page * PAGE :][:PAGE])}


def _pages(run: Run) -> range:
    return range(run.offset // PAGE, (run.offset + run.length) // PAGE)


def test_this_file_system_tells_holes_by_the_page(tmp_path: Path) -> None:
    assert dumps.exact_holes(tmp_path)
    assert list(tmp_path.iterdir()) == []
