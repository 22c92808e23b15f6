"""Guest memory of templates, in files that no VMM can write.

QEMU 7.2 opens a memory file read-write even for a private mapping, so file permissions cannot
protect the RAM image that all clones share. A memfd that is sealed against writing can: the
kernel then allows private mappings only, to whoever holds it.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from emberbox.orchestrator.images.disks import copy_data

if TYPE_CHECKING:
    from pathlib import Path

RAM_NAME = "emberbox-ram"
"""Of every memory file, as /proc shows it."""

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def new_ram(size_mb: int) -> int:
    """An empty, writable memory file of that size. The caller closes the descriptor."""
    fd = os.memfd_create(RAM_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size_mb << 20)
    return fd


def save_ram(fd: int, path: Path) -> None:
    """Write guest memory to a new sparse file, fsynced. Raises OSError, ENOSPC among them."""
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        copy_data(fd, target)
        os.fsync(target)
    finally:
        os.close(target)


def load_sealed(path: Path) -> int:
    """Read a saved RAM image into a sealed memory file, ready to be mapped by clones."""
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fd = os.memfd_create(RAM_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            copy_data(source, fd)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(fd)
            raise
    finally:
        os.close(source)
    return fd
