"""The initrd: a static busybox, the kernel's modules and the script that sets the guest up."""

from __future__ import annotations

import tarfile
import time
from typing import TYPE_CHECKING

from emberbox.orchestrator.images import cpio, guest
from emberbox.orchestrator.images.interpreter import BUSYBOX_MEMBER, TREE
from emberbox.orchestrator.images.kernel import MODULES, modules_of
from emberbox.orchestrator.images.manifest import Manifest, digest_of, hash_of, key_of

if TYPE_CHECKING:
    from emberbox.orchestrator.images.store import Image, ImageStore

RECIPE = "1"
INITRD = "initrd.img"
INIT_SCRIPT = "init.sh"

APPLETS = (
    "sh", "mount", "insmod", "mkdir", "ln", "chmod", "rm", "ip", "reboot", "switch_root",
)  # fmt: skip
"""The busybox applets that the script calls."""

_DIRECTORIES = ("bin", "dev", "proc", "sys", "modules", "lower", "scratch", "root")


def inputs_of(kernel: Image, interpreter: Image) -> dict[str, str]:
    """What the initrd is made from: it needs nothing but what the store has."""
    return {
        "recipe": RECIPE,
        "kernel": kernel.hash,
        "interpreter": interpreter.hash,
        "init": digest_of(guest.read(INIT_SCRIPT).decode(), *APPLETS, *MODULES),
    }


def build(store: ImageStore, kernel: Image, interpreter: Image) -> Image:
    """Make the initrd of a kernel. It is not compressed: the guest's processor may be slow."""
    started = time.monotonic()
    inputs = inputs_of(kernel, interpreter)
    key = key_of("initrd", inputs)
    with store.draft() as draft:
        (draft / INITRD).write_bytes(cpio.pack(_members(kernel, _busybox(interpreter))))
        return store.add(draft, Manifest("initrd", key, hash_of(key, ()), inputs), started)


def _members(kernel: Image, busybox: bytes) -> dict[str, cpio.Entry]:
    modules = modules_of(kernel)
    order = "".join(f"{path.name}\n" for path in modules)
    members = {name: cpio.directory() for name in _DIRECTORIES}
    # The kernel opens /dev/console for init before anything mounts /dev.
    members["dev/console"] = cpio.character_device(5, 1)
    members["dev/null"] = cpio.character_device(1, 3, 0o666)
    members["bin/busybox"] = cpio.file(busybox, 0o755)
    members |= {f"bin/{applet}": cpio.symlink("busybox") for applet in APPLETS}
    members["init"] = cpio.file(guest.read(INIT_SCRIPT), 0o755)
    members["modules/order"] = cpio.file(order.encode())
    members |= {f"modules/{path.name}": cpio.file(path.read_bytes()) for path in modules}
    return members


def _busybox(interpreter: Image) -> bytes:
    with tarfile.open(interpreter.file(TREE)) as archive:
        member = archive.extractfile(BUSYBOX_MEMBER)
        if member is None:
            raise FileNotFoundError(f"{interpreter.path} has no {BUSYBOX_MEMBER}")
        return member.read()
