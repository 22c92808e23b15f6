"""The content-addressed store of guest images under `EMBERBOX_HOME/images`.

```
<kind>/<hash>/…, manifest.json   one image, whole; never changed after the rename
pins/<hash>/<by>                 who still needs the image
work/…                           what is being made; swept by the next build
apt/                             package lists of the last build
build.lock, pins.lock            one builder at a time; pin against prune
```
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from emberbox.orchestrator.images.manifest import (
    KINDS,
    MANIFEST,
    ImageFile,
    Manifest,
    digest_of_file,
)
from emberbox.orchestrator.images.usage import directories_in_use
from emberbox.shared.sidefile import sync_directory, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from emberbox.orchestrator.images.manifest import Kind

_HOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._-]{0,199}\Z")
_HASH = re.compile(r"[0-9a-f]{32}\Z")


@dataclass(frozen=True, slots=True)
class Image:
    """One whole image of the store."""

    path: Path
    manifest: Manifest

    @property
    def hash(self) -> str:
        """Name of the image."""
        return self.manifest.hash

    @property
    def size(self) -> int:
        """Bytes on disk of all its files."""
        return sum(file.stat().st_blocks * 512 for file in self.path.iterdir())

    def file(self, name: str) -> Path:
        """Path of one of its files."""
        return self.path / name


class ImageStore:
    """Images by content hash. Methods block on the disk; all are safe against other processes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def apt_directory(self) -> Path:
        """Where the build keeps its package lists."""
        return self.root / "apt"

    def find(self, kind: Kind, key: str) -> Image | None:
        """The newest image made by the recipe and inputs that `key` names."""
        matches = [image for image in self.images(kind) if image.manifest.key == key]
        return max(matches, key=lambda image: image.manifest.made_at, default=None)

    def get(self, kind: Kind, hash_: str) -> Image | None:
        """The image with this hash, if it is there."""
        return _load(self.root / kind / hash_)

    def images(self, *kinds: Kind) -> Iterator[Image]:
        """All images, or those of the kinds."""
        for kind in kinds or KINDS:
            directory = self.root / kind
            for path in sorted(directory.iterdir()) if directory.is_dir() else ():
                image = _load(path)
                if image is not None:
                    yield image

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """Hold the store for making images; waits for another builder, sweeps what crashed."""
        self.root.mkdir(parents=True, exist_ok=True)
        with _locked(self.root / "build.lock"):
            self._sweep()
            yield

    @contextlib.contextmanager
    def draft(self) -> Iterator[Path]:
        """A work directory on the store's file system, gone afterwards."""
        (self.root / "work").mkdir(parents=True, exist_ok=True)
        path = Path(tempfile.mkdtemp(dir=self.root / "work"))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def add(self, draft: Path, manifest: Manifest, started: float) -> Image:
        """Take the files of `draft` as the image that `manifest` names, durably and at once.

        `started` is the `time.monotonic()` at which making it began. An image of the same hash
        that is there already stays, and is returned.
        """
        target = self.root / manifest.kind / manifest.hash
        target.parent.mkdir(parents=True, exist_ok=True)
        files = {path.name: _settled(path) for path in sorted(draft.iterdir())}
        whole = replace(
            manifest,
            files=files,
            made_at=datetime.now(UTC).isoformat(timespec="microseconds"),
            seconds=round(time.monotonic() - started, 1),
        )
        write_atomically(draft / MANIFEST, whole.to_json())
        draft.chmod(0o755)
        if _load(target) is None:
            draft.rename(target)
            sync_directory(target.parent)
        image = _load(target)
        if image is None:
            raise FileExistsError(f"{target} exists and is no image")
        return image

    def pin(self, hash_: str, by: str) -> None:
        """Record that `by` (a template, a sandbox) needs the image until `unpin`.

        Raises FileNotFoundError when there is no such image, ValueError for an unfit name.
        """
        _check_names(hash_, by)
        with self._pins_locked():
            if not any((self.root / kind / hash_).is_dir() for kind in KINDS):
                raise FileNotFoundError(f"there is no image {hash_} in {self.root}")
            directory = self.root / "pins" / hash_
            directory.mkdir(parents=True, exist_ok=True)
            write_atomically(directory / by, b"")
            sync_directory(directory.parent)

    def unpin(self, hash_: str, by: str) -> None:
        """Drop the record; nothing happens when there is none."""
        _check_names(hash_, by)
        with self._pins_locked():
            directory = self.root / "pins" / hash_
            (directory / by).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                directory.rmdir()

    def pins(self, hash_: str) -> frozenset[str]:
        """Who needs the image."""
        directory = self.root / "pins" / hash_
        if not directory.is_dir():
            return frozenset()
        return frozenset(path.name for path in directory.iterdir() if path.name[0] != ".")

    def prune(self, keep: Iterable[str]) -> list[Image]:
        """Remove every image that is not in `keep`, not pinned and not open in any process.

        Waits for a running build. Returns what was removed.
        """
        kept = frozenset(keep)
        with self.building(), self._pins_locked(), self.draft() as graveyard:
            used = directories_in_use(self.root)
            removed = [
                image
                for image in self.images()
                if image.hash not in kept and not self.pins(image.hash) and image.path not in used
            ]
            for image in removed:
                image.path.rename(graveyard / image.hash)
        return removed

    def _sweep(self) -> None:
        shutil.rmtree(self.root / "work", ignore_errors=True)

    @contextlib.contextmanager
    def _pins_locked(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with _locked(self.root / "pins.lock"):
            yield


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _load(path: Path) -> Image | None:
    try:
        return Image(path, Manifest.from_json((path / MANIFEST).read_bytes()))
    except (OSError, ValueError, KeyError):
        return None


def _settled(path: Path) -> ImageFile:
    """Put a file of an image on the disk for good, readable by all and writable by none."""
    path.chmod(0o444)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return ImageFile(path.stat().st_size, digest_of_file(path))


def _check_names(hash_: str, by: str) -> None:
    if not _HASH.match(hash_):
        raise ValueError(f"hash {hash_!r} is not 32 hex digits")
    if not _HOLDER.match(by):
        raise ValueError(f"by {by!r} may hold letters, digits and :._- only, 200 at most")
