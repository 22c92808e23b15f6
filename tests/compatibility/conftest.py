"""The official SDKs against one `emberbox up`; what each test shows is written down."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.compatibility import covering
from tests.compatibility.flavours import CALLED, Sdk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    from tests.stack import Stack

_FAILED = pytest.StashKey[bool]()
_RAN = pytest.StashKey[bool]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests that are for the other flavour. One event loop for all the others: a sandbox
    serves several tests, and the SDK keeps connections."""
    others = [item for item in items if covering.is_of_other_flavour(item)]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]
    for item in items:
        ours = "compatibility" in item.path.parts and isinstance(item, pytest.Function)
        if ours and inspect.iscoroutinefunction(item.function):  # type: ignore[attr-defined]
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Record a test when its last phase is over; one that was skipped showed nothing."""
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    item.stash[_RAN] = item.stash.get(_RAN, False) or (call.when == "call" and not report.skipped)
    if call.when == "teardown" and (item.stash[_RAN] or item.stash[_FAILED]):
        covering.record(item, passed=not item.stash[_FAILED])
    return report


@pytest.fixture(autouse=True)
def _what_is_claimed_was_called(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that says it covers a method must have called it."""
    CALLED.clear()
    yield
    if request.node.stash.get(_FAILED, False):
        return
    missing = {method for method, _ in covering.claims(request.node)} - CALLED
    assert not missing, f"marked as covered but never called: {sorted(missing)}"


@pytest.fixture(scope="module")
def e2b_environment(stack: Stack) -> Iterator[None]:
    """The three variables that a user of the official SDK sets."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in stack.sdk.items():
            monkeypatch.setenv(f"E2B_{name.upper()}", value)
        yield


@pytest.fixture(scope="module", params=["sync", "async"])
def flavour(request: pytest.FixtureRequest) -> str:
    """Which of its two flavours the Python package is used in."""
    return str(request.param)


@pytest.fixture(scope="module")
def sdk(flavour: str, e2b_environment: None) -> Sdk:
    """The Python package in one flavour."""
    return Sdk(flavour)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def box(sdk: Sdk) -> AsyncIterator[Any]:
    """A sandbox that the tests of a module share."""
    sandbox = await sdk.Sandbox.create(timeout=600)
    yield sandbox
    await sandbox.kill()


@pytest_asyncio.fixture(loop_scope="session")
async def new_box(sdk: Sdk) -> AsyncIterator[Callable[..., Any]]:
    """Makes sandboxes for one test."""
    made: list[Any] = []

    async def make(*arguments: Any, **options: Any) -> Any:
        made.append(await sdk.Sandbox.create(*arguments, **{"timeout": 300, **options}))
        return made[-1]

    yield make
    for sandbox in made:
        await sandbox.kill()
