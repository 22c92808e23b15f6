"""The Emberbox that is measured: one that runs already, or one started for the measurement."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from emberbox.cli.servers import load_settings
from emberbox.orchestrator.images.manifest import KINDS
from emberbox.orchestrator.sandboxes.records import RECORD_FILE, SandboxRecord
from emberbox.orchestrator.settings import Settings
from emberbox.shared import internal_secret
from emberbox.shared.home import Home, default_home
from emberbox.shared.protocol import GRPC_SECRET_KEY
from scripts import running as one_up
from scripts.free_ports import find_free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

_OF_SDK = ("EMBERBOX_API_KEY", "EMBERBOX_API_URL", "EMBERBOX_SANDBOX_URL")
_REFILL_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Target:
    """What is measured besides what the SDK reaches: the orchestrator's address and secret."""

    orchestrator: str
    secret: str

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """What the orchestrator wants with each call."""
        return [(GRPC_SECRET_KEY, self.secret)]


@dataclass(frozen=True, slots=True)
class Stack(Target):
    """An `emberbox up` of our own. `sdk`: options of the SDK that reach it."""

    home: Home
    sdk: dict[str, Any]
    orchestrator_pid: int

    def info(self) -> pb.ServiceInfoResponse:
        """How the host is."""
        with grpc.insecure_channel(self.orchestrator) as channel:
            answer: pb.ServiceInfoResponse = pb_grpc.InfoServiceStub(channel).ServiceInfo(
                pb.ServiceInfoRequest(), metadata=self.metadata, timeout=10
            )
        return answer

    def refilled(self) -> None:
        """Return when the pool has all that it wants. Raises TimeoutError."""
        deadline = time.monotonic() + _REFILL_SECONDS
        while (info := self.info()).pool_ready < info.pool_wanted or info.pool_making:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the pool has {info.pool_ready} of {info.pool_wanted}")
            time.sleep(0.02)

    def vmms(self, place: Path) -> dict[str, int]:
        """Pids of the VMMs whose records are below a directory, by sandbox or clone."""
        found = {}
        for path in place.glob(f"*/{RECORD_FILE}"):
            # It is just being removed, or has no whole line yet.
            with contextlib.suppress(FileNotFoundError, ValueError):
                record = SandboxRecord.from_json(path.read_bytes())
                if record.process is not None:
                    found[path.parent.name] = record.process.pid
        return found

    def workers(self) -> list[int]:
        """Pids of the data proxy's processes."""
        records = (self.home.orchestrator / "data-proxy").glob("worker-*.json")
        return [json.loads(record.read_text())["process"]["pid"] for record in records]


@contextmanager
def running() -> Iterator[Target]:
    """The Emberbox that the SDK's three variables name, with the home and the orchestrator's
    address of the environment; without them an `emberbox up` of our own.

    The SDK's variables are set afterwards in either case.
    """
    settings = load_settings(Settings)
    if all(os.environ.get(name) for name in _OF_SDK):
        print(f"measuring {os.environ['EMBERBOX_API_URL']}", file=sys.stderr)
        address = f"{settings.host}:{settings.port}"
        yield Target(address, internal_secret.load_or_create(settings.secret_file))
        return
    print("starting emberbox up", file=sys.stderr)
    with one_up.running() as up:
        os.environ.update(up.variables)
        secret = internal_secret.load_or_create(settings.secret_file)
        yield Target(up.facts["orchestrator"], secret)


@contextmanager
def own(number: int, templates_of: Stack | None = None, **settings: str) -> Iterator[Stack]:
    """An `emberbox up` with a home of its own, which takes the images of the default one.

    Those with different numbers, 0 to 15, can run at once. `templates_of` spares it the time to
    make its template.
    """
    with tempfile.TemporaryDirectory(prefix="emberbox-benchmark-") as directory:
        home = Home(Path(directory))
        _link_images(home)
        if templates_of is not None:
            shutil.copytree(templates_of.home.templates, home.templates, copy_function=os.link)
        print(f"starting emberbox up with {settings}", file=sys.stderr)
        environment = {**os.environ, **_surroundings(number), **settings}
        environment["EMBERBOX_HOME"] = directory
        with (home.root / "up.log").open("w") as log:
            up = one_up.Up.start(_ports(), environment, log)
        try:
            secret = internal_secret.load_or_create(home.internal_secret)
            record = json.loads((home.root / "up.json").read_text())
            pid = record["programs"]["orchestrator"]["pid"]
            yield Stack(up.facts["orchestrator"], secret, home, up.sdk, pid)
        finally:
            up.stop()


def _link_images(home: Home) -> None:
    images = default_home() / "images"
    if not images.is_dir():
        subprocess.run([one_up.EMBERBOX, "images", "build"], check=True)
    home.images.mkdir()
    for kind in KINDS:
        (home.images / kind).symlink_to(images / kind)


def _surroundings(number: int) -> dict[str, str]:
    """Names and addresses that no ordinary orchestrator has."""
    return {
        "EMBERBOX_NODE_ID": f"benchmark-{number}",
        "EMBERBOX_NETWORK_RANGE": f"10.202.{16 * number}.0/20",
        "EMBERBOX_DNS_PORT": str(10553 + number),
    }


def _ports() -> list[str]:
    """Flags with ports that nobody listens on, and for some the next one too."""
    api, internal, proxy, orchestrator, data = find_free_ports(
        api=1, internal=1, proxy=2, orchestrator=1, data=2
    )
    flags = {
        "--api-port": api,
        "--api-internal-port": internal,
        "--proxy-port": proxy,
        "--orchestrator-port": orchestrator,
        "--data-port": data,
    }
    return [str(word) for flag in flags.items() for word in flag]
