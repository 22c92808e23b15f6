"""A stand-in for the jailer: what Firecracker's docs/jailer.md says that it does.

It does not execute the copy of Firecracker that it makes in the jail, as a Python program needs
its interpreter: it becomes the stand-in itself, as the same process, once it is locked in.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import resource
import shutil
import stat
import sys
from pathlib import Path
from typing import Any, NoReturn

from tests.firecracker.standin import program

_NEW_MOUNTS, _SLAVE, _BIND, _REC, _DETACH = 0x20000, 1 << 19, 0x1000, 0x4000, 2
_PIVOT_ROOT = 155
_LIMITS = {"fsize": resource.RLIMIT_FSIZE, "no-file": resource.RLIMIT_NOFILE}
_DEVICES = {"/dev/kvm": (10, 232), "/dev/net/tun": (10, 200)}
_OWNED = ("/", "/dev", "/dev/net", "/run")

_libc = ctypes.CDLL(None, use_errno=True)


def run(faults: dict[str, Any], arguments: list[str]) -> NoReturn:
    """Be the jailer, then Firecracker."""
    if arguments == ["--version"]:
        version = faults.get("jailer_version", faults.get("version", "1.16.1"))
        sys.stdout.write(f"Jailer v{version}\n\nA stand-in for tests.\n")
        sys.exit(0)
    if "jailer_dies" in faults:
        sys.exit("told to die")
    given = arguments.index("--") if "--" in arguments else len(arguments)
    options = _parse(arguments[:given])
    root = _make_root(options)
    for limit in options.resource_limit:
        name, _, value = limit.partition("=")
        resource.setrlimit(_LIMITS[name], (int(value), int(value)))
    _lock_in(root)
    for owned in _OWNED:
        Path(owned).mkdir(exist_ok=True)
        Path(owned).chmod(0o700)
        os.chown(owned, options.uid, options.gid)
    for path, numbers in _DEVICES.items():
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(*numbers))
        os.chown(path, options.uid, options.gid)
    os.setgroups([])
    os.setgid(options.gid)
    os.setuid(options.uid)
    program.run(faults, ["--id", options.id, *arguments[given + 1 :]])


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--id", required=True)
    parser.add_argument("--exec-file", required=True, type=Path)
    parser.add_argument("--uid", required=True, type=int)
    parser.add_argument("--gid", required=True, type=int)
    parser.add_argument("--cgroup-version", default=1, type=int, choices=(1, 2))
    parser.add_argument("--cgroup", action="append", default=[])
    parser.add_argument("--parent-cgroup")
    parser.add_argument("--chroot-base-dir", default=Path("/srv/jailer"), type=Path)
    parser.add_argument("--netns")
    parser.add_argument("--resource-limit", action="append", default=[])
    parser.add_argument("--daemonize", action="store_true")
    parser.add_argument("--new-pid-ns", action="store_true")
    options = parser.parse_args(arguments)
    assert re.fullmatch(r"[A-Za-z0-9-]{1,64}", options.id), options.id
    assert "firecracker" in options.exec_file.name
    assert options.exec_file.is_file()
    assert options.chroot_base_dir.is_absolute()
    for given in (options.cgroup, options.parent_cgroup, options.netns):
        assert not given, "the stand-in does not know this option"
    return options


def _make_root(options: argparse.Namespace) -> Path:
    root: Path = options.chroot_base_dir / options.exec_file.name / options.id / "root"
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(options.exec_file, root / options.exec_file.name)
    return root


def _lock_in(root: Path) -> None:
    """A mount namespace whose root is the jail, with what is mounted in it."""
    _check(_libc.unshare(_NEW_MOUNTS))
    _check(_libc.mount(None, b"/", None, _SLAVE | _REC, None))
    _check(_libc.mount(bytes(root), bytes(root), None, _BIND | _REC, None))
    os.chdir(root)
    Path("old_root").mkdir()
    _check(_libc.syscall(_PIVOT_ROOT, b".", b"old_root"))
    os.chdir("/")
    _check(_libc.umount2(b"old_root", _DETACH))
    Path("old_root").rmdir()


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
