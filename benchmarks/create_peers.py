"""What a user would pick instead on this machine: the same command in the same files.

Each tool starts from nothing: it is given the template's root image as a directory, runs
`/bin/bash -l -c true` as the same user and takes everything away again. Its time is compared with
ours from `create` until the first command has run; `ratio` is the tool's over ours. A tool that
does not start here is reported with its error.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.figures import Clock
from emberbox.orchestrator.images import find_images
from emberbox.orchestrator.images.store import ImageStore
from emberbox.shared.home import Home, default_home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_COMMAND = ["/bin/bash", "-l", "-c", "true"]
_USER = 1000
_SECONDS = 120


@dataclass(slots=True)
class Peer:
    """One tool. `argv` gives the command line for a name that was not used before."""

    name: str
    argv: Callable[[str], Sequence[str]]
    times: list[float] = field(default_factory=list)
    error: str = ""

    def measure(self) -> None:
        """Once; not again after an error."""
        if self.error:
            return
        argv = self.argv(f"peer-{uuid.uuid4().hex[:8]}")
        clock = Clock()
        try:
            with clock.running():
                done = subprocess.run(
                    argv,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=_SECONDS,
                    check=False,
                )
        except FileNotFoundError:
            self.error = f"not installed: apt-get install {self.name}"
        except subprocess.TimeoutExpired:
            self.error = f"not done after {_SECONDS} s"
        else:
            if done.returncode == 0:
                self.times.append(clock.ms)
            else:
                self.error = f"exit {done.returncode}: {done.stderr.strip()[-300:]}"

    def result(self, ours: Sequence[float]) -> dict[str, Any]:
        """What is printed of it."""
        if self.error:
            print(f"{self.name}: {self.error}", file=sys.stderr)
            return {"name": self.name, "error": self.error}
        took = statistics.median(self.times)
        ratio = round(took / statistics.median(ours), 2)
        return {"name": self.name, "first_command_ms": round(took, 1), "ratio": ratio}


@contextmanager
def installed() -> Iterator[list[Peer]]:
    """All tools, whether they are there or not, with the root image mounted for them."""
    images = find_images(ImageStore(Home(default_home()).images), None)
    if images is None:
        raise FileNotFoundError("the images are not built: run emberbox images build")
    with tempfile.TemporaryDirectory(prefix="emberbox-peers-") as directory:
        bundle = Path(directory)
        root = bundle / "rootfs"
        root.mkdir()
        (bundle / "config.json").write_text(json.dumps(_bundle()))
        subprocess.run(["mount", "-o", "loop,ro", images.root, root], check=True)
        try:
            yield _peers(bundle)
        finally:
            subprocess.run(["umount", root], check=True)


def _peers(bundle: Path) -> list[Peer]:
    runsc = ("runsc", "--root", bundle / "runsc", "--network=none", "--ignore-cgroups")
    podman = ("podman", "run", "--rm", "--network=none", f"--user={_USER}")
    return [
        Peer("runsc", lambda name: [*map(str, runsc), "run", "-bundle", str(bundle), name]),
        Peer("crun", lambda name: ["crun", "run", "--bundle", str(bundle), name]),
        Peer(
            "podman",
            lambda name: [*podman, f"--name={name}", "--rootfs", f"{bundle}/rootfs:O", *_COMMAND],
        ),
    ]


def _bundle() -> dict[str, Any]:
    """An OCI runtime configuration, 1.0."""
    namespaces = ("pid", "network", "ipc", "uts", "mount")
    return {
        "ociVersion": "1.0.0",
        "process": {
            "terminal": False,
            "user": {"uid": _USER, "gid": _USER},
            "args": _COMMAND,
            "env": ["PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/home/user"],
            "cwd": "/",
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "peer",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
        ],
        "linux": {"namespaces": [{"type": kind} for kind in namespaces]},
    }
