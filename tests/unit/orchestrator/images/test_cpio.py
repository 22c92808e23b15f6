"""Archives for the kernel, read back by cpio itself."""

from __future__ import annotations

import subprocess

from emberbox.orchestrator.images import cpio

MEMBERS = {
    "init": cpio.file(b"#!/bin/sh\n", 0o755),
    "bin": cpio.directory(),
    "bin/sh": cpio.symlink("busybox"),
    "bin/busybox": cpio.file(b"\x7fELF...", 0o755),
    "dev": cpio.directory(),
    "dev/console": cpio.character_device(5, 1),
}


def test_cpio_lists_what_was_packed() -> None:
    listing = subprocess.run(
        ["cpio", "--list", "--verbose", "--numeric-uid-gid", "--quiet"],
        input=cpio.pack(MEMBERS), capture_output=True, check=True, env={"LC_ALL": "C", "TZ": "UTC"},
    ).stdout.decode()  # fmt: skip
    lines = [line.split() for line in listing.splitlines()]

    assert [(line[0], line[-1]) for line in lines] == [
        ("drwxr-xr-x", "bin"),
        ("-rwxr-xr-x", "bin/busybox"),
        ("lrwxrwxrwx", "busybox"),
        ("drwxr-xr-x", "dev"),
        ("crw-------", "dev/console"),
        ("-rwxr-xr-x", "init"),
    ]
    assert lines[4][4:6] == ["5,", "1"]
    assert {(line[2], line[3]) for line in lines} == {("0", "0")}


def test_content_is_kept() -> None:
    content = subprocess.run(
        ["cpio", "--extract", "--to-stdout", "--quiet", "bin/busybox"],
        input=cpio.pack(MEMBERS), capture_output=True, check=True,
    ).stdout  # fmt: skip

    assert content == b"\x7fELF..."


def test_the_order_of_the_input_does_not_matter() -> None:
    reversed_members = dict(reversed(MEMBERS.items()))

    assert cpio.pack(reversed_members) == cpio.pack(MEMBERS)
