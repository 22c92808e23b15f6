"""What a sandbox used, as the SDK tells it of a real one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from emberbox import Sandbox
from tests.stack import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.stack import Stack

pytestmark = [pytest.mark.vm, pytest.mark.timeout(180)]


def test_metrics(stack: Stack, create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    wait_until(lambda: bool(sandbox.get_metrics()), 90)
    sample = sandbox.get_metrics()[0]
    info = sandbox.get_info()
    assert sample.cpu_count == info.cpu_count
    assert 0 < sample.mem_used < sample.mem_total <= info.memory_mb << 20
    assert 0 < sample.disk_used < sample.disk_total
    assert info.started_at - timedelta(seconds=5) < sample.timestamp <= datetime.now(UTC)

    before = info.started_at - timedelta(hours=1)
    assert sandbox.get_metrics(before, before + timedelta(minutes=1)) == []
    assert Sandbox.get_metrics(sandbox.sandbox_id, before, **stack.sdk)
