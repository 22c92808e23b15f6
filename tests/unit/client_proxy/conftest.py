"""Ports for a program under test."""

from __future__ import annotations

import socket

import pytest


@pytest.fixture
def unused_ports() -> list[int]:
    """Two TCP ports of 127.0.0.1 that nobody listens on."""
    with socket.socket() as first, socket.socket() as second:
        for probe in (first, second):
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in (first, second)]
