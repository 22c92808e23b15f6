"""`make demo`: start everything, run examples/quickstart.py, stop everything, look what is left.

Prints each step with its time; exit status 0 when all went well and nothing is left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from emberbox import Sandbox
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from emberbox.cli.servers import load_settings
from emberbox.orchestrator.settings import Settings
from emberbox.shared import internal_secret
from emberbox.shared.home import Home, default_home
from emberbox.shared.protocol import GRPC_SECRET_KEY
from scripts.running import EMBERBOX, NotReadyError, Up
from tests import leaks

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
MARK = "EMBERBOX_DEMO_RUN"
ANSWER_WITHIN = 10.0
TLS_PORT = "3443"
"""443 may be somebody else's."""


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
        with started(steps, mark) as up:
            with steps.step("examples/quickstart.py"):
                quickstart(up)
            with steps.step("look at a sandbox: a clone of the template's snapshot"):
                check_clone(up)
        with steps.step("look what is left behind"):
            check_nothing_left(before, kept, mark, home)
    except (DemoError, NotReadyError) as error:
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
def started(steps: Steps, mark: str) -> Iterator[Up]:
    """The three servers; stopped afterwards. Raises DemoError when they end badly."""
    with steps.step("start the servers (the first time: snapshot the base template)"):
        up = Up.start(["--tls", "--tls-port", TLS_PORT], {**os.environ, MARK: mark})
    try:
        yield up
    finally:
        with steps.step("stop everything"):
            status = up.stop()
    if status != 0:
        raise DemoError(f"emberbox up ended with exit status {status}: its last lines say why")


def quickstart(up: Up) -> None:
    """Run the example with the variables that `up` names. Raises DemoError when it fails."""
    example = ROOT / "examples" / "quickstart.py"
    done = subprocess.run(
        [sys.executable, example],
        env={**os.environ, **up.variables, "EMBERBOX_QUICKSTART_CA": up.facts["ca_file"]},
        timeout=600,
        check=False,
    )
    if done.returncode != 0:
        raise DemoError(f"examples/quickstart.py ended with exit status {done.returncode}")


def check_clone(up: Up) -> None:
    """Make one more sandbox and ask the orchestrator what it is. Raises DemoError when it was
    not cloned from the template's snapshot."""
    settings = load_settings(Settings)
    metadata = [(GRPC_SECRET_KEY, internal_secret.load_or_create(settings.secret_file))]
    with (
        grpc.insecure_channel(up.facts["orchestrator"]) as channel,
        Sandbox.create(timeout=60, **up.sdk) as sandbox,
    ):
        info: pb.ServiceInfoResponse = pb_grpc.InfoServiceStub(channel).ServiceInfo(
            pb.ServiceInfoRequest(), metadata=metadata, timeout=ANSWER_WITHIN
        )
        (template,) = (
            pb_grpc.TemplateServiceStub(channel)
            .List(pb.TemplateListRequest(), metadata=metadata, timeout=ANSWER_WITHIN)
            .templates
        )
        found: pb.SandboxGetResponse = pb_grpc.SandboxServiceStub(channel).Get(
            pb.SandboxGetRequest(sandbox_id=sandbox.sandbox_id),
            metadata=metadata,
            timeout=ANSWER_WITHIN,
        )
    print(f"driver      {info.driver} with {info.accelerator}")
    print(f"template    {', '.join(template.names)}, build {template.build_id}")
    print(f"sandbox     {sandbox.sandbox_id}, as the orchestrator tells it:")
    for line in found.story:
        print(f"            {line}")
    cloned = f"cloned from the snapshot of build {template.build_id}"
    if not any(line.endswith(cloned) for line in found.story):
        raise DemoError(f"the sandbox was not {cloned}")


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
