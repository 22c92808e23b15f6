"""What `doctor` looks at where Firecracker is to run: the steps of docs/firecracker.md.

What the driver cannot do without is told by the driver itself. These are what a production host
should have besides; each says what is lost without it.
"""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

from emberbox.cli.finding import Finding, Level
from emberbox.orchestrator.cgroups import find as find_groups
from emberbox.orchestrator.images import find_images
from emberbox.orchestrator.images.elf_kernel import elf_of
from emberbox.orchestrator.images.errors import ImageError
from emberbox.orchestrator.images.store import ImageStore
from emberbox.orchestrator.machines.firecracker import installation
from emberbox.orchestrator.machines.firecracker.dumps import exact_holes
from emberbox.orchestrator.machines.firecracker.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emberbox.orchestrator.images import OwnKernel
    from emberbox.orchestrator.machines.firecracker.installation import Options
    from emberbox.orchestrator.settings import Settings
    from emberbox.shared.home import Home

RESTORES_WELL = Version(1, 16, 0)
"""Before it, guests with kernels before 6.10 do not notice that they were cloned."""

_HOST_KERNELS = ("5.10", "6.1", "6.18")
_SYS, _PROC = Path("/sys"), Path("/proc")


def look(settings: Settings) -> Iterator[Finding]:
    """All of them, where Firecracker is installed or asked for."""
    options = settings.firecracker_options
    if settings.driver != installation.NAME and installation.firecracker_of(options) is None:
        return
    yield program(options)
    yield jailer(options)
    yield cgroups(find_groups().version)
    yield host_kernel(platform.release())
    yield swap()
    yield same_page_merging()
    yield hyperthreads()
    yield starting(platform.release())
    yield holes(settings.paths)
    yield guest_kernel(settings.paths, settings.own_kernel)


def program(options: Options) -> Finding:
    """Whether it is there, and new enough for clones to know that they are."""
    found = installation.look(options)
    if isinstance(found, str):
        return Finding("firecracker", Level.WARNING, found)
    text = f"{found.programs.firecracker}, version {found.version}"
    if found.version < RESTORES_WELL:
        why = "its clones of guests before Linux 6.10 share random numbers of their kernel until"
        remedy = f"envd has given them others: {RESTORES_WELL} or later mends it"
        return Finding("firecracker", Level.WARNING, f"{text}; {why} {remedy}")
    return Finding("firecracker", Level.OK, text)


def jailer(options: Options) -> Finding:
    """Whether VMMs are locked into a directory and a cgroup of their own."""
    if not options.jail:
        text = "EMBERBOX_FIRECRACKER_JAIL=false: a VMM sees the host's files"
        return Finding("jailer", Level.WARNING, text)
    found = installation.jailer_of(options)
    if found is None:
        return Finding("jailer", Level.WARNING, "none: install the one of Firecracker's release")
    return Finding("jailer", Level.OK, str(found))


def cgroups(version: int) -> Finding:
    """Version 2; whether VMs are bounded at all is looked at for every driver."""
    if version == 2:
        return Finding("cgroup v2", Level.OK, "yes")
    text = "no: VMs are slow to restore; boot with systemd.unified_cgroup_hierarchy=1"
    return Finding("cgroup v2", Level.WARNING, text)


def host_kernel(release: str) -> Finding:
    """One of those that Firecracker is tested on."""
    if any(re.match(rf"{re.escape(known)}\b", release) for known in _HOST_KERNELS):
        return Finding("host kernel", Level.OK, release)
    text = f"{release}; Firecracker is tested on {', '.join(_HOST_KERNELS)}"
    return Finding("host kernel", Level.WARNING, text)


def swap(swaps: Path = _PROC / "swaps") -> Finding:
    """Guest memory must not lie on a disk."""
    used = [line.split()[0] for line in swaps.read_text().splitlines()[1:]]
    if not used:
        return Finding("swap", Level.OK, "off")
    text = f"{', '.join(used)}: guests' memory gets onto disks; run swapoff -a and edit /etc/fstab"
    return Finding("swap", Level.WARNING, text)


def same_page_merging(run: Path = _SYS / "kernel/mm/ksm/run") -> Finding:
    """Pages that guests share by content tell one what the other has."""
    if not run.exists() or run.read_text().strip() != "1":
        return Finding("KSM", Level.OK, "off")
    text = f"on: guests can find out what others have in memory; run echo 2 > {run}"
    return Finding("KSM", Level.WARNING, text)


def hyperthreads(control: Path = _SYS / "devices/system/cpu/smt/control") -> Finding:
    """Two guests on one core can spy on one another."""
    if not control.exists() or control.read_text().strip() != "on":
        return Finding("SMT", Level.OK, "off")
    text = f"on: guests that share a core can spy on one another; run echo off > {control}"
    return Finding("SMT", Level.WARNING, text)


def starting(
    release: str,
    mounts: Path = _PROC / "self/mounts",
    huge_pages: Path = _SYS / "module/kvm/parameters/nx_huge_pages",
) -> Finding:
    """Linux 6.1 and later are slow to make a VM, unless told otherwise."""
    version = tuple(map(int, re.findall(r"\d+", release)[:2]))
    mitigated = huge_pages.exists() and huge_pages.read_text().strip() in ("N", "never", "0")
    quick = [line for line in mounts.read_text().splitlines() if " cgroup2 " in line]
    if version < (6, 1) or mitigated or any("favordynmods" in line for line in quick):
        return Finding("starting VMs", Level.OK, "nothing slows it down")
    text = "slow on this kernel: run mount -o remount,favordynmods /sys/fs/cgroup"
    return Finding("starting VMs", Level.WARNING, text)


def holes(home: Home) -> Finding:
    """Whether a pause can write what has changed alone."""
    place = next(path for path in (home.root, *home.root.parents) if path.exists())
    try:
        exact = exact_holes(place)
    except PermissionError:
        return Finding("sparse files", Level.WARNING, f"cannot write to {place} to try them")
    if exact:
        return Finding("sparse files", Level.OK, "by the page")
    text = f"{place} tells holes coarser than a page: each pause writes all memory; use XFS or ext4"
    return Finding("sparse files", Level.WARNING, text)


def guest_kernel(home: Home, own: OwnKernel | None) -> Finding:
    """Whether there is an ELF file in it."""
    images = find_images(ImageStore(home.images), own)
    if images is None:
        return Finding("guest kernel", Level.WARNING, "not looked at: the images are not built")
    try:
        size = len(elf_of(images.kernel)) >> 20
    except ImageError as error:
        return Finding("guest kernel", Level.WARNING, str(error))
    text = f"{images.kernel_version}, an ELF file of {size} MiB when extracted"
    return Finding("guest kernel", Level.OK, text)
