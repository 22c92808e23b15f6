"""Who listens on a port, and what `up` says when it is not us."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from emberbox.cli import ports
from emberbox.cli.up import Options, announcement, check_ports
from emberbox.shared.errors import StartupError
from emberbox.shared.home import Home

if TYPE_CHECKING:
    from pathlib import Path


def test_a_free_port_has_no_holder(free_port: int) -> None:
    assert ports.holder("127.0.0.1", free_port) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_listener_is_named_by_pid_and_command(host: str) -> None:
    with socket.create_server((host, 0)) as listener:
        port = listener.getsockname()[1]
        holder = ports.holder("127.0.0.1", port)
    assert holder == ports.Holder(port, os.getpid())
    assert str(holder).startswith(f"port {port} is taken by pid {os.getpid()} (")


def test_the_ports_of_one_up_must_differ(tmp_path: Path) -> None:
    options = Options(Home(tmp_path), api_port=4001, proxy_port=4000)
    with pytest.raises(StartupError, match=r"must differ .* from 4001"):
        check_ports(options)


def test_the_announcement_for_a_shell_exports_both_sets_of_names(tmp_path: Path) -> None:
    lines = announcement(Options(Home(tmp_path)), "e2b_key").splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "export EMBERBOX_API_KEY=e2b_key",
        "export EMBERBOX_API_URL=http://127.0.0.1:3000",
        "export EMBERBOX_SANDBOX_URL=http://127.0.0.1:3002",
        "export E2B_API_KEY=e2b_key",
        "export E2B_API_URL=http://127.0.0.1:3000",
        "export E2B_SANDBOX_URL=http://127.0.0.1:3002",
    ]
