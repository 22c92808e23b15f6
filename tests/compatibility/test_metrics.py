"""`sandbox.get_metrics()` with the official Python package."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from e2b import SandboxNotFoundException

from tests.compatibility.covering import covers, covers_error
from tests.compatibility.flavours import eventually

if TYPE_CHECKING:
    from tests.compatibility.flavours import Sdk

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]


@covers("Sandbox.get_metrics")
async def test_what_a_sandbox_uses(box: Any, sdk: Sdk) -> None:
    found: list[Any] = []

    async def sampled() -> bool:
        found[:] = await box.get_metrics()
        return bool(found)

    await eventually(sampled, 30)
    assert found == sorted(found, key=lambda sample: sample.timestamp)
    last = found[-1]
    assert last.cpu_count == 2
    assert 0 <= last.cpu_used_pct <= 200
    assert 0 < last.mem_used < last.mem_total <= 512 * 2**20
    assert 0 < last.disk_used < last.disk_total
    by_id = await sdk.Sandbox.get_metrics(box.sandbox_id)
    assert found[0] in by_id


@covers("Sandbox.get_metrics")
async def test_a_time_before_the_sandbox(box: Any) -> None:
    end = datetime.now(UTC) - timedelta(hours=1)
    assert await box.get_metrics(start=end - timedelta(minutes=5), end=end) == []


@covers_error(SandboxNotFoundException, "Sandbox.get_metrics")
async def test_no_such_sandbox(sdk: Sdk) -> None:
    with pytest.raises(SandboxNotFoundException):
        await sdk.Sandbox.get_metrics("i00000000000000000000")
