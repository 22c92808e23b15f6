"""What one VMM sees: a few files at the same paths in every VMM, with jailer and without.

Paths are part of a snapshot, and cannot be given anew when it is loaded. So each VMM has them
below `/run/emberbox/vm`, bound in a mount namespace of its own:

```
kernel initrd                 read-only, for a boot
root runtime                  read-only
scratch                       the writable disk
ram devices                   read-only, the memory and device state of what is loaded
log metrics                   pipes
own/                          the VMM's, and the only place where it can make a file:
    api.sock memory devices   its socket; the memory and device state that it is told to write
```

On the host they are below `vm/` of the run directory, which also has:

```
jail/        the jailer's, with the VMM's root directory in it
console      pipe: what the guest prints on its serial port
vmm.json     what the VM was started with
base         the template's memory, linked
ram          of a continued VM: the template's memory with the saved pages written over it
layer        of a continued VM: what was saved, linked
changes      what has changed since it was loaded, as far as it was saved; all else is a hole
tracked      there while the VMM's log of dirty pages goes on from `changes`
metrics.json the VMM's last metrics
```
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emberbox.orchestrator.errors import MachineError
from emberbox.orchestrator.machines.firecracker import pipes
from emberbox.orchestrator.machines.firecracker.mounting import Bind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emberbox.orchestrator.machines.driver import Surroundings

SEEN_AT = Path("/run/emberbox/vm")

KERNEL, INITRD, ROOT, RUNTIME, SCRATCH = "kernel", "initrd", "root", "runtime", "scratch"
RAM, STATE = "ram", "devices"
LOG, METRICS = "log", "metrics"
OWN = "own"
SOCKET = f"{OWN}/api.sock"
DUMPED_MEMORY, DUMPED_STATE = f"{OWN}/memory", f"{OWN}/devices"

BASE, LOADED, LAYER = "base", "ram", "layer"
CHANGES, TRACKED = "changes", "tracked"
METRICS_FILE = "metrics.json"
"""Of the run directory."""

_WRITABLE = {SCRATCH}
_LARGEST_STATE = 64 << 20
_TUN, _KVM = (10, 200), (10, 232)
"""Linux, Documentation/admin-guide/devices.txt."""


def path(name: str) -> str:
    """A file as the VMM names it."""
    return str(SEEN_AT / name)


@dataclass(frozen=True, slots=True)
class View:
    """The files of one VMM on the host. `uid` owns what is the VMM's."""

    directory: Path
    uid: int

    @classmethod
    def of(cls, place: Surroundings) -> View:
        """That of a place."""
        return cls(place.directory, place.uid)

    @property
    def host(self) -> Path:
        """Where the view lies."""
        return self.directory / "vm"

    @property
    def jail(self) -> Path:
        """Where the jailer makes the VMM's root directory."""
        return self.directory / "jail"

    @property
    def console(self) -> Path:
        """The pipe of the serial port."""
        return self.directory / "console"

    def make(self, scratch: Path) -> None:
        """The directories and pipes; what a VMM of before left is removed. Raises OSError."""
        for old in (self.host, self.jail):
            shutil.rmtree(old, ignore_errors=True)
        for name in ("console", CHANGES, TRACKED, METRICS_FILE):
            (self.directory / name).unlink(missing_ok=True)
        self.host.mkdir()
        self.host.chmod(0o711)
        own = self.host / OWN
        own.mkdir(0o700)
        os.chown(own, self.uid, self.uid)
        for name in (LOG, METRICS):
            pipes.make(self.host / name, self.uid)
        pipes.make(self.console, 0)
        os.chown(scratch, self.uid, self.uid)

    def keep(self, name: str, file: Path) -> None:
        """Give a file that must not go while the VM lives a name here. Raises OSError."""
        kept = self.directory / name
        kept.unlink(missing_ok=True)
        try:
            os.link(file, kept)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            kept.symlink_to(file)

    def forget_memory(self) -> None:
        """Remove what a VM of before was loaded from."""
        for name in (BASE, LOADED, LAYER):
            (self.directory / name).unlink(missing_ok=True)

    def bound(self, files: Mapping[str, Path]) -> list[Bind]:
        """Files by their names in the view, each a mount to be made. Raises OSError."""
        binds = []
        for name, source in files.items():
            target = self.host / name
            target.touch()
            binds.append(Bind(source, target, read_only=name not in _WRITABLE))
        return binds

    def devices(self) -> list[Bind]:
        """Nodes of its own for a VMM that sees the host's /dev. Raises OSError."""
        binds = []
        for name, numbers in (("/dev/net/tun", _TUN), ("/dev/kvm", _KVM)):
            if Path(name).exists():
                node = self.host / Path(name).name
                os.mknod(node, 0o600 | stat.S_IFCHR, os.makedev(*numbers))
                os.chown(node, self.uid, self.uid)
                binds.append(Bind(node, Path(name), read_only=False, device=True))
        return binds

    def open_socket(self) -> int:
        """A descriptor of the API's socket. Raises FileNotFoundError; MachineError when something
        else is there."""
        return self._open_own(SOCKET, os.O_PATH, stat.S_IFSOCK)

    def open_dumped_memory(self, size: int) -> int:
        """What the VMM has written of its guest's memory. Raises MachineError, OSError."""
        fd = self._open_own(DUMPED_MEMORY, os.O_RDONLY | os.O_NONBLOCK, stat.S_IFREG)
        if (written := os.fstat(fd).st_size) != size:
            os.close(fd)
            raise MachineError(f"Firecracker wrote {written} bytes of memory; the VM has {size}")
        return fd

    def read_dumped_state(self) -> bytes:
        """What the VMM has written of its devices. Raises MachineError, OSError."""
        fd = self._open_own(DUMPED_STATE, os.O_RDONLY | os.O_NONBLOCK, stat.S_IFREG)
        with os.fdopen(fd, "rb") as file:
            state = file.read(_LARGEST_STATE + 1)
        if len(state) > _LARGEST_STATE:
            raise MachineError(f"Firecracker wrote more than {_LARGEST_STATE} bytes of state")
        return state

    def remove_dumped(self) -> None:
        """Remove what the VMM has written."""
        for name in (DUMPED_MEMORY, DUMPED_STATE):
            with contextlib.suppress(OSError):
                (self.host / name).unlink(missing_ok=True)

    def _open_own(self, name: str, flags: int, kind: int) -> int:
        """A file in the VMM's directory, if it is of that kind: not a link to what is ours."""
        fd = os.open(self.host / name, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
        status = os.fstat(fd)
        if stat.S_IFMT(status.st_mode) != kind or status.st_uid != self.uid:
            os.close(fd)
            raise MachineError(f"{name} is not what Firecracker makes there")
        return fd
