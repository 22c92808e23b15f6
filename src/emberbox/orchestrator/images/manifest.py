"""What an image was made from: the `manifest.json` beside every image."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

Kind = Literal["kernel", "interpreter", "initrd", "runtime", "root"]
KINDS: tuple[Kind, ...] = get_args(Kind)

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One Debian package at one version."""

    name: str
    version: str
    architecture: str


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One file of an image: size in bytes and SHA-256 in hex."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The inputs and the files of one image.

    `key` names the recipe and all inputs that are known offline; `hash` adds the package
    versions that the recipe met. Two builds with one `hash` are interchangeable.
    """

    kind: Kind
    key: str
    hash: str
    inputs: Mapping[str, str]
    packages: tuple[Package, ...] = ()
    files: Mapping[str, ImageFile] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    made_at: str = ""
    seconds: float = 0.0

    def to_json(self) -> bytes:
        """The file's content."""
        return (json.dumps(asdict(self), indent=2, sort_keys=True) + "\n").encode()

    @staticmethod
    def from_json(data: bytes) -> Manifest:
        """Read what `to_json` wrote. Raises ValueError or KeyError on anything else."""
        raw = json.loads(data)
        raw["packages"] = tuple(Package(**package) for package in raw["packages"])
        raw["files"] = {name: ImageFile(**file) for name, file in raw["files"].items()}
        try:
            return Manifest(**raw)
        except TypeError as error:
            raise ValueError(str(error)) from error


def key_of(kind: Kind, inputs: Mapping[str, str]) -> str:
    """Name of a recipe with its inputs."""
    return digest_of(kind, *(f"{name}={inputs[name]}" for name in sorted(inputs)))


def hash_of(key: str, packages: Iterable[Package]) -> str:
    """Name of an image: its key and the packages that went into it."""
    lines = (f"{each.name}={each.version}:{each.architecture}" for each in sorted(packages))
    return digest_of(key, *lines)


def digest_of(*texts: str) -> str:
    """First 32 hex digits of the SHA-256 of the texts, each on a line."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:32]


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_tree(roots: Mapping[str, Path], suffixes: tuple[str, ...]) -> str:
    """Digest of the files under each root that have one of the suffixes, by name and content."""
    lines = [
        f"{label}/{path.relative_to(root)} {digest_of_file(path)}"
        for label, root in sorted(roots.items())
        for path in sorted(root.rglob("*"))
        if path.suffix in suffixes and path.is_file()
    ]
    return digest_of(*lines)
