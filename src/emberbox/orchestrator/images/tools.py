"""Programs of the host that the build calls, and what must hold before it starts."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from emberbox.orchestrator.images.errors import (
    LowDiskError,
    MissingToolError,
    NotRootError,
    ToolFailedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

PACKAGE_OF_TOOL = {
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "mmdebstrap": "mmdebstrap",
    "mkfs.ext4": "e2fsprogs",
    "debugfs": "e2fsprogs",
}

BUILD_SPACE = 3 << 30
"""Bytes a whole build takes at its peak: packages, the unpacked tree and the image of it."""


def check_host(store_root: Path) -> None:
    """Raise NotRootError, MissingToolError or LowDiskError when a build here could not end well."""
    if os.geteuid() != 0:
        raise NotRootError
    for tool, package in PACKAGE_OF_TOOL.items():
        require(tool, package)
    free = shutil.disk_usage(store_root).free
    if free < BUILD_SPACE:
        raise LowDiskError(store_root, BUILD_SPACE, free)


def require(tool: str, package: str) -> None:
    """Raise MissingToolError when `tool` is not on PATH."""
    if shutil.which(tool) is None:
        raise MissingToolError(tool, package)


def run(
    argv: list[str],
    *,
    doing: str,
    remedy: str,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    on_line: Callable[[str], None] | None = None,
) -> str:
    """Run a program to its end and return its standard output.

    `on_line` sees each line of its standard error as it comes. Raises ToolFailedError with the end
    of both outputs when the program does not end with 0.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if on_line is None else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})},
        cwd=cwd,
        text=True,
        errors="replace",
    )
    with process:
        try:
            output, messages = (
                process.communicate() if on_line is None else ("", _follow(process, on_line))
            )
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise ToolFailedError(doing, argv, f"{output[-4000:]}\n{messages[-8000:]}", remedy)
    return output


def _follow(process: subprocess.Popen[str], on_line: Callable[[str], None]) -> str:
    lines: list[str] = []
    assert process.stderr is not None  # noqa: S101 - Popen was given PIPE
    for line in process.stderr:
        lines.append(line)
        on_line(line.rstrip())
    return "".join(lines[-200:])
