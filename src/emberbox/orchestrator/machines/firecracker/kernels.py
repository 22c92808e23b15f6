"""Kernels as Firecracker takes them, extracted once from those of the distribution."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from emberbox.orchestrator.errors import MachineError
from emberbox.orchestrator.images.elf_kernel import elf_of
from emberbox.orchestrator.images.errors import ImageError
from emberbox.shared.sidefile import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

_KEPT = 4
"""Templates of different kernels may take turns; each file has some 50 MB."""


def extracted(kernel: Path, directory: Path) -> Path:
    """The ELF file of a kernel: itself, or in `directory`, made there when it is missing.

    Raises MachineError when it holds none, OSError.
    """
    with kernel.open("rb") as file:
        if file.read(4) == b"\x7fELF":
            return kernel
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    elf = directory / f"{digest[:32]}.elf"
    if not elf.exists():
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            write_atomically(elf, elf_of(kernel), 0o444)
        except ImageError as error:
            raise MachineError(f"Firecracker cannot boot this kernel: {error}") from error
        _forget_oldest(directory)
    return elf


def _forget_oldest(directory: Path) -> None:
    found = sorted(directory.glob("*.elf"), key=lambda elf: elf.stat().st_mtime)
    for elf in found[:-_KEPT]:
        elf.unlink(missing_ok=True)
