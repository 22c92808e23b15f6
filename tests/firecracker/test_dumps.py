"""Saves over saves: whatever is written and saved in whichever order, no page is lost."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from emberbox.orchestrator.machines.firecracker import dumps
from emberbox.orchestrator.machines.pages import PAGE, Run
from emberbox.orchestrator.machines.saved_memory import SavedMemory, base_of, merge, save

if TYPE_CHECKING:
    from collections.abc import Iterator

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

    def dump_to(self, changes: Path) -> None:
        """What changed since the last dump, added to what changed before."""
        with tempfile.TemporaryFile(dir=changes.parent) as file:
            file.truncate(SIZE)
            for page in self.dirty:
                os.pwrite(file.fileno(), self.memory[page * PAGE : (page + 1) * PAGE], page * PAGE)
            dumps.add(file.fileno(), changes)
        self.dirty = set()


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.lists(runs, max_size=6), st.booleans()), min_size=1, max_size=5))
def test_base_and_last_save_are_the_whole_memory(
    turns: list[tuple[list[tuple[int, int, int]], bool]],
) -> None:
    base = b"".join(bytes([page % 251]) * PAGE for page in range(PAGES))
    machine = Machine(base)
    with tempfile.TemporaryDirectory(prefix="fc-") as name:
        directory = Path(name)
        (directory / "base").write_bytes(base)
        loaded, before, saved = directory / "base", tuple[Run, ...](), None
        for number, (writes, continued) in enumerate(turns):
            for write in writes:
                machine.write(*write)
            machine.dump_to(directory / "changes")
            saved = directory / f"saved-{number}"
            with opened(loaded) as below, opened(directory / "changes") as changes:
                memory = dumps.Changed(below, changes, SIZE, based=True, before=before)
                with opened(directory / "base") as base_fd:
                    save(memory, "a VMM", b"state", saved, base_of(base_fd))
            with SavedMemory.opened(saved) as layer:
                ram = directory / f"ram-{number}"
                merge(directory / "base", layer, ram, durable=False)
                assert ram.read_bytes() == machine.memory
                if continued:  # by another VMM, whose log of changes is empty
                    loaded, before = ram, layer.contents.runs
                    (directory / "changes").unlink()


@settings(max_examples=5, deadline=None)
@given(st.lists(runs, max_size=6))
def test_whole_memory_has_no_empty_pages(writes: list[tuple[int, int, int]]) -> None:
    machine = Machine(bytes(SIZE))
    for write in writes:
        machine.write(*write)
    with tempfile.TemporaryDirectory(prefix="fc-") as name:
        path, whole = Path(name, "sparse"), Path(name, "whole")
        whole.write_bytes(machine.memory)
        with opened(whole) as fd:
            dumps.write_sparse(fd, SIZE, path)
        assert path.read_bytes() == machine.memory
        assert path.stat().st_mode & 0o777 == 0o444
        with opened(path) as fd:
            filled = {
                page
                for run in dumps.Whole(fd, SIZE, based=False).own_runs()
                for page in _pages(run)
            }
    assert filled == {page for page in range(PAGES) if any(machine.memory[page * PAGE :][:PAGE])}


def _pages(run: Run) -> range:
    return range(run.offset // PAGE, (run.offset + run.length) // PAGE)


def test_this_file_system_tells_holes_by_the_page(tmp_path: Path) -> None:
    assert dumps.exact_holes(tmp_path)
    assert list(tmp_path.iterdir()) == []
