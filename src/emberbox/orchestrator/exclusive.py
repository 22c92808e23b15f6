"""What only one orchestrator may have at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from typing import TYPE_CHECKING

from emberbox.shared.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from emberbox.orchestrator.settings import Settings


@contextlib.contextmanager
def only_one_of_node(settings: Settings) -> Iterator[None]:
    """Be the only orchestrator of a node on this machine. Raises StartupError.

    Namespaces, links and VMs are named by the node: another home with the same node id would
    take ours for garbage. An abstract socket is free again when its process ends.
    """
    lock = socket.socket(socket.AF_UNIX)
    try:
        lock.bind(f"\0emberbox-orchestrator-{settings.network.tag}")
    except OSError:
        raise StartupError(
            f"another orchestrator runs as node {settings.node_id} on this machine: stop it, or"
            " set EMBERBOX_NODE_ID, EMBERBOX_NETWORK_RANGE and EMBERBOX_DNS_PORT"
        ) from None
    else:
        yield
    finally:
        lock.close()


@contextlib.contextmanager
def only_one_of_home(state: Path) -> Iterator[None]:
    """Serve the state of a home alone. Raises StartupError."""
    fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StartupError(
            f"another orchestrator serves {state}: stop it or set EMBERBOX_HOME"
        ) from None
    else:
        yield
    finally:
        os.close(fd)
