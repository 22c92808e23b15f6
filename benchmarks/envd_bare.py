"""The bare side of the measurements of envd: `guest/bare.c`, built here, run in the sandbox."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emberbox import CommandHandle, Sandbox

_SOURCE = Path(__file__).parent / "guest" / "bare.c"
_PLACE = "/home/user/bare"


@dataclass(frozen=True, slots=True)
class Asked:
    """The program, waiting to do its work once more."""

    sandbox: Sandbox
    handle: CommandHandle

    def once(self) -> float:
        """Milliseconds, by the guest's clock."""
        self.sandbox.commands.send_stdin(self.handle.pid, "x")
        return _milliseconds(_next_line(self.handle))


@dataclass(frozen=True, slots=True)
class Bare:
    """The program in a sandbox."""

    sandbox: Sandbox

    @classmethod
    def put(cls, sandbox: Sandbox, program: bytes) -> Bare:
        """Bring in what `build` made."""
        sandbox.files.write(_PLACE, program, request_timeout=300)
        sandbox.commands.run(f"chmod +x {_PLACE}")
        return cls(sandbox)

    @contextmanager
    def asked(self, *arguments: str) -> Iterator[Asked]:
        """One that works each time it is told to."""
        handle = self._background(*arguments)
        yield Asked(self.sandbox, handle)
        self.sandbox.commands.close_stdin(handle.pid)
        handle.wait()

    @contextmanager
    def serving(self, port: int) -> Iterator[None]:
        """The HTTP server."""
        handle = self._background("serve", str(port))
        _next_line(handle)
        yield
        handle.kill()

    def once(self, *arguments: str) -> float:
        """Milliseconds of one piece of work, by the guest's clock."""
        done = self.sandbox.commands.run(" ".join((_PLACE, *arguments)), timeout=300)
        return _milliseconds(done.stdout)

    def _background(self, *arguments: str) -> CommandHandle:
        command = " ".join(("exec", _PLACE, *arguments))
        return self.sandbox.commands.run(command, background=True, stdin=True, timeout=0)


def build() -> bytes:
    """The program for this machine's architecture, which is the guest's.

    Ends this program, with a message, when it cannot be built.
    """
    compiler = shutil.which("gcc")
    if compiler is None:
        sys.exit("benchmarks envd needs gcc for its bare side: apt-get install gcc libc6-dev")
    with tempfile.TemporaryDirectory() as place:
        program = Path(place) / "bare"
        command = [compiler, "-static", "-O2", "-o", str(program), str(_SOURCE)]
        built = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
        if built.returncode:
            sys.exit(f"gcc cannot build {_SOURCE}: apt-get install libc6-dev\n{built.stderr}")
        return program.read_bytes()


def _next_line(handle: CommandHandle) -> str:
    for stdout, _stderr, _pty in handle:
        if stdout:
            return stdout
    raise RuntimeError("the program in the sandbox ended")


def _milliseconds(microseconds: str) -> float:
    return int(microseconds) / 1000
