"""How long a sandbox takes to be ready, and to have run its first command.

Two `emberbox up` of our own run side by side, one with a warm pool and one without, and are asked
in turns, each when the pool is full, so that nothing else goes on. `cold` boots the kernel: the API
has no such option, so the orchestrator is asked, without the API server's few milliseconds. What
the other keys are stands with what measures them: `create_series`, `create_load`, `create_peers`.
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks import create_load, create_peers
from benchmarks.create_series import Host, Series, steps_of, through_sdk
from benchmarks.figures import at_least_one, progress
from benchmarks.stack import Stack, own

_STEPS_COUNT = 20


def main(arguments: list[str]) -> dict[str, Any]:
    """Measure."""
    options = _parse(arguments)
    with own(0, EMBERBOX_POOL_SIZE=str(options.pool_size)) as warm:
        with own(1, templates_of=warm, EMBERBOX_POOL_SIZE="0") as plain:
            result = _in_turns(warm, plain, options)
            result["clone_steps_ms"] = steps_of(plain, _STEPS_COUNT)
        result["pool_back_to_back"] = _back_to_back(warm, options.back_to_back)
        result["steps_ms"] = steps_of(warm, _STEPS_COUNT)
        result["refill_cpu_ms"] = create_load.refill_cpu_ms(warm, options.refills)
        result["busy"] = create_load.busy(warm, options.busy)
        result["burst20"] = create_load.burst(warm, options.burst)
        result["burst100"] = create_load.burst(warm, options.large_burst)
    return {**result, "runs": vars(options)}


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks create")
    parser.add_argument("--cold", type=at_least_one, default=10)
    parser.add_argument("--clone", type=at_least_one, default=30)
    parser.add_argument("--pool", type=at_least_one, default=50)
    parser.add_argument("--pool-size", type=at_least_one, default=4, help="clones kept warm")
    parser.add_argument("--back-to-back", type=at_least_one, default=30)
    parser.add_argument("--peers", type=at_least_one, default=10)
    parser.add_argument("--refills", type=at_least_one, default=8)
    parser.add_argument("--busy", type=at_least_one, default=20, help="creates quiet, and busy")
    parser.add_argument("--burst", type=at_least_one, default=20)
    parser.add_argument("--large-burst", type=at_least_one, default=100)
    return parser.parse_args(arguments)


def _in_turns(warm: Stack, plain: Stack, options: argparse.Namespace) -> dict[str, Any]:
    """One of each kind after the other, those of which there are fewer less often."""
    pool, clone, cold = Series(), Series(), Series()
    host = Host(plain)
    through_sdk(plain.sdk)  # the first reads the RAM image from disk
    warm.refilled()
    rounds = max(options.pool, options.clone, options.cold, options.peers)
    with create_peers.installed() as peers:
        for number in range(rounds):
            if _is_due(number, rounds, options.pool):
                pool.add(through_sdk(warm.sdk))
                warm.refilled()
            if _is_due(number, rounds, options.clone):
                clone.add(through_sdk(plain.sdk))
            if _is_due(number, rounds, options.peers):
                for peer in peers:
                    peer.measure()
            if _is_due(number, rounds, options.cold):
                host.boot(cold)
            progress("in turns", number + 1, rounds)
        return {
            "pool": pool.result(),
            "clone": clone.result(),
            "cold": cold.result(),
            "peers": [peer.result(pool.first_command) for peer in peers],
        }


def _is_due(number: int, rounds: int, count: int) -> bool:
    """Whether this is one of `count` rounds that are spread evenly over all."""
    return number * count // rounds != (number + 1) * count // rounds


def _back_to_back(stack: Stack, count: int) -> dict[str, Any]:
    """As fast as one client asks; the pool is full at the beginning and nobody waits for it."""
    series = Series()
    stack.refilled()
    for number in range(count):
        series.add(through_sdk(stack.sdk))
        progress("back to back", number + 1, count)
    return series.result()
