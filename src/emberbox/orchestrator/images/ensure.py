"""The image set that this installation boots: found in the store, or made."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emberbox.orchestrator.images import initrd, interpreter, kernel, root, runtime
from emberbox.orchestrator.images.apt import Apt, host_release
from emberbox.orchestrator.images.manifest import key_of
from emberbox.orchestrator.images.progress import Progress, Silent
from emberbox.orchestrator.images.tools import check_host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from emberbox.orchestrator.images.kernel import OwnKernel
    from emberbox.orchestrator.images.manifest import Kind
    from emberbox.orchestrator.images.store import Image, ImageStore


@dataclass(frozen=True, slots=True)
class ImageSet:
    """The files that a sandbox of template `base` boots from, and the hash of each image."""

    kernel: Path
    initrd: Path
    runtime: Path
    root: Path
    hashes: dict[Kind, str]
    kernel_version: str


@dataclass(frozen=True, slots=True)
class _Images:
    kernel: Image
    interpreter: Image
    initrd: Image
    runtime: Image
    root: Image

    def __iter__(self) -> Iterator[Image]:
        return iter((self.kernel, self.interpreter, self.initrd, self.runtime, self.root))


def find_images(store: ImageStore, own_kernel: OwnKernel | None = None) -> ImageSet | None:
    """The set that is in the store for this installation, or None when one must be made.

    Offline and fast: reads manifests and hashes envd's sources. Raises BadSettingError.
    """
    images = _find(store, own_kernel)
    return None if images is None else _set_of(images)


def ensure_images(
    store: ImageStore,
    progress: Progress | None = None,
    *,
    own_kernel: OwnKernel | None = None,
    refresh: bool = False,
) -> ImageSet:
    """The set of this installation, made when it is not there; blocks for minutes then.

    `refresh` asks apt for newer packages even when a set is there. Images of one hash are never
    made twice. Raises ImageError with one line for people: no root, a tool missing, too little
    disk, apt or pip failing.
    """
    images = None if refresh else _find(store, own_kernel)
    if images is None:
        images = _build(store, progress or Silent(), own_kernel, refresh=refresh)
    return _set_of(images)


def ensure_kernel(
    store: ImageStore, progress: Progress | None = None, *, own_kernel: OwnKernel | None = None
) -> Image:
    """The kernel alone, made when it is not there. Raises ImageError."""
    found = store.find("kernel", key_of("kernel", kernel.inputs_of(own_kernel)))
    if found is not None:
        return found
    with _making(store, progress or Silent()) as shown:
        return _Builder(store, shown, own_kernel, refresh=False).kernel()


def current_hashes(store: ImageStore, own_kernel: OwnKernel | None = None) -> frozenset[str]:
    """Hashes of the images that `find_images` stands on, for `ImageStore.prune`."""
    images = _find(store, own_kernel)
    return frozenset(image.hash for image in images or ())


def _find(store: ImageStore, own_kernel: OwnKernel | None) -> _Images | None:
    kernel_image = store.find("kernel", key_of("kernel", kernel.inputs_of(own_kernel)))
    interpreter_image = store.find("interpreter", key_of("interpreter", interpreter.inputs_of()))
    root_image = store.find("root", key_of("root", root.inputs_of()))
    if kernel_image is None or interpreter_image is None or root_image is None:
        return None
    initrd_image = store.find(
        "initrd", key_of("initrd", initrd.inputs_of(kernel_image, interpreter_image))
    )
    runtime_image = store.find("runtime", key_of("runtime", runtime.inputs_of(interpreter_image)))
    if initrd_image is None or runtime_image is None:
        return None
    return _Images(kernel_image, interpreter_image, initrd_image, runtime_image, root_image)


def _build(
    store: ImageStore, progress: Progress, own_kernel: OwnKernel | None, *, refresh: bool
) -> _Images:
    with _making(store, progress) as shown:
        return _Builder(store, shown, own_kernel, refresh=refresh).build()


@contextlib.contextmanager
def _making(store: ImageStore, progress: Progress) -> Iterator[Progress]:
    store.root.mkdir(parents=True, exist_ok=True)
    check_host(store.root)
    progress.step("waiting for the store", None)
    with store.building():
        yield progress


class _Builder:
    """Makes what is missing, in the order in which one image needs another."""

    def __init__(
        self, store: ImageStore, progress: Progress, own_kernel: OwnKernel | None, *, refresh: bool
    ) -> None:
        self._store = store
        self._progress = progress
        self._own_kernel = own_kernel
        self._refresh = refresh
        self._apt = Apt(store.apt_directory, host_release())

    def build(self) -> _Images:
        kernel_image = self.kernel()
        interpreter_image = self._interpreter()
        initrd_image = self._initrd(kernel_image, interpreter_image)
        runtime_image = self._runtime(interpreter_image)
        root_image = self._root()
        return _Images(kernel_image, interpreter_image, initrd_image, runtime_image, root_image)

    def kernel(self) -> Image:
        """The kernel and its modules."""
        found = self._present("kernel", kernel.inputs_of(self._own_kernel))
        if found is not None:
            return found
        if self._own_kernel is not None:
            return kernel.build_own(self._store, self._own_kernel)
        apt = self._updated()
        self._progress.step("kernel", 0.03)
        return kernel.build(self._store, apt)

    def _interpreter(self) -> Image:
        found = self._present("interpreter", interpreter.inputs_of())
        if found is not None:
            return found
        apt = self._updated()
        self._progress.step("interpreter of envd", 0.09)
        return interpreter.build(self._store, apt)

    def _initrd(self, kernel_image: Image, interpreter_image: Image) -> Image:
        key = key_of("initrd", initrd.inputs_of(kernel_image, interpreter_image))
        found = self._store.find("initrd", key)
        if found is not None:
            return found
        self._progress.step("initrd", 0.17)
        return initrd.build(self._store, kernel_image, interpreter_image)

    def _runtime(self, interpreter_image: Image) -> Image:
        key = key_of("runtime", runtime.inputs_of(interpreter_image))
        found = self._store.find("runtime", key)
        if found is not None:
            return found
        self._progress.step("runtime image", 0.18)
        return runtime.build(self._store, interpreter_image)

    def _root(self) -> Image:
        found = self._present("root", root.inputs_of())
        if found is not None:
            return found
        apt = self._updated()
        return root.build(self._store, apt, self._progress)

    def _present(self, kind: Kind, inputs: dict[str, str]) -> Image | None:
        return None if self._refresh else self._store.find(kind, key_of(kind, inputs))

    def _updated(self) -> Apt:
        if not self._apt.updated:
            self._progress.step("package lists", 0.0)
            self._apt.update()
        return self._apt


def _set_of(images: _Images) -> ImageSet:
    return ImageSet(
        kernel=images.kernel.file(kernel.KERNEL),
        initrd=images.initrd.file(initrd.INITRD),
        runtime=images.runtime.file(runtime.RUNTIME),
        root=images.root.file(root.ROOT),
        hashes={image.manifest.kind: image.hash for image in images},
        kernel_version=images.kernel.manifest.facts["version"],
    )
