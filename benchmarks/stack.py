"""The Emberbox that is measured: one that runs already, or one started for the measurement."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emberbox.cli.servers import load_settings
from emberbox.orchestrator.settings import Settings
from emberbox.shared import internal_secret
from emberbox.shared.protocol import GRPC_SECRET_KEY
from scripts import running as one_up

if TYPE_CHECKING:
    from collections.abc import Iterator

_OF_SDK = ("EMBERBOX_API_KEY", "EMBERBOX_API_URL", "EMBERBOX_SANDBOX_URL")


@dataclass(frozen=True, slots=True)
class Target:
    """What is measured besides what the SDK reaches: the orchestrator's address and secret."""

    orchestrator: str
    secret: str

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """What the orchestrator wants with each call."""
        return [(GRPC_SECRET_KEY, self.secret)]


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
