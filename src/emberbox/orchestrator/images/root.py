"""The root image of the `base` template, from Debian packages."""

from __future__ import annotations

import re
import shutil
import time
from typing import TYPE_CHECKING

from emberbox.orchestrator.images import ext4
from emberbox.orchestrator.images.apt import REMEDY
from emberbox.orchestrator.images.manifest import Manifest, digest_of, hash_of, key_of
from emberbox.orchestrator.images.tools import run

if TYPE_CHECKING:
    from pathlib import Path

    from emberbox.orchestrator.images.apt import Apt
    from emberbox.orchestrator.images.progress import Progress
    from emberbox.orchestrator.images.store import Image, ImageStore

RECIPE = "2"
ROOT = "root.ext4"

PACKAGES = (
    "bash", "ca-certificates", "coreutils", "curl", "git", "iproute2", "less", "ncurses-base",
    "nodejs", "npm", "procps", "python-is-python3", "python3", "python3-pip", "python3-venv",
    "sudo",
)  # fmt: skip

DPKG_OPTIONS = (
    "force-unsafe-io",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)
"""Documentation stays out, licences stay in. A sandbox's disk does not outlive a crash of its VM,
so dpkg need not sync every file. All holds for what users install later, too.
"""

USER = "user"
USER_ID = 1000

_STEPS = {
    "running apt-get update": 0.2,
    "downloading packages": 0.22,
    "extracting archives": 0.24,
    "installing essential packages": 0.38,
    "installing remaining packages": 0.45,
    "cleaning package lists": 0.88,
}
"""What mmdebstrap says and how much of the whole build is done then, as measured."""

_LEFTOVERS = (
    "var/cache/apt/*", "var/lib/apt/lists/*", "var/log/*", "var/cache/ldconfig/aux-cache",
    "etc/*-", "etc/hostname", "etc/resolv.conf", "etc/apt/apt.conf.d/99mmdebstrap",
    "root/.*history", "tmp/*", "run/*", "var/lib/dpkg/*-old",
)  # fmt: skip
"""What an installation leaves that belongs to the machine that made it."""


def inputs_of() -> dict[str, str]:
    """What is known before anything is fetched."""
    return {
        "recipe": RECIPE,
        "packages": " ".join(PACKAGES),
        "dpkg": digest_of(*DPKG_OPTIONS),
    }


def build(store: ImageStore, apt: Apt, progress: Progress) -> Image:
    """Install the packages into a directory and make an image of it."""
    started = time.monotonic()
    inputs = inputs_of()
    key = key_of("root", inputs)
    packages = apt.resolve(["?essential", "apt", *PACKAGES])
    digest = hash_of(key, packages)
    present = store.get("root", digest)
    if present is not None:
        return present
    with store.draft() as draft, store.draft() as work:
        tree = work / "tree"
        # mmdebstrap reads the sources as its own user would; the draft is root's alone.
        work.chmod(0o755)
        _install(apt, tree, progress)
        progress.step("root image: users and settings", 0.89)
        _set_up(apt, tree)
        progress.step("root image: writing the file system", 0.9)
        ext4.make_image(tree, draft / ROOT, label="root", identity=digest)
        return store.add(draft, Manifest("root", key, digest, inputs, packages), started)


def _install(apt: Apt, tree: Path, progress: Progress) -> None:
    def on_line(line: str) -> None:
        for message, fraction in _STEPS.items():
            if message in line:
                progress.step(f"root image: {message}", fraction)

    options = [f"--dpkgopt={option}" for option in DPKG_OPTIONS]
    options += [f"--aptopt={option}" for option in apt.network_options()]
    options += [
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false"',
        '--aptopt=Acquire::Retries "3"',
    ]
    run(
        ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory",
         f"--include={','.join(PACKAGES)}", *options,
         apt.release.codename, str(tree), str(apt.sources_file)],
        doing="installing the root file system",
        remedy=REMEDY,
        on_line=on_line,
    )  # fmt: skip


def _set_up(apt: Apt, tree: Path) -> None:
    for pattern in _LEFTOVERS:
        for path in tree.glob(pattern):
            _remove(path)
    (tree / "var/cache/apt/archives/partial").mkdir(parents=True)
    (tree / "var/lib/apt/lists/partial").mkdir(parents=True)
    (tree / "etc/machine-id").write_text("")
    (tree / "etc/apt/apt.conf.d/90emberbox").write_text('Acquire::Languages "none";\n')
    _spare_login_shells_a_process(tree / "etc/profile")
    _take_keys(apt, tree)
    _add_user(tree)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _spare_login_shells_a_process(profile: Path) -> None:
    """Every command begins in one, and Debian's asks a program who it runs as, where bash knows."""
    profile.write_text(profile.read_text().replace("$(id -u)", "${EUID:-$(id -u)}"))


def _take_keys(apt: Apt, tree: Path) -> None:
    """Copy the keyrings that the sources name, so that apt works in the guest as well."""
    for source in apt.sources():
        if source.signed_by is None or not source.signed_by.startswith("/"):
            continue
        target = tree / source.signed_by.lstrip("/")
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.signed_by, target)


def _add_user(tree: Path) -> None:
    run(
        ["chroot", str(tree), "useradd", "--create-home", "--user-group", "--uid", str(USER_ID),
         "--shell", "/bin/bash", "--password", "*", USER],
        doing=f"adding the user {USER}",
        remedy="report this: the packages of the release have changed",
    )  # fmt: skip
    sudoers = tree / "etc/sudoers.d" / USER
    sudoers.write_text(f"{USER} ALL=(ALL:ALL) NOPASSWD: ALL\n")
    sudoers.chmod(0o440)
    for name in ("passwd-", "group-", "shadow-", "gshadow-", "subuid-", "subgid-"):
        (tree / "etc" / name).unlink(missing_ok=True)
    # useradd dates the password by the day; an unknown date says the same of every build.
    shadow = tree / "etc/shadow"
    shadow.write_text(re.sub(rf"^({USER}:\*:)\d+", r"\1", shadow.read_text(), flags=re.MULTILINE))
