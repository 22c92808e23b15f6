"""The template builds on this host.

A build is a directory that is never changed once it has its name: the snapshot of a warm VM, its
scratch disk, a blank scratch disk for cold boots, and a manifest of what it was made with.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emberbox.orchestrator.machines.driver import BootFiles, Hardware, MachineSnapshot
from emberbox.shared.sidefile import sync_directory, write_atomically

MANIFEST_FILE = "template.json"
BLANK_FILE = "blank.ext4"
SCRATCH_FILE = "scratch.ext4"
SNAPSHOT_DIRECTORY = "snapshot"

_WORK_PREFIX = ".building-"

# Raised when the way a snapshot is taken changes, so that old ones are retaken.
RECIPE = 3


@dataclass(frozen=True, slots=True)
class TemplateSpec:
    """What a template is, before it is built on a host."""

    template_id: str
    names: tuple[str, ...]
    hardware: Hardware
    disk_mb: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a build was made with. `images` maps the kind of each image to its content hash.

    checkpoint: it is a copy of a running sandbox; envd in its memory has that one's envd_token
    memory:     without, sandboxes boot from its scratch disk
    base:       template and build id of the build that its memory lies over, which must stay
    """

    build_id: str
    key: str
    made_with: str
    envd_version: str
    vcpu: int
    ram_mb: int
    disk_mb: int
    images: dict[str, str]
    files: dict[str, str]
    checkpoint: bool = False
    memory: bool = True
    base: tuple[str, str] | None = None
    envd_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Template:
    """A build that sandboxes can be made from."""

    spec: TemplateSpec
    directory: Path
    manifest: Manifest

    @property
    def build_id(self) -> str:
        """Names this build."""
        return self.manifest.build_id

    @property
    def hardware(self) -> Hardware:
        """The size that its snapshot fixes."""
        return Hardware(self.manifest.vcpu, self.manifest.ram_mb)

    @property
    def boot(self) -> BootFiles:
        """The images it was built on, for a cold boot."""
        files = self.manifest.files
        return BootFiles(*(Path(files[kind]) for kind in ("kernel", "initrd", "root", "runtime")))

    @property
    def bootable(self) -> bool:
        """Whether all images that it was built on are still there."""
        return all(Path(file).exists() for file in self.manifest.files.values())

    @property
    def snapshot(self) -> MachineSnapshot:
        """What clones start from."""
        base = None
        if self.manifest.base is not None:
            template_id, build_id = self.manifest.base
            builds = self.directory.parent.parent
            base = builds / template_id / build_id / SNAPSHOT_DIRECTORY
        return MachineSnapshot(
            self.directory / SNAPSHOT_DIRECTORY,
            self.hardware,
            self.boot,
            self.manifest.made_with,
            base,
        )

    @property
    def scratch(self) -> Path:
        """The scratch disk as it was when the snapshot was taken."""
        return self.directory / SCRATCH_FILE

    @property
    def boot_scratch(self) -> Path:
        """What a cold boot starts from: an empty disk, or the files of a checkpoint."""
        return self.scratch if self.manifest.checkpoint else self.directory / BLANK_FILE


def build_key(spec: TemplateSpec, images: dict[str, str], made_with: str) -> str:
    """A hash of everything that a build depends on: when it differs, the build is retaken."""
    parts = {
        "recipe": RECIPE,
        "spec": dataclasses.asdict(spec),
        "images": images,
        "made_with": made_with,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class TemplateStore:
    """The builds below one directory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def sweep(self) -> None:
        """Remove what a crash left half built or half removed. Only at start-up, when nothing is
        being built."""
        for directory in self._root.glob("*/*"):
            if directory.name.startswith(_WORK_PREFIX) or not (directory / MANIFEST_FILE).exists():
                self._remove(directory)

    def find(self, spec: TemplateSpec, key: str) -> Template | None:
        """The build with this key, if it is here and whole."""
        for template in self.builds(spec):
            if template.manifest.key == key:
                return template
        return None

    def get(self, template_id: str, build_id: str) -> Template | None:
        """A build by its ids, offered or not, if it is here and whole."""
        return _load(self._root / template_id / build_id)

    def all(self) -> list[Template]:
        """Every whole build of every template."""
        found = (_load(directory) for directory in sorted(self._root.glob("*/[!.]*")))
        return [template for template in found if template is not None]

    def builds(self, spec: TemplateSpec) -> list[Template]:
        """All whole builds of a template."""
        found = []
        for directory in sorted((self._root / spec.template_id).glob("[!.]*")):
            manifest = _read_manifest(directory / MANIFEST_FILE)
            if manifest is not None:
                found.append(Template(spec, directory, manifest))
        return found

    def begin(self, spec: TemplateSpec, build_id: str) -> Path:
        """A new directory to build in."""
        work = self._root / spec.template_id / f"{_WORK_PREFIX}{build_id}"
        work.mkdir(parents=True, mode=0o700)
        return work

    def finish(self, spec: TemplateSpec, work: Path, manifest: Manifest) -> Template:
        """Give a whole build its name, durably."""
        text = json.dumps(dataclasses.asdict(manifest), indent=2).encode()
        write_atomically(work / MANIFEST_FILE, text, 0o600)
        directory = work.with_name(manifest.build_id)
        work.rename(directory)
        sync_directory(directory.parent)
        return Template(spec, directory, manifest)

    def remove(self, template: Template) -> None:
        """Remove a build that nothing uses; the manifest goes first."""
        (template.directory / MANIFEST_FILE).unlink(missing_ok=True)
        self._remove(template.directory)

    def _remove(self, build: Path) -> None:
        shutil.rmtree(build, ignore_errors=True)
        with contextlib.suppress(OSError):  # other builds of the template are there
            build.parent.rmdir()


def _load(directory: Path) -> Template | None:
    manifest = _read_manifest(directory / MANIFEST_FILE)
    if manifest is None:
        return None
    hardware = Hardware(manifest.vcpu, manifest.ram_mb)
    spec = TemplateSpec(directory.parent.name, (), hardware, manifest.disk_mb)
    return Template(spec, directory, manifest)


def _read_manifest(path: Path) -> Manifest | None:
    try:
        data: dict[str, Any] = json.loads(path.read_bytes())
        # What this version does not know is left out: a newer one may have written it.
        known = {field.name for field in dataclasses.fields(Manifest)}
        given = {name: value for name, value in data.items() if name in known}
        if given.get("base") is not None:
            given["base"] = tuple(given["base"])
        return Manifest(**given)
    except (OSError, ValueError, TypeError):
        return None
