"""Errors of the image build.

StartupError
└── ImageError                an image cannot be made; `remedy` says what to do
    ├── MissingToolError      a program of the host is not installed
    ├── NotRootError          building needs root
    ├── LowDiskError          the file system of the store is too full
    ├── ToolFailedError       a program of the host ended with an error
    └── BadSettingError       a path that was given is no such thing
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emberbox.shared.errors import StartupError

if TYPE_CHECKING:
    from pathlib import Path

_GIB = 1 << 30


class ImageError(StartupError):
    """An image cannot be made. The text is one line: what is wrong, then the remedy."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}: {remedy}")
        self.problem = problem
        self.remedy = remedy


class NotRootError(ImageError):
    """Root file systems hold files of other users and are made with chroot."""

    def __init__(self) -> None:
        super().__init__("images are built as root", "run the command with sudo")


class MissingToolError(ImageError):
    """A program that the build calls is not on PATH."""

    def __init__(self, tool: str, package: str) -> None:
        super().__init__(f"{tool} is not installed", f"run apt-get install {package}")
        self.tool = tool
        self.package = package


class LowDiskError(ImageError):
    """The file system that holds the store has less room than the build takes."""

    def __init__(self, path: Path, needed: int, free: int) -> None:
        super().__init__(
            f"building the images needs {needed / _GIB:.1f} GiB at {path}, "
            f"and {free / _GIB:.1f} GiB are free",
            "make room there or set EMBERBOX_HOME to another file system",
        )
        self.path = path
        self.needed = needed
        self.free = free


class ToolFailedError(ImageError):
    """A program of the host failed; `output` is the end of what it wrote."""

    def __init__(self, doing: str, argv: list[str], output: str, remedy: str) -> None:
        cause = _cause(output)
        super().__init__(f"{doing} failed ({argv[0]}: {cause})", remedy)
        self.doing = doing
        self.argv = argv
        self.output = output


class BadSettingError(ImageError):
    """A kernel or module path that was set does not serve."""

    def __init__(self, name: str, value: object, problem: str) -> None:
        super().__init__(f"{name}={value} {problem}", f"correct {name} or unset it")
        self.name = name
        self.value = value


def _cause(output: str) -> str:
    """The line that says most: the first that speaks of an error, else the last."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("E:", "ERROR:")) or "rror" in line]
    return errors[0] if errors else (lines or ["no message"])[-1]
