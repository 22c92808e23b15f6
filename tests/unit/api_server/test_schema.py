"""Requests made up from our own OpenAPI document, against a server over the stand-in host.

EMBERBOX_FUZZ_EXAMPLES says how many there are of each operation.
"""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from .contract import contract
from .harness import running, settings_for
from .standin import Standin

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXAMPLES = int(os.environ.get("EMBERBOX_FUZZ_EXAMPLES", "2"))

pytestmark = pytest.mark.timeout(120 + 5 * EXAMPLES)

schema = schemathesis.openapi.from_dict(contract()._document)
CHECKS = [
    status_code_conformance,  # of 5xx, too: 500 is documented and refused below
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    ignored_auth,
]


@contextmanager
def served(home: Path) -> Iterator[tuple[str, str]]:
    """URL and key of an API server in a loop of its own."""
    found: list[tuple[str, str]] = []
    started, stop = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        host = Standin()
        await host.start()
        try:
            async with running(settings_for(home, host), host) as world:
                found.append((world.url, world.key))
                started.set()
                await stop.wait()
        finally:
            await host.stop()
            started.set()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    started.wait()
    try:
        yield found[0]
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    with served(tmp_path_factory.mktemp("home")) as server:
        yield server


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
def test_every_operation_answers_as_it_is_documented(
    case: schemathesis.Case[Any], api: tuple[str, str]
) -> None:
    url, key = api
    headers = {"X-API-KEY": key}
    answer = case.call(base_url=url, headers=headers, timeout=30)
    assert answer.status_code != 500, answer.text
    case.validate_response(answer, checks=CHECKS, headers=headers)
