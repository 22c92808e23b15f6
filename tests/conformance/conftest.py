"""Addresses for guests."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def guest() -> str:
    """An address of loopback, all of whose ports are this process's."""
    pid = os.getpid()
    return f"127.{pid >> 8 & 0xFF}.{pid & 0xFF}.1"
