"""`make demo`: start everything, run examples/quickstart.py, stop everything, look what is left.

Prints each step with its time; exit status 0 when all went well and nothing is left.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from emberbox.shared.home import Home, default_home
from tests import leaks

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
MARK = "EMBERBOX_DEMO_RUN"
EMBERBOX = Path(sys.executable).with_name("emberbox")
STOP_WITHIN = 120.0


class DemoError(Exception):
    """A step failed; the message says which and what to look at."""


class Steps:
    """The steps so far with their times in seconds."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, float]] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Announce a step, run it, and keep its time."""
        print(f"\n== {name}", flush=True)
        begun = time.monotonic()
        yield
        seconds = time.monotonic() - begun
        self.taken.append((name, seconds))
        print(f"== {name}: {seconds:.1f} s", flush=True)

    def show(self) -> None:
        """All steps, one a line."""
        print()
        for name, seconds in self.taken:
            print(f"{seconds:8.1f} s  {name}")


def main() -> int:
    """Run the demo; the exit status."""
    # A SIGTERM from CI must stop the servers too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    steps = Steps()
    mark = uuid.uuid4().hex
    home = Home(default_home())
    before = leaks.Machine.now(home.root)
    kept = run_directories(home)
    try:
        with steps.step("build the guest images that are missing"):
            build_images()
        with running(steps, mark) as facts, steps.step("examples/quickstart.py"):
            quickstart(facts)
        with steps.step("look what is left behind"):
            check_nothing_left(before, kept, mark, home)
    except DemoError as error:
        steps.show()
        sys.exit(f"emberbox: {error}")
    except KeyboardInterrupt:
        return 130
    steps.show()
    return 0


def build_images() -> None:
    """Kernel, initrd, runtime and root image, with a progress bar. Raises DemoError."""
    done = subprocess.run([EMBERBOX, "images", "build"], check=False)
    if done.returncode != 0:
        raise DemoError("the guest images could not be built: the lines above say why")


@contextmanager
def running(steps: Steps, mark: str) -> Iterator[dict[str, str]]:
    """The three servers, with what `up --json` prints of them; stopped afterwards."""
    with steps.step("start the servers (the first time: snapshot the base template)"):
        up = subprocess.Popen(
            [EMBERBOX, "up", "--json"],
            env={**os.environ, MARK: mark},
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C is for the demo, which then stops `up` by itself.
            process_group=0,
        )
        try:
            facts = read_facts(up)
        except BaseException:
            stop(up)
            raise
    try:
        yield facts
    finally:
        with steps.step("stop everything"):
            status = stop(up)
    if status != 0:
        raise DemoError(f"emberbox up ended with exit status {status}: its last lines say why")


def read_facts(up: subprocess.Popen[str]) -> dict[str, str]:
    """What `up --json` prints. Raises DemoError when it ends before all is ready."""
    assert up.stdout is not None
    with up.stdout as lines:
        line = lines.readline()
    if not line:
        raise DemoError("emberbox up did not get ready: its last lines say why")
    facts: dict[str, str] = json.loads(line)
    return facts


def stop(up: subprocess.Popen[str]) -> int:
    """End `up` as a person would; its exit status."""
    if up.poll() is None:
        up.send_signal(signal.SIGINT)
    try:
        return up.wait(STOP_WITHIN)
    except subprocess.TimeoutExpired:
        up.kill()
        return up.wait()


def quickstart(facts: dict[str, str]) -> None:
    """Run the example with the variables that `up` names. Raises DemoError when it fails."""
    names = ("api_key", "api_url", "sandbox_url")
    variables = {f"EMBERBOX_{name.upper()}": facts[name] for name in names}
    example = ROOT / "examples" / "quickstart.py"
    done = subprocess.run(
        [sys.executable, example], env={**os.environ, **variables}, timeout=600, check=False
    )
    if done.returncode != 0:
        raise DemoError(f"examples/quickstart.py ended with exit status {done.returncode}")


def run_directories(home: Home) -> frozenset[str]:
    """Directories of single sandboxes on this host."""
    return frozenset(str(path) for path in home.run_directories.glob("*"))


def check_nothing_left(before: leaks.Machine, kept: frozenset[str], mark: str, home: Home) -> None:
    """Raises DemoError that names what the demo left on the machine."""
    left = leaks.wait_until_none(
        lambda: [
            *leaks.processes(MARK, mark),
            *leaks.Machine.now(home.root).beyond(before),
            *sorted(run_directories(home) - kept),
        ]
    )
    if left:
        raise DemoError("left behind:\n  " + "\n  ".join(left))
    print("nothing: no process, network namespace, link, rule, mount or run directory")


if __name__ == "__main__":
    sys.exit(main())
