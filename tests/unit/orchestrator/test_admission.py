from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from emberbox.orchestrator.errors import AdmissionRefused
from emberbox.orchestrator.machines.driver import Hardware
from emberbox.orchestrator.sandboxes.admission import Limits, Usage, check, memory_mb

LIMITS = Limits(
    max_sandboxes=10, memory_overcommit=2.0, memory_reserve_mb=512, disk_reserve_mb=1024
)
ROOMY = Usage(
    sandboxes=3,
    ram_promised_mb=1536,
    memory_total_mb=8192,
    memory_available_mb=6000,
    disk_available_mb=20_000,
)
ASKED = Hardware(vcpu=2, ram_mb=512)


def test_a_host_with_room_takes_a_sandbox() -> None:
    check(LIMITS, ROOMY, ASKED)


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"sandboxes": 10}, "EMBERBOX_MAX_SANDBOXES=10"),
        ({"ram_promised_mb": 8192 * 2 - 511}, "EMBERBOX_MEMORY_OVERCOMMIT=2.0"),
        ({"memory_available_mb": 575}, "EMBERBOX_MEMORY_RESERVE_MB=512"),
        ({"disk_available_mb": 1023}, "EMBERBOX_DISK_RESERVE_MB=1024"),
    ],
)
def test_a_refusal_names_the_reason_and_the_setting(change: dict[str, Any], setting: str) -> None:
    with pytest.raises(AdmissionRefused, match=setting):
        check(LIMITS, dataclasses.replace(ROOMY, **change), ASKED)


@pytest.mark.parametrize(
    "change",
    [
        {"sandboxes": 9},
        {"ram_promised_mb": 8192 * 2 - 512},
        {"memory_available_mb": 576},
        {"disk_available_mb": 1024},
    ],
)
def test_the_last_one_that_fits_is_taken(change: dict[str, Any]) -> None:
    check(LIMITS, dataclasses.replace(ROOMY, **change), ASKED)


def test_memory_of_this_host_is_read() -> None:
    total, available = memory_mb()
    assert 0 < available <= total
