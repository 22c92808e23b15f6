"""The clock of the host is set while sandboxes run. libfaketime sets it for our programs alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emberbox import Sandbox
from tests.faults import invariants
from tests.stack import wait_until

if TYPE_CHECKING:
    from tests.stack import Stack

LIBRARY = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]


def test_a_clock_that_jumps_ends_what_is_due_and_nothing_else(stack: Stack, tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    settings = {
        "LD_PRELOAD": str(LIBRARY),
        "PYTHONPATH": str(Path(__file__).with_name("faked_clock")),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with stack.restarted(**settings):
        short = Sandbox.create(timeout=600, **stack.sdk)
        long = Sandbox.create(timeout=4 * 3600, **stack.sdk)
        clock.write_text("-3600s\n")
        assert short.commands.run("echo well").stdout == "well\n"
        invariants.assert_whole(stack)
        clock.write_text("+3600s\n")
        wait_until(lambda: not short.is_running(), 90)
        assert stack.wait_for_end_of(short.sandbox_id, 60)[0] == "expired"
        assert invariants.told(stack, short.sandbox_id)["actor"] == "deadline"
        assert long.commands.run("echo well").stdout == "well\n"
        # A deadline that is set now is one of the new time.
        long.set_timeout(2)
        wait_until(lambda: not long.is_running(), 60)
        assert stack.wait_for_end_of(long.sandbox_id, 60)[0] == "expired"
        Sandbox.create(timeout=60, **stack.sdk).kill()
        invariants.assert_whole(stack)
