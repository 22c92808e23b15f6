"""The guest kernel: Debian's cloud kernel, fetched and unpacked, or one of the operator's."""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emberbox.orchestrator.images.errors import BadSettingError, ImageError
from emberbox.orchestrator.images.manifest import (
    Manifest,
    digest_of_file,
    digest_of_tree,
    hash_of,
    key_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    from emberbox.orchestrator.images.apt import Apt
    from emberbox.orchestrator.images.store import Image, ImageStore

RECIPE = "1"
META_PACKAGE = "linux-image-cloud-amd64"
KERNEL = "vmlinuz"
MODULE_SUFFIX = ".ko"

MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_mmio",
    "failover",
    "net_failover",
    "virtio_blk",
    "virtio_net",
    "virtio-rng",
    "overlay",
)
"""Modules the guest needs, in the order in which they load. ext4 is built into this kernel.

In Debian's 6.1 `virtio` needs symbols of `virtio_ring`, not the other way round.
"""


@dataclass(frozen=True, slots=True)
class OwnKernel:
    """A kernel of the operator's (`EMBERBOX_KERNEL`) and the directory of its modules, if any."""

    path: Path
    modules: Path | None = None


def inputs_of(own: OwnKernel | None) -> dict[str, str]:
    """What is known before anything is fetched. Raises BadSettingError."""
    if own is None:
        return {"recipe": RECIPE, "package": META_PACKAGE, "modules": " ".join(MODULES)}
    if not own.path.is_file():
        raise BadSettingError("EMBERBOX_KERNEL", own.path, "is not a file")
    inputs = {"recipe": RECIPE, "kernel": digest_of_file(own.path)}
    if own.modules is not None:
        if not own.modules.is_dir():
            raise BadSettingError("EMBERBOX_KERNEL_MODULES", own.modules, "is not a directory")
        inputs["modules"] = digest_of_tree({"": own.modules}, (MODULE_SUFFIX,))
    return inputs


def build_own(store: ImageStore, own: OwnKernel) -> Image:
    """Take the operator's kernel into the store."""
    started = time.monotonic()
    inputs = inputs_of(own)
    key = key_of("kernel", inputs)
    with store.draft() as draft:
        shutil.copyfile(own.path, draft / KERNEL)
        if own.modules is not None:
            _take_modules(own.modules, draft, required=False)
        manifest = Manifest(
            "kernel", key, hash_of(key, ()), inputs, facts={"version": own.path.name}
        )
        return store.add(draft, manifest, started)


def build(store: ImageStore, apt: Apt) -> Image:
    """Fetch Debian's kernel package and take the kernel and its modules out of it."""
    started = time.monotonic()
    inputs = inputs_of(None)
    key = key_of("kernel", inputs)
    name = _versioned_package(apt)
    packages = tuple(each for each in apt.resolve([name]) if each.name == name)
    digest = hash_of(key, packages)
    present = store.get("kernel", digest)
    if present is not None:
        return present
    with store.draft() as draft, store.draft() as scratch:
        tree = scratch / "tree"
        apt.unpack(packages, tree)
        shutil.move(_only(tree / "boot", "vmlinuz-*"), draft / KERNEL)
        shutil.copyfile(tree / "usr/share/doc" / name / "copyright", draft / "copyright")
        modules = _only(tree / "lib/modules", "*")
        _take_modules(modules, draft, required=True)
        manifest = Manifest(
            "kernel", key, digest, inputs, packages, facts={"version": modules.name}
        )
        return store.add(draft, manifest, started)


def modules_of(kernel: Image) -> list[Path]:
    """The module files of a kernel image, in the order in which they load."""
    files = [kernel.file(_file_name(name)) for name in MODULES]
    return [path for path in files if path.is_file()]


def _versioned_package(apt: Apt) -> str:
    for name in apt.depends(META_PACKAGE):
        if re.match(r"linux-image-\d", name):
            return name
    raise ImageError(
        f"{META_PACKAGE} depends on no kernel package", "set EMBERBOX_KERNEL to a kernel file"
    )


def _file_name(module: str) -> str:
    """The kernel writes a module's name with underscores, some of their files have dashes."""
    return module.replace("-", "_") + MODULE_SUFFIX


def _take_modules(tree: Path, draft: Path, *, required: bool) -> None:
    for name in MODULES:
        found = next(tree.rglob(name + MODULE_SUFFIX), None)
        if found is not None:
            shutil.copyfile(found, draft / _file_name(name))
        elif required:
            raise ImageError(
                f"the kernel package has no module {name}", "set EMBERBOX_KERNEL to a kernel file"
            )


def _only(directory: Path, pattern: str) -> Path:
    found = sorted(directory.glob(pattern))
    if len(found) != 1:
        raise ImageError(
            f"the kernel package has {len(found)} files {pattern} where one was expected",
            "set EMBERBOX_KERNEL to a kernel file",
        )
    return found[0]
