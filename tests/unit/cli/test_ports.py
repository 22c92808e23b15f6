"""Who listens on a port, and what `up` says when it is not us."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from emberbox.cli import ports
from emberbox.cli.host import HostClient
from emberbox.cli.options import Hosts, Options, read_settings
from emberbox.cli.preflight import check_ports
from emberbox.cli.up import announcement, programs
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


@pytest.mark.parametrize("host", ["203.0.113.7", "::1"])
def test_an_address_of_another_machine_is_refused_in_one_line(tmp_path: Path, host: str) -> None:
    options = Options(Home(tmp_path), hosts=Hosts(proxy=host))
    with pytest.raises(StartupError, match=rf"{host}:3002 .*: set EMBERBOX_PROXY_HOST to"):
        check_ports(options)


def test_programs_reach_one_another_where_they_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBERBOX_API_HOST", "0.0.0.0")
    monkeypatch.setenv("EMBERBOX_API_INTERNAL_HOST", "127.0.0.5")
    monkeypatch.setenv("EMBERBOX_PROXY_HOST", "127.0.0.2")
    monkeypatch.setenv("EMBERBOX_ORCHESTRATOR_HOST", "127.0.0.3")
    monkeypatch.setenv("EMBERBOX_DATA_HOST", "127.0.0.4")
    hosts, node = read_settings()
    options = Options(Home(tmp_path), hosts=hosts, node=node)
    assert options.api_url == "http://127.0.0.1:3000"
    assert options.sandbox_url == "http://127.0.0.2:3002"
    client = HostClient(options.orchestrator_address, "secret")
    orchestrator, api, proxy = (program.argv for program in programs(options, client))
    assert orchestrator[-2:] == ["--api-internal", "127.0.0.5:3001"]
    assert api[-2:] == ["--orchestrators", "127.0.0.3:8080"]
    assert proxy[-2:] == ["--data-proxy", "127.0.0.4:5007"]


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
