"""What `doctor` looks at besides the drivers. Each check only looks; none changes anything."""

from __future__ import annotations

import enum
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emberbox.cli import ports
from emberbox.cli.options import LOOPBACK, Node
from emberbox.cli.preflight import GIB, disk_needed
from emberbox.cli.processes import how_to_call
from emberbox.cli.upfile import UpFile
from emberbox.orchestrator.images import find_images
from emberbox.orchestrator.images.disks import copy_sparse
from emberbox.orchestrator.images.store import ImageStore
from emberbox.orchestrator.images.tools import PACKAGE_OF_TOOL
from emberbox.orchestrator.machines.kvm import missing_for_kvm
from emberbox.orchestrator.machines.probe import select_driver
from emberbox.orchestrator.network.node import diagnose
from emberbox.orchestrator.sandboxes.admission import memory_mb
from emberbox.shared.errors import StartupError
from emberbox.shared.protocol import (
    API_INTERNAL_PORT,
    API_PORT,
    CLIENT_PROXY_HEALTH_PORT,
    CLIENT_PROXY_PORT,
    DATA_PROXY_PORT,
    ORCHESTRATOR_PORT,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emberbox.orchestrator.network.addresses import NodeNetwork
    from emberbox.orchestrator.settings import Settings
    from emberbox.shared.home import Home

_TOOLS = {**PACKAGE_OF_TOOL, "nft": "nftables"}
_PORTS = {
    API_PORT: "API server",
    API_INTERNAL_PORT: "API server's gRPC",
    CLIENT_PROXY_PORT: "client proxy",
    CLIENT_PROXY_HEALTH_PORT: "client proxy's health",
    ORCHESTRATOR_PORT: "orchestrator",
    DATA_PROXY_PORT: "data proxy",
}


class Level(enum.Enum):
    """How much a finding matters."""

    OK = "ok"
    WARNING = "warning"
    """Works, with less: the text says what is lost."""
    MISSING = "missing"
    """Sandboxes cannot run until it is mended."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `doctor`."""

    subject: str
    level: Level
    text: str


def look(home: Home, network: NodeNetwork, settings: Settings) -> Iterator[Finding]:
    """All checks, in the order to mend them."""
    node = Node(settings.disk_reserve_mb, settings.own_kernel)
    yield root()
    yield virtualization(missing_for_kvm())
    yield driver(settings.driver)
    yield tools()
    yield cgroups()
    yield from network_findings(network)
    yield memory(settings.memory_reserve_mb, settings.template_ram_mb, memory_mb()[1])
    yield disk(home, node)
    yield reflink(home)
    yield ports_free(home)
    yield images(home, node)


def root() -> Finding:
    """Namespaces and taps need root."""
    if os.geteuid() == 0:
        return Finding("root", Level.OK, "yes")
    return Finding("root", Level.MISSING, f"not root: run sudo {how_to_call()} up")


def virtualization(missing: str) -> Finding:
    """Whether VMs run at full speed, given what hardware virtualization lacks here."""
    if not missing:
        return Finding("virtualization", Level.OK, "the CPU and /dev/kvm have it")
    return Finding("virtualization", Level.WARNING, f"{missing}; VMs run in software (slower)")


def driver(name: str) -> Finding:
    """Whether the driver that is set, or one of all with `auto`, runs sandboxes here."""
    try:
        report = select_driver(name).report
    except StartupError as error:
        return Finding("driver", Level.MISSING, str(error))
    return Finding("driver", Level.OK, f"{report.name} with {report.accelerator}")


def tools() -> Finding:
    """Programs of the distribution that are called."""
    missing = {tool: package for tool, package in _TOOLS.items() if shutil.which(tool) is None}
    if not missing:
        return Finding("tools", Level.OK, ", ".join(_TOOLS))
    packages = " ".join(sorted(set(missing.values())))
    text = f"no {', '.join(missing)}: run apt-get install {packages}"
    return Finding("tools", Level.MISSING, text)


def cgroups(mountinfo: Path = Path("/proc/self/mountinfo")) -> Finding:
    """What is there for limits; VMs are in no cgroups of their own yet."""
    kinds = {
        line.partition(" - ")[2].split(" ", 1)[0]
        for line in mountinfo.read_text().splitlines()
        if "/sys/fs/cgroup" in line
    }
    found = "none mounted"
    if "cgroup" in kinds:
        found = "version 1 found"
    elif "cgroup2" in kinds:
        found = "version 2 found"
    return Finding("cgroups", Level.OK, f"{found}; limits for each VM are not used yet")


def network_findings(network: NodeNetwork) -> Iterator[Finding]:
    """The tun device, forwarding, resolvers, and firewalls that would drop our packets."""
    if os.geteuid() != 0:
        yield Finding("network", Level.WARNING, "not looked at: only root sees firewall rules")
        return
    obstacles = diagnose(network)
    for text in obstacles:
        yield Finding("network", Level.MISSING, text)
    if not obstacles:
        yield Finding("network", Level.OK, f"{network.address_range} is free to use")


def memory(reserve_mb: int, template_mb: int, available_mb: int) -> Finding:
    """Room to start one VM and keep the orchestrator's reserve."""
    needed = reserve_mb + template_mb
    text = f"{available_mb} MiB available"
    if available_mb < needed:
        why = f"{needed} MiB are needed (EMBERBOX_MEMORY_RESERVE_MB={reserve_mb} and one VM)"
        return Finding("memory", Level.MISSING, f"{text}; {why}: free some or lower it")
    return Finding("memory", Level.OK, text)


def disk(home: Home, node: Node) -> Finding:
    """Room for what is not there yet of images, snapshot and scratch disks, as `up` asks for."""
    needed, free = disk_needed(home, node), shutil.disk_usage(_nearest(home.root)).free
    text = f"{free / GIB:.1f} GiB free for {home.root}"
    if free < needed:
        lacking = f"{needed / GIB:.1f} GiB are needed"
        return Finding("disk", Level.MISSING, f"{text}; {lacking}: free some or set EMBERBOX_HOME")
    return Finding("disk", Level.OK, text)


def reflink(home: Home) -> Finding:
    """Whether a copy of a disk shares its blocks: tried, as file systems differ by their mkfs."""
    try:
        with tempfile.TemporaryDirectory(dir=_nearest(home.root)) as directory:
            source = Path(directory, "source")
            source.write_bytes(bytes(65536))
            shared = copy_sparse(source, Path(directory, "copy"))
    except PermissionError:
        return Finding("reflink", Level.WARNING, f"cannot write to {home.root} to try it")
    if shared:
        return Finding("reflink", Level.OK, "copies of disks share their blocks")
    return Finding("reflink", Level.WARNING, "none here (XFS and btrfs have it): disks are copied")


def ports_free(home: Home) -> Finding:
    """The default ports, unless `up` runs and so has them."""
    pid = UpFile(home.root / "up.json").running()
    if pid is not None:
        return Finding("ports", Level.OK, f"in use by emberbox up (pid {pid})")
    holders = [ports.holder(LOOPBACK, port) for port in _PORTS]
    taken = [f"{holder} but wanted for the {_PORTS[holder.port]}" for holder in holders if holder]
    if taken:
        return Finding("ports", Level.WARNING, "; ".join(taken))
    return Finding("ports", Level.OK, " ".join(map(str, _PORTS)))


def images(home: Home, node: Node) -> Finding:
    """Whether all that this version boots is built."""
    if find_images(ImageStore(home.images), node.own_kernel) is not None:
        return Finding("images", Level.OK, "all built")
    text = "not all built: the first up builds them, which takes minutes"
    return Finding("images", Level.WARNING, text)


def _nearest(path: Path) -> Path:
    """The path, or the closest directory above it that exists."""
    return next(place for place in (path, *path.parents) if place.exists())
