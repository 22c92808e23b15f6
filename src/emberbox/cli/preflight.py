"""What must hold on this machine before `up` starts anything."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from emberbox.cli import ports
from emberbox.orchestrator.images import find_images
from emberbox.orchestrator.images.store import ImageStore
from emberbox.orchestrator.images.tools import BUILD_SPACE
from emberbox.shared.errors import StartupError

if TYPE_CHECKING:
    from emberbox.cli.options import Node, Options
    from emberbox.shared.home import Home

GIB = 1 << 30
_MIB = 1 << 20
_SNAPSHOT_SPACE = 1 * GIB
"""Bytes for the template's snapshot and the first sandboxes."""


def disk_needed(home: Home, node: Node) -> int:
    """Bytes that must be free below `home` for `up` to end with a host that takes sandboxes.

    The orchestrator refuses sandboxes when less than its reserve is free.
    """
    needed = node.disk_reserve_mb * _MIB + _SNAPSHOT_SPACE
    built = find_images(ImageStore(home.images), node.own_kernel) is not None
    return needed if built else needed + BUILD_SPACE


def check_disk(options: Options) -> None:
    """Raises StartupError when the disk below the home is too full for what is to come."""
    root = options.home.root
    needed, free = disk_needed(options.home, options.node), shutil.disk_usage(root).free
    if free < needed:
        raise StartupError(
            f"{root} has {free / GIB:.1f} GiB free and {needed / GIB:.1f} GiB are needed "
            f"(EMBERBOX_DISK_RESERVE_MB={options.node.disk_reserve_mb}): "
            "free some or pass --home on a larger disk"
        )


def check_ports(options: Options) -> None:
    """Raises StartupError that names who has a port and which flag moves ours."""
    hosts = options.hosts
    wanted = [
        ("--api-port", "EMBERBOX_API_HOST", hosts.api, options.api_port),
        (
            "--api-internal-port",
            "EMBERBOX_API_INTERNAL_HOST",
            hosts.api_internal,
            options.api_internal_port,
        ),
        ("--proxy-port", "EMBERBOX_PROXY_HOST", hosts.proxy, options.proxy_port),
        ("--proxy-port", "EMBERBOX_PROXY_HEALTH_HOST", hosts.health, options.health_port),
        (
            "--orchestrator-port",
            "EMBERBOX_ORCHESTRATOR_HOST",
            hosts.orchestrator,
            options.orchestrator_port,
        ),
        ("--data-port", "EMBERBOX_DATA_HOST", hosts.data, options.data_port),
    ]
    if len({port for *_, port in wanted}) != len(wanted):
        raise StartupError(
            f"the ports must differ from one another and from {options.health_port}, "
            "the client proxy's health port (its port + 1)"
        )
    for flag, variable, host, port in wanted:
        holder = _holder(variable, host, port)
        if holder is None or (flag == "--data-port" and _is_our_data_proxy(holder, options.home)):
            continue
        raise StartupError(f"{holder}: stop it or pass {flag}")


def _holder(variable: str, host: str, port: int) -> ports.Holder | None:
    try:
        return ports.holder(host, port)
    except OSError as error:
        raise StartupError(
            f"cannot listen on {host}:{port} ({error.strerror}): "
            f"set {variable} to an IPv4 address of this machine"
        ) from error


def _is_our_data_proxy(holder: ports.Holder, home: Home) -> bool:
    """The data proxy outlives the orchestrator on purpose; the next one takes it over."""
    if holder.pid is None:
        return False
    try:
        command = Path(f"/proc/{holder.pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"emberbox.orchestrator.data_proxy" in command and bytes(home.root) in command
