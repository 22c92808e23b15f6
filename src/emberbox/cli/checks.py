"""What `doctor` looks at besides the drivers. Each check only looks; none changes anything."""

from __future__ import annotations

import enum
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emberbox.cli import ports
from emberbox.cli.upfile import UpFile
from emberbox.orchestrator.images.disks import copy_sparse
from emberbox.orchestrator.images.store import ImageStore
from emberbox.orchestrator.images.tools import BUILD_SPACE, PACKAGE_OF_TOOL
from emberbox.orchestrator.network import node
from emberbox.shared.protocol import (
    API_PORT,
    CLIENT_PROXY_HEALTH_PORT,
    CLIENT_PROXY_PORT,
    DATA_PROXY_PORT,
    ORCHESTRATOR_PORT,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emberbox.orchestrator.network.addresses import NodeNetwork
    from emberbox.shared.home import Home

_GIB = 1 << 30
_TOOLS = {**PACKAGE_OF_TOOL, "nft": "nftables"}
_PORTS = {
    API_PORT: "API server",
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


def look(home: Home, network: NodeNetwork) -> Iterator[Finding]:
    """All checks, in the order to mend them."""
    yield root()
    yield virtualization()
    yield tools()
    yield cgroups()
    yield from network_findings(network)
    yield disk(home)
    yield reflink(home)
    yield ports_free(home)
    yield images(home)


def root() -> Finding:
    """Namespaces and taps need root."""
    if os.geteuid() == 0:
        return Finding("root", Level.OK, "yes")
    return Finding("root", Level.MISSING, "not root: run sudo emberbox up")


def virtualization(cpuinfo: Path = Path("/proc/cpuinfo"), kvm: Path = Path("/dev/kvm")) -> Finding:
    """What the CPU shows and what the kernel offers: only both together are fast."""
    found = re.search(r"^flags\b.*\b(vmx|svm)\b", cpuinfo.read_text(), re.MULTILINE)
    flag = found.group(1) if found else ""
    if flag and kvm.exists():
        return Finding("virtualization", Level.OK, f"the CPU shows {flag} and {kvm} is there")
    if flag:
        lost = f"the CPU shows {flag} but there is no {kvm}: load kvm_intel or kvm_amd"
    elif kvm.exists():
        lost = f"{kvm} is there but the CPU shows neither vmx nor svm, so guests would not boot"
    else:
        lost = "the CPU shows neither vmx nor svm: enable nested virtualization if this is a VM"
    return Finding("virtualization", Level.WARNING, f"{lost}; VMs run in software (slower)")


def tools() -> Finding:
    """Programs of the distribution that are called."""
    missing = {tool: package for tool, package in _TOOLS.items() if shutil.which(tool) is None}
    if not missing:
        return Finding("tools", Level.OK, ", ".join(_TOOLS))
    packages = " ".join(sorted(set(missing.values())))
    text = f"no {', '.join(missing)}: run apt-get install {packages}"
    return Finding("tools", Level.MISSING, text)


def cgroups(mountinfo: Path = Path("/proc/self/mountinfo")) -> Finding:
    """Limits of VMs are set with cgroups, best with version 2 alone."""
    kinds = {
        line.partition(" - ")[2].split(" ", 1)[0]
        for line in mountinfo.read_text().splitlines()
        if "/sys/fs/cgroup" in line
    }
    if "cgroup" in kinds:
        text = "version 1: boot with systemd.unified_cgroup_hierarchy=1 for limits by version 2"
        return Finding("cgroups", Level.WARNING, text)
    if "cgroup2" in kinds:
        return Finding("cgroups", Level.OK, "version 2")
    return Finding("cgroups", Level.WARNING, "none mounted: VMs run without CPU and memory limits")


def network_findings(network: NodeNetwork) -> Iterator[Finding]:
    """The tun device, forwarding, resolvers, and firewalls that would drop our packets."""
    if os.geteuid() != 0:
        yield Finding("network", Level.WARNING, "not looked at: only root sees firewall rules")
        return
    obstacles = node.diagnose(network)
    for text in obstacles:
        yield Finding("network", Level.MISSING, text)
    if not obstacles:
        yield Finding("network", Level.OK, f"{network.address_range} is free to use")


def disk(home: Home) -> Finding:
    """Room for images and scratch disks."""
    free = shutil.disk_usage(_nearest(home.root)).free
    text = f"{free / _GIB:.1f} GiB free for {home.root}"
    if free < BUILD_SPACE:
        needed = f"{BUILD_SPACE / _GIB:.0f} GiB are needed to build images"
        return Finding("disk", Level.MISSING, f"{text}; {needed}: free some or set EMBERBOX_HOME")
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
    holders = [ports.holder("127.0.0.1", port) for port in _PORTS]
    taken = [f"{holder} but wanted for the {_PORTS[holder.port]}" for holder in holders if holder]
    if taken:
        return Finding("ports", Level.WARNING, "; ".join(taken))
    return Finding("ports", Level.OK, " ".join(map(str, _PORTS)))


def images(home: Home) -> Finding:
    """What is built already; `up` builds the rest."""
    kinds = sorted({image.manifest.kind for image in ImageStore(home.images).images()})
    if "root" in kinds:
        return Finding("images", Level.OK, ", ".join(kinds))
    have = ", ".join(kinds) or "none"
    return Finding(
        "images", Level.WARNING, f"{have}: the first up builds them, which takes minutes"
    )


def _nearest(path: Path) -> Path:
    """The path, or the closest directory above it that exists."""
    return next(place for place in (path, *path.parents) if place.exists())
