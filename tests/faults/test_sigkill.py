"""SIGKILL of any program, at any moment, under load.

EMBERBOX_FAULT_ROUNDS: how many; EMBERBOX_FAULT_SEED: which. Both are printed.
"""

from __future__ import annotations

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from emberbox import RateLimitException, Sandbox
from emberbox.orchestrator.processes import identify, is_alive
from tests import report
from tests.faults import invariants
from tests.faults.load import LIFE_SECONDS, Keeper, Load
from tests.stack import wait_until

if TYPE_CHECKING:
    from emberbox.orchestrator.processes import ProcessIdentity
    from tests.stack import Stack

ROUNDS = int(os.environ.get("EMBERBOX_FAULT_ROUNDS", "6"))
SEED = int(os.environ.get("EMBERBOX_FAULT_SEED") or random.randrange(1 << 30))

PROGRAMS = ("orchestrator", "api-server", "client-proxy", "data proxy", "dns forwarder", "up")
CROSSED = ("client-proxy", "data proxy")
"""Programs that streams pass through."""

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300 + 60 * ROUNDS)]


def test_any_program_may_be_killed_at_any_moment(stack: Stack) -> None:
    print(f"EMBERBOX_FAULT_SEED={SEED}")  # noqa: T201 - shown with a failure
    chance = random.Random(SEED)
    # Each once before any twice: a few rounds shall not kill the same one.
    order = [chance.sample(PROGRAMS, len(PROGRAMS)) for _ in range(ROUNDS // len(PROGRAMS) + 1)]
    victims = [program for some in order for program in some][:ROUNDS]
    keepers = [Keeper(stack) for _ in range(2)]
    try:
        with Load(stack, clients=2, seed=SEED) as load:
            slowest = max(_round(stack, program, keepers, chance) for program in victims)
        invariants.assert_whole(stack)
        invariants.assert_refusals_are_explained(load.refused)
        assert load.done > 0
        report.add(
            "sigkill",
            seed=SEED,
            rounds=ROUNDS,
            killed={one: victims.count(one) for one in PROGRAMS},
            calls=load.done,
            refused=len(load.refused),
            slowest_recovery_seconds=round(slowest, 1),
        )
    finally:
        for keeper in keepers:
            keeper.end()
    _wait_for_the_forgotten(stack)


def _wait_for_the_forgotten(stack: Stack) -> None:
    """Sandboxes of creates whose answer was lost: nobody kills them, their deadline ends them."""
    wait_until(
        lambda: not Sandbox.list(**stack.sdk).next_items(), LIFE_SECONDS + invariants.RECOVERY
    )


@pytest.mark.smoke
def test_the_quota_is_right_after_kills(stack: Stack) -> None:
    """Of a team that may have three: not one place is lost or won by what was cut off half-way."""
    sdk = stack.sdk_of_new_team("--concurrent-sandboxes", "3")
    for program in ("orchestrator", "api-server"):
        _kill_while_creating(stack, program, sdk)
    invariants.assert_whole(stack)
    running = Sandbox.list(**sdk).next_items()
    more = [Sandbox.create(timeout=60, **sdk) for _ in range(3 - len(running))]
    with pytest.raises(RateLimitException, match="maximum number of concurrent sandboxes"):
        Sandbox.create(timeout=60, **sdk)
    for one in running:
        Sandbox.kill(one.sandbox_id, **sdk)
    for sandbox in more:
        sandbox.kill()


def _round(stack: Stack, program: str, keepers: list[Keeper], chance: random.Random) -> float:
    """Kill it; seconds until all is well again."""
    time.sleep(chance.uniform(0, 1.5))  # a moment of its own in what the load does
    began = time.monotonic()
    _kill(stack, program)
    if program == "up":
        for keeper in keepers:
            keeper.assert_kept(stream=True)
        stack.start()  # which starts the programs anew that streams cross
    wait_until(stack.template_ready, invariants.RECOVERY)
    for keeper in keepers:
        keeper.assert_kept(stream=program not in (*CROSSED, "up"))
    return time.monotonic() - began


def _kill(stack: Stack, program: str) -> None:
    if program == "up":
        stack.kill_up()
        return
    wait_until(lambda: _running(stack, program) is not None, invariants.RECOVERY)
    identity = _running(stack, program)
    assert identity is not None
    os.kill(identity.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(identity), 10)


def _running(stack: Stack, program: str) -> ProcessIdentity | None:
    """None while one that was killed before is being started again."""
    if program == "data proxy":
        pid: int | None = stack.data_proxy_pids()[0]
    elif program == "dns forwarder":
        pid = stack.dns_pid()
    else:
        pid = stack.pid_of(program)
    try:
        return None if pid is None else identify(pid)
    except ProcessLookupError:
        return None


def _kill_while_creating(stack: Stack, program: str, sdk: dict[str, Any]) -> None:
    refused: list[Exception] = []

    def create() -> None:
        try:
            Sandbox.create(timeout=60, **sdk)
        except Exception as error:  # noqa: BLE001 - judged below
            refused.append(error)

    with ThreadPoolExecutor(2) as threads:
        started = [threads.submit(create) for _ in range(2)]
        time.sleep(0.2)  # in the middle of both
        _kill(stack, program)
        for creating in started:
            creating.result()
    invariants.assert_refusals_are_explained(refused)
    invariants.assert_whole(stack)
    for one in Sandbox.list(**sdk).next_items():
        Sandbox.kill(one.sandbox_id, **sdk)
