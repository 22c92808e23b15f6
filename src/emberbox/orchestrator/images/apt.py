"""Debian packages through the host's apt, without touching the host's own state.

The host's sources, proxies and keys are used; lists, cache and the (empty) package status are
private, so that nothing is installed and the answer does not depend on what the host has.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emberbox.orchestrator.images.errors import ImageError
from emberbox.orchestrator.images.manifest import Package
from emberbox.orchestrator.images.sources import Source, read_sources
from emberbox.orchestrator.images.tools import run

if TYPE_CHECKING:
    from collections.abc import Iterable

REMEDY = "check the network and the sources of apt (apt-get update must work), then try again"

_INSTALL = re.compile(r"^Inst (?P<name>\S+) \((?P<version>\S+) .*\[(?P<architecture>\w+)\]\)")


@dataclass(frozen=True, slots=True)
class Release:
    """The distribution release that images are made from: the host's own."""

    codename: str
    """`bookworm`."""


def host_release(os_release: Path = Path("/etc/os-release")) -> Release:
    """Read the host's release. Raises ImageError when it is no Debian."""
    fields = dict(line.split("=", 1) for line in os_release.read_text().splitlines() if "=" in line)
    identity = fields.get("ID", "").strip('"')
    codename = fields.get("VERSION_CODENAME", "").strip('"')
    if identity != "debian" or not codename:
        raise ImageError(
            f"images are built on Debian, and this host is {identity or 'unknown'}",
            "build on a Debian machine and copy the images directory here",
        )
    return Release(codename)


class Apt:
    """The packages of one release, with private lists under `directory`."""

    def __init__(self, directory: Path, release: Release) -> None:
        self.directory = directory
        self.release = release
        self._sources: tuple[Source, ...] | None = None
        self.updated = False
        """Whether `update` has fetched the lists."""

    @property
    def sources_file(self) -> Path:
        """The host's sources of the release, written by `update`."""
        return self.directory / "sources.list.d" / "host.sources"

    def sources(self) -> tuple[Source, ...]:
        """The host's sources of the release. Raises ImageError when it has none."""
        if self._sources is None:
            self._sources = read_sources(self.release.codename)
        return self._sources

    def update(self) -> None:
        """Fetch the package lists, once for each Apt. Raises ToolFailedError."""
        if self.updated:
            return
        self._write_configuration()
        # Without the option a source that does not answer is a warning, and an old list serves.
        run(
            ["apt-get", "update", "-o", "APT::Update::Error-Mode=any"],
            doing="fetching the package lists",
            remedy=REMEDY,
            environment=self._environment(),
        )
        self.updated = True

    def resolve(self, names: Iterable[str]) -> tuple[Package, ...]:
        """All packages that installing `names` into an empty system would bring."""
        output = run(
            ["apt-get", "--simulate", "install", *names],
            doing="resolving packages",
            remedy=REMEDY,
            environment=self._environment(),
        )
        matches = filter(None, map(_INSTALL.match, output.splitlines()))
        return tuple(sorted(Package(**match.groupdict()) for match in matches))

    def depends(self, name: str) -> tuple[str, ...]:
        """Names of the packages that the candidate of `name` depends on directly."""
        output = run(
            ["apt-cache", "depends", "--important", name],
            doing=f"resolving {name}",
            remedy=REMEDY,
            environment=self._environment(),
        )
        return tuple(re.findall(r"^\s+(?:Pre)?Depends: (\S+)$", output, re.MULTILINE))

    def unpack(self, packages: Iterable[Package], into: Path) -> None:
        """Download the packages (checked against the signed lists) and unpack them."""
        downloads = into.with_name(f"{into.name}.debs")
        downloads.mkdir()
        run(
            ["apt-get", "download", *(_pinned(package) for package in packages)],
            doing="downloading packages",
            remedy=REMEDY,
            environment=self._environment(),
            cwd=downloads,
        )
        into.mkdir(exist_ok=True)
        for deb in sorted(downloads.iterdir()):
            run(
                ["dpkg-deb", "--extract", str(deb), str(into)],
                doing=f"unpacking {deb.name}",
                remedy="remove the file system's fault and try again",
            )
            deb.unlink()
        downloads.rmdir()

    def network_options(self) -> list[str]:
        """The host's proxy and timeout settings, for an apt that does not read the host's."""
        dump = run(
            ["apt-config", "dump", "Acquire"],
            doing="reading the configuration of apt",
            remedy=REMEDY,
        )
        wanted = re.compile(r"^Acquire::(https?)(::|\s).*", re.IGNORECASE)
        return [line for line in dump.splitlines() if wanted.match(line) and '""' not in line]

    def _environment(self) -> dict[str, str]:
        return {"APT_CONFIG": str(self.directory / "apt.conf")}

    def _write_configuration(self) -> None:
        for name in ("lists/partial", "cache/archives/partial", "sources.list.d"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        here = os.fspath(self.directory.resolve())
        (self.directory / "status").write_text("")
        self.sources_file.write_text("\n".join(source.to_deb822() for source in self.sources()))
        (self.directory / "apt.conf").write_text(
            f'Dir::State "{here}";\n'
            f'Dir::State::lists "{here}/lists";\n'
            f'Dir::State::status "{here}/status";\n'
            f'Dir::Cache "{here}/cache";\n'
            'Dir::Etc::sourcelist "/dev/null";\n'
            f'Dir::Etc::sourceparts "{here}/sources.list.d";\n'
            # The store need not be open to apt's own user.
            'APT::Sandbox::User "root";\n'
            'APT::Install-Recommends "false";\n'
            'Acquire::Languages "none";\n'
            'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";\n'
            'Acquire::Retries "3";\n'
        )


def _pinned(package: Package) -> str:
    return f"{package.name}={package.version}"
