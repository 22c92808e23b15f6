"""Metrics over HTTP."""

from __future__ import annotations

import socket
import threading

import httpx
import pytest

from emberbox.shared import metrics
from emberbox.shared.errors import StartupError


def test_metrics_are_served_inside_the_block_and_leave_nothing() -> None:
    threads = threading.active_count()
    with metrics.serving("127.0.0.1", 0, "EMBERBOX_X") as port:
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics")
        assert answer.status_code == 200
        assert "process_resident_memory_bytes" in answer.text
    assert threading.active_count() == threads
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/metrics")


def test_without_a_port_nothing_is_served() -> None:
    threads = threading.active_count()
    with metrics.serving("127.0.0.1", None, "EMBERBOX_X") as port:
        assert port is None
        assert threading.active_count() == threads


def test_a_port_that_is_taken_names_the_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(StartupError, match="choose another port with EMBERBOX_X"),
            metrics.serving("127.0.0.1", port, "EMBERBOX_X"),
        ):
            pass
