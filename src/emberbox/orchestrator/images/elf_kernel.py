"""The kernel as an uncompressed ELF file, as VMMs take it that have no boot loader.

A distribution's kernel is a bzImage: a loader, and the ELF file compressed behind it. Where the
compressed part lies is in the header of the boot protocol (Documentation/arch/x86/boot.rst).
"""

from __future__ import annotations

import bz2
import lzma
import struct
import subprocess
import zlib
from typing import TYPE_CHECKING

import lz4.block

from emberbox.orchestrator.images.errors import ImageError
from emberbox.orchestrator.images.tools import require

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REMEDY = "set EMBERBOX_KERNEL to a Linux kernel for x86-64, as bzImage or as vmlinux"

_SETUP_SECTORS, _BOOT_MAGIC, _PAYLOAD = 0x1F1, 0x202, 0x248
_SECTOR = 512
_SIZE_BYTES = 4
"""The build appends the uncompressed size."""

_LZ4_LEGACY = b"\x02\x21\x4c\x18"
_LZ4_BLOCK_BYTES = 8 << 20

_ELF = struct.Struct("<4sBB10xHH")
_ELF_64, _LITTLE_ENDIAN, _EXECUTABLE, _X86_64 = 2, 1, 2, 62
_TOOL_SECONDS = 120.0
_DAMAGED = (
    *(ValueError, EOFError, OSError, struct.error),
    *(zlib.error, lzma.LZMAError, lz4.block.LZ4BlockError),
)


def elf_of(kernel: Path) -> bytes:
    """The ELF file in a kernel, or the kernel itself when it is one.

    Takes about half a second. Raises ImageError when there is none for x86-64 in it, OSError.
    """
    content = kernel.read_bytes()
    elf = content if content.startswith(b"\x7fELF") else _payload(kernel, content)
    if not _fits(elf):
        raise ImageError(f"{kernel} holds no ELF kernel for x86-64", REMEDY)
    return elf


def _payload(kernel: Path, content: bytes) -> bytes:
    if content[_BOOT_MAGIC : _BOOT_MAGIC + 4] != b"HdrS" or len(content) < _PAYLOAD + 8:
        raise ImageError(f"{kernel} is neither a bzImage nor an ELF file", REMEDY)
    # 0 stands for 4, from the days of floppy disks.
    setup = ((content[_SETUP_SECTORS] or 4) + 1) * _SECTOR
    offset, length = struct.unpack_from("<II", content, _PAYLOAD)
    packed = content[setup + offset : setup + offset + length]
    for magic, decompress in _FORMATS.items():
        if packed.startswith(magic):
            return _decompressed(kernel, packed, decompress)
    raise ImageError(f"{kernel} is compressed in a way that is not known here", REMEDY)


def _decompressed(kernel: Path, packed: bytes, decompress: Callable[[bytes], bytes]) -> bytes:
    try:
        elf = decompress(packed)
    except _DAMAGED as error:
        raise ImageError(f"{kernel} is damaged ({error})", REMEDY) from error
    # All formats end with the uncompressed size: gzip by itself, the others by the kernel's build.
    if len(elf) != int.from_bytes(packed[-_SIZE_BYTES:], "little"):
        raise ImageError(f"{kernel} is damaged (it does not have the size that it names)", REMEDY)
    return elf


def _from_lz4(packed: bytes) -> bytes:
    """Of LZ4's legacy format, which the kernel's build still makes: blocks with their lengths."""
    parts, at, end = [], len(_LZ4_LEGACY), len(packed) - _SIZE_BYTES
    while at < end:
        (length,) = struct.unpack_from("<I", packed, at)
        block = packed[at + 4 : min(at + 4 + length, end)]
        parts.append(lz4.block.decompress(block, uncompressed_size=_LZ4_BLOCK_BYTES))
        at += 4 + length
    return b"".join(parts)


def _by(tool: str) -> Callable[[bytes], bytes]:
    """By a program of the distribution, whose package has the same name."""

    def decompress(packed: bytes) -> bytes:
        require(tool, tool)
        packed = packed[:-_SIZE_BYTES]
        done = subprocess.run(
            [tool, "-dc"], input=packed, capture_output=True, timeout=_TOOL_SECONDS, check=False
        )
        if done.returncode != 0:
            raise ValueError(done.stderr.decode(errors="replace").strip())
        return done.stdout

    return decompress


_FORMATS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": lambda packed: zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(packed),
    b"BZh": lambda packed: bz2.BZ2Decompressor().decompress(packed),
    b"\xfd7zXZ\0": lambda packed: lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(packed),
    b"]\0\0": lambda packed: lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(packed),
    _LZ4_LEGACY: _from_lz4,
    b"\x28\xb5\x2f\xfd": _by("zstd"),
}


def _fits(elf: bytes) -> bool:
    if len(elf) < _ELF.size:
        return False
    _, width, order, kind, machine = _ELF.unpack_from(elf)
    return (width, order, kind, machine) == (_ELF_64, _LITTLE_ENDIAN, _EXECUTABLE, _X86_64)
