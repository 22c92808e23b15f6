"""What envd costs: commands, files, terminals, beside the same work done bare inside the guest.

The bare side is a static C program, built here, put into the sandbox and run by the same user. The
two sides of each comparison take turns in one sandbox. What is compared, and its bare side:

- `run_true_ms`: `commands.run("true")`; `posix_spawn` of the same argv and waiting for its end
- `write_mb_s`, `read_mb_s`: the SDK's `files`, for each size; writing or reading such a file inside
  the guest, and the same bytes through the same proxies to and from the least HTTP server
- `pty_first_byte_ms`: `pty.create` until output came; `forkpty` of the same shell until output came
- `streams200_ok`: how many of 200 commands that run at once had all their output
"""

from __future__ import annotations

import argparse
import sys
import threading
from typing import TYPE_CHECKING, Any

from benchmarks.envd_bare import Bare, build
from benchmarks.envd_transfer import measure_transfers
from benchmarks.figures import Clock, at_least_one, percentiles, progress
from benchmarks.stack import running
from emberbox import PtySize, Sandbox, SandboxException

if TYPE_CHECKING:
    from emberbox import CommandHandle

_COMMAND = ("/bin/bash", "-l", "-c", "true")
_SHELL = ("/bin/bash", "-i", "-l")
_LIFE_SECONDS = 1800
_STREAM_BYTES = 20_000
_STREAM_SECONDS = 240


def main(arguments: list[str]) -> dict[str, Any]:
    """Measure."""
    options = _parse(arguments)
    program = build()
    with running(), Sandbox.create(timeout=_LIFE_SECONDS) as sandbox:
        bare = Bare.put(sandbox, program)
        commands = measure_commands(sandbox, bare, options.commands)
        terminals = measure_terminals(sandbox, bare, options.terminals)
        transfers = measure_transfers(sandbox, bare, options.small, options.large)
        streams = measure_streams(sandbox, options.streams)
    return {**commands, **transfers, **terminals, **streams, "runs": vars(options)}


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks envd")
    parser.add_argument("--commands", type=at_least_one, default=60)
    parser.add_argument("--terminals", type=at_least_one, default=10)
    parser.add_argument("--small", type=at_least_one, default=10, help="transfers of 1 MiB")
    parser.add_argument("--large", type=at_least_one, default=2, help="transfers of 100 MiB")
    parser.add_argument("--streams", type=at_least_one, default=200, help="commands at once")
    return parser.parse_args(arguments)


def measure_commands(sandbox: Sandbox, bare: Bare, count: int) -> dict[str, Any]:
    """`true` through the SDK and bare, in turns."""
    ours, theirs = [], []
    with bare.asked("spawn", *_COMMAND) as spawn:
        sandbox.commands.run("true")
        spawn.once()
        for number in range(count):
            clock = Clock()
            with clock.running():
                sandbox.commands.run("true")
            ours.append(clock.ms)
            theirs.append(spawn.once())
            progress("commands", number + 1, count)
    run, spawned = percentiles(ours), percentiles(theirs)
    return {
        "run_true_ms": run,
        "spawn_in_guest_ms": spawned["p50"],
        "ratio": round(run["p50"] / spawned["p50"], 2),
    }


def measure_terminals(sandbox: Sandbox, bare: Bare, count: int) -> dict[str, Any]:
    """The first byte of a login shell's terminal."""
    ours, theirs = [], []
    with bare.asked("pty", *_SHELL) as forkpty:
        _first_byte(sandbox)
        forkpty.once()
        for number in range(count):
            ours.append(_first_byte(sandbox))
            theirs.append(forkpty.once())
            progress("terminals", number + 1, count)
    return {"pty_first_byte_ms": {**percentiles(ours), "bare_ms": percentiles(theirs)["p50"]}}


def _first_byte(sandbox: Sandbox) -> float:
    clock = Clock()
    with clock.running():
        terminal = sandbox.pty.create(PtySize(rows=24, cols=80), timeout=0)
        next(iter(terminal))
    terminal.kill()
    return clock.ms


def measure_streams(sandbox: Sandbox, count: int) -> dict[str, Any]:
    """Commands that all run at the same time, each with some output of its own."""
    command = f"read number; printf %0{_STREAM_BYTES}d $number"  # builtins: no more processes
    whole = threading.Semaphore(0)
    clock = Clock()
    with clock.running():
        handles = []
        for number in range(count):
            handles.append(
                sandbox.commands.run(command, background=True, stdin=True, timeout=_STREAM_SECONDS)
            )
            progress("streams", number + 1, count)
        threads = [
            threading.Thread(target=_follow, args=(sandbox, handle, number, whole))
            for number, handle in enumerate(handles)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    succeeded = 0
    while whole.acquire(blocking=False):
        succeeded += 1
    return {"streams200_ok": succeeded, "streams200_wall_s": round(clock.ms / 1000, 1)}


def _follow(
    sandbox: Sandbox, handle: CommandHandle, number: int, whole: threading.Semaphore
) -> None:
    try:
        sandbox.commands.send_stdin(handle.pid, f"{number}\n")
        if handle.wait().stdout == f"{number:0{_STREAM_BYTES}}":
            whole.release()
    except SandboxException as error:
        print(f"stream {number}: {error}", file=sys.stderr)
