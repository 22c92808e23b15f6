"""The kernel's two ways to say which pages are a process's own agree."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import random

import pytest

from emberbox.orchestrator.machines.pages import PAGE, Run
from emberbox.orchestrator.machines.qemu import page_map

PAGES = 20_000
WRITTEN = sorted(random.Random(1).sample(range(PAGES), 3000))


@pytest.mark.parametrize("regions", [1, 511, 512, 600, 1024, 10_000])
def test_a_scan_finds_what_the_page_map_tells(
    regions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_map, "_REGIONS", regions)
    file = os.memfd_create("memory")
    os.ftruncate(file, PAGES * PAGE)
    with mmap.mmap(file, PAGES * PAGE, flags=mmap.MAP_PRIVATE) as memory:
        for page in WRITTEN:
            memory[page * PAGE] = 1
        start = ctypes.c_char.from_buffer(memory)
        scanned, read = _both_ways(ctypes.addressof(start))
        del start  # the map cannot be closed while a view of it is there
    os.close(file)
    assert read == WRITTEN
    assert scanned == WRITTEN


def _both_ways(address: int) -> tuple[list[int], list[int]]:
    pagemap = os.open("/proc/self/pagemap", os.O_RDONLY)
    try:
        scanned, read = (
            [page for run in way(pagemap, address, PAGES * PAGE) for page in _pages(run)]
            for way in (page_map.scanned, page_map.read)
        )
    except OSError as error:
        if error.errno == errno.ENOTTY:
            pytest.skip("this kernel is older than 6.7")
        raise
    finally:
        os.close(pagemap)
    return scanned, read


def _pages(run: Run) -> range:
    return range(run.offset // PAGE, (run.offset + run.length) // PAGE)
