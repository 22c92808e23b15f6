"""The ELF file in a kernel, however it is compressed."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import struct
import subprocess
from typing import TYPE_CHECKING

import lz4.block
import pytest

from emberbox.orchestrator.errors import MachineError
from emberbox.orchestrator.images.elf_kernel import elf_of
from emberbox.orchestrator.images.errors import ImageError, MissingToolError
from emberbox.orchestrator.machines.firecracker.kernels import extracted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, 62) + os.urandom(5000)


def sized(packed: bytes) -> bytes:
    """As the kernel's build appends the uncompressed size."""
    return packed + struct.pack("<I", len(ELF))


def legacy_lz4(content: bytes) -> bytes:
    block: bytes = lz4.block.compress(content, store_size=False)
    return b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block


def by(*command: str) -> Callable[[bytes], bytes]:
    def compress(content: bytes) -> bytes:
        done = subprocess.run(command, input=content, capture_output=True, check=True, timeout=10)
        return sized(done.stdout)

    return compress


FORMATS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": lambda content: sized(bz2.compress(content)),
    "xz": lambda content: sized(lzma.compress(content, lzma.FORMAT_XZ)),
    "lzma": lambda content: sized(lzma.compress(content, lzma.FORMAT_ALONE)),
    "lz4": lambda content: sized(legacy_lz4(content)),
    "zstd": by("zstd", "-c"),
}


def big_zimage(payload: bytes, sectors: int = 3) -> bytes:
    """A bzImage around a payload; 0 sectors stand for 4."""
    setup = bytearray(512 * ((sectors or 4) + 1))
    setup[0x1F1] = sectors
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", setup, 0x248, 100, len(payload))
    return bytes(setup) + bytes(100) + payload + bytes(50)


def kernel(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "vmlinuz"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("sectors", [0, 39])
def test_every_compression(tmp_path: Path, name: str, sectors: int) -> None:
    image = big_zimage(FORMATS[name](ELF), sectors)
    assert elf_of(kernel(tmp_path, image)) == ELF


def test_an_elf_file_is_taken_as_it_is(tmp_path: Path) -> None:
    path = kernel(tmp_path, ELF)
    assert elf_of(path) == ELF
    assert extracted(path, tmp_path / "cache") == path
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"MZ", "neither a bzImage nor an ELF file"),
        (big_zimage(b"plain"), "compressed in a way that is not known"),
        (big_zimage(FORMATS["xz"](ELF)[:-2000]), "damaged"),
        (big_zimage(FORMATS["gzip"](ELF)[:-4] + bytes(4)), "damaged"),
        (big_zimage(b"\x02\x21\x4c\x18" + b"\xff" * 100), "damaged"),
        (big_zimage(gzip.compress(ELF[:18] + b"\xb7\x00" + ELF[20:])), "no ELF kernel for x86-64"),
        (big_zimage(gzip.compress(b"\x7fELF")), "no ELF kernel for x86-64"),
    ],
    ids=["no-kernel", "unknown", "short", "wrong-size", "bad-lz4", "arm", "tiny"],
)
def test_what_is_no_kernel_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    with pytest.raises(ImageError, match=told) as raised:
        elf_of(kernel(tmp_path, content))
    assert "set EMBERBOX_KERNEL" in str(raised.value)
    with pytest.raises(MachineError, match="cannot boot this kernel"):
        extracted(tmp_path / "vmlinuz", tmp_path)


def test_a_tool_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = kernel(tmp_path, big_zimage(FORMATS["zstd"](ELF)))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingToolError, match="apt-get install zstd"):
        elf_of(path)


def test_kernels_are_extracted_once_and_the_last_four_kept(tmp_path: Path) -> None:
    made = []
    for number in range(6):
        path = kernel(tmp_path, big_zimage(gzip.compress(ELF)) + bytes([number]))
        made.append(extracted(path, tmp_path / "cache"))
        os.utime(made[-1], (number, number))
        assert made[-1].read_bytes() == ELF
        assert made[-1].stat().st_mode & 0o777 == 0o444
    assert sorted((tmp_path / "cache").iterdir()) == sorted(made[2:])
    before = made[-1].stat().st_ino
    assert extracted(path, tmp_path / "cache").stat().st_ino == before
