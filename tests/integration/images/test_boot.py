"""The images boot, alone: file system, network, users, tools, and the life of envd in them."""

from __future__ import annotations

import dataclasses
import re
import socket
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.images import ext4
from emberbox.orchestrator.images.disks import make_scratch
from emberbox.orchestrator.machines.firecracker.calls import KERNEL_COMMAND_LINE
from emberbox.orchestrator.machines.firecracker.kernels import extracted
from tests.integration.images.guest import Guest, disks_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from emberbox.orchestrator.images import ImageSet

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def guest(images: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """One guest for all questions that change nothing."""
    directory = tmp_path_factory.mktemp("guest")
    make_scratch(directory / "scratch", 2048)
    disks = disks_of(images, directory / "scratch")
    options = "emberbox.hostname=ember-1"
    # Disks are known by serial, so any order must do.
    with Guest(images, disks[::-1], unused_port(), directory / "console", options) as made:
        made.wait_for_envd()
        yield made


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def answer(guest: Guest, script: str, user: str = "root") -> str:
    """Output of a script that must succeed."""
    finished = guest.run(script, user)
    assert finished.succeeded, f"{script}: {finished}"
    return finished.output.strip()


def test_the_root_is_an_overlay_of_the_scratch_disk_on_the_image(guest: Guest) -> None:
    mounts = {
        line.split()[1]: line.split()[2] for line in answer(guest, "cat /proc/mounts").splitlines()
    }

    assert mounts == {
        "/": "overlay",
        "/dev": "devtmpfs",
        "/dev/pts": "devpts",
        "/dev/shm": "tmpfs",
        "/proc": "proc",
        "/run": "tmpfs",
        "/sys": "sysfs",
        "/sys/fs/cgroup": "cgroup2",
        "/.emberbox": "ext4",
    }
    size_mib = int(answer(guest, "df --output=size -BM / | tail -1").rstrip("M"))
    assert 1900 < size_mib <= 2048


def test_the_runtime_image_is_read_only(guest: Guest) -> None:
    assert "Read-only file system" in guest.run("touch /.emberbox/x").output


def test_the_kernel_is_the_image_s(guest: Guest, images: ImageSet) -> None:
    assert answer(guest, "uname -r") == images.kernel_version


def test_the_network_is_the_one_of_every_sandbox(guest: Guest) -> None:
    assert "inet 169.254.0.21/30 " in answer(guest, "ip -4 addr show eth0")
    assert answer(guest, "ip route show default").startswith("default via 169.254.0.22 dev eth0")
    assert answer(guest, "cat /etc/resolv.conf") == "nameserver 169.254.0.22"
    assert "inet 127.0.0.1/8" in answer(guest, "ip -4 addr show lo")


def test_the_host_name_comes_from_the_command_line(guest: Guest) -> None:
    assert answer(guest, "hostname; cat /etc/hostname") == "ember-1\nember-1"
    assert answer(guest, "getent ahostsv4 ember-1").split()[0] == "127.0.1.1"


def test_the_user_owns_its_home_and_may_become_root(guest: Guest) -> None:
    assert answer(guest, "id -un; id -gn; id -u; echo ~; echo $SHELL; touch ~/x", "user").split()[
        :4
    ] == ["user", "user", "1000", "/home/user"]
    assert answer(guest, "sudo -n id -u", "user") == "0"


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_login_shells_set_the_path_by_who_they_run_as(guest: Guest, shell: str) -> None:
    ask = f"{shell} -l -c 'echo $PATH'"
    assert answer(guest, ask, "root").startswith("/usr/local/sbin:")
    assert answer(guest, ask, "user").startswith("/usr/local/bin:")


def test_login_shells_start_no_program(guest: Guest) -> None:
    """Of which they would find none."""
    assert answer(guest, "PATH=/none /bin/bash -l -c : 2>&1", "user") == ""


@pytest.mark.parametrize(
    "script",
    [
        "python3 -c 'import ssl, sqlite3, venv'",
        "python --version",
        pytest.param("pip --version", marks=pytest.mark.exhaustive),
        "python3 -m venv --without-pip /tmp/venv && /tmp/venv/bin/python -c ''",
        pytest.param("node -e ''", marks=pytest.mark.exhaustive),
        pytest.param("npm --version", marks=pytest.mark.exhaustive),
        "git daemon --help >/dev/null; git init -q /tmp/repository",
        "curl --version",
        "ps aux && ip link && less --version",
        "TERM=xterm-256color tput colors | grep -x 256",
        "test -s /etc/ssl/certs/ca-certificates.crt",
        "locale charmap",
    ],
)
def test_the_tools_of_the_base_template(guest: Guest, script: str) -> None:
    finished = guest.run(script)
    assert finished.succeeded, finished.output


def test_user_attributes_are_kept_on_old_and_new_files(guest: Guest) -> None:
    script = """python3 -c '
import os
open("/tmp/new", "w").close()
for path in ("/tmp/new", "/etc/profile"):
    os.setxattr(path, "user.note", b"kept")
    print(os.getxattr(path, "user.note").decode())
'"""
    assert answer(guest, script) == "kept\nkept"


def test_nothing_of_the_machine_that_built_it_is_in_the_image(guest: Guest) -> None:
    assert answer(guest, "wc -c < /etc/machine-id") == "0"
    assert answer(guest, "find /var/lib/apt/lists /var/cache/apt /var/log -type f") == ""
    assert answer(guest, "ls -A --ignore=.npm /root") in {".bashrc\n.profile", ".bashrc .profile"}
    assert answer(guest, "test -s /usr/share/doc/bash/copyright; ls -d /lost+found || true") == (
        "ls: cannot access '/lost+found': No such file or directory"
    )


def test_user_processes_see_nothing_of_envd_s_interpreter(guest: Guest) -> None:
    assert ".emberbox" not in answer(guest, "env; python3 -c 'import sys; print(sys.path)'")


def test_orphans_are_reaped(guest: Guest) -> None:
    # The child of a subshell that is gone belongs to PID 1; it ends before the last sleep does.
    orphans = "for _ in 1 2 3 4 5; do (setsid sleep 0.2 >/dev/null &); done"
    script = f"{orphans}; sleep 2; ps -eo stat,args | grep -c '^Z' || true"
    assert answer(guest, script) == "0"


@pytest.mark.exhaustive
def test_what_the_user_made_is_there_after_another_boot(images: ImageSet, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    make_scratch(scratch, 512)
    disks = disks_of(images, scratch)
    with Guest(images, disks, unused_port(), tmp_path / "console") as first:
        first.wait_for_envd()
        answer(first, "echo mine > /home/user/file; echo 192.0.2.1 other >> /etc/hosts")
        first.run("kill -TERM 1")
        assert first.wait_for_end() == 0

    with Guest(images, disks, unused_port(), tmp_path / "console") as second:
        second.wait_for_envd()
        assert answer(second, "cat /home/user/file") == "mine"
        assert "192.0.2.1 other" in answer(second, "cat /etc/hosts")


@pytest.mark.exhaustive
def test_envd_is_started_again_over_a_root_without_a_c_library(
    images: ImageSet, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    root = tmp_path / "root"
    ext4.make_image(empty, root, label="empty", identity="0" * 32)
    scratch = tmp_path / "scratch"
    make_scratch(scratch, 64)
    bare = dataclasses.replace(images, root=root)

    with Guest(bare, disks_of(bare, scratch), unused_port(), tmp_path / "console") as guest:
        guest.wait_for_envd()


@pytest.mark.exhaustive
def test_envd_that_dies_is_started_again(guest: Guest) -> None:
    find = "grep -lz envd.py /proc/[0-9]*/cmdline | head -1 | cut -d/ -f3"
    before = answer(guest, find)

    answer(guest, f"(sleep 0.5; kill -KILL {before}) >/dev/null 2>&1 &")
    while "envd ended with status 137, starting it again" not in guest.console:
        guest.wait_for_envd()
    guest.wait_for_envd()

    assert answer(guest, find) != before


def test_a_missing_disk_is_told_on_the_console_and_ends_the_machine(
    images: ImageSet, tmp_path: Path
) -> None:
    disks = disks_of(images, tmp_path / "none")[:2]
    with Guest(images, disks, unused_port(), tmp_path / "console") as guest:
        assert guest.wait_for_end() == 0

    assert re.search(r"emberbox-init: disk /dev/vdc is missing", guest.console)


@pytest.mark.exhaustive
def test_the_kernel_for_firecracker_boots_with_its_command_line_and_disks(
    images: ImageSet, tmp_path: Path
) -> None:
    """As far as this shows without it: the ELF file, what the kernel is told, and disks that have
    other serial numbers than ours, in the order in which Firecracker is given them."""
    elf = extracted(images.kernel, tmp_path)
    assert elf != images.kernel
    make_scratch(tmp_path / "scratch", 512)
    disks = [
        dataclasses.replace(disk, serial=f"other{number}")
        for number, disk in enumerate(disks_of(images, tmp_path / "scratch"))
    ]
    given = dataclasses.replace(images, kernel=elf)
    port, console = unused_port(), tmp_path / "console"
    with Guest(given, disks, port, console, command_line=KERNEL_COMMAND_LINE) as guest:
        guest.wait_for_envd()
        assert answer(guest, "cat /proc/cmdline").startswith(KERNEL_COMMAND_LINE)
        assert "virtio_mmio" in answer(guest, "cat /proc/modules")
