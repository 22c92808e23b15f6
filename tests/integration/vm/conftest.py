"""Each test with a real VM leaves the stack as it found it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import leaks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stack import Stack


@pytest.fixture(autouse=True)
def _integration_test_leaves_nothing(stack: Stack) -> Iterator[None]:
    """A test is asked for its sandboxes alone: the stack refills its slots meanwhile, and the SDK
    keeps connections for the next test."""
    yield
    left = leaks.wait_until_none(lambda: [p.name for p in stack.home.run_directories.iterdir()])
    assert not left, f"sandboxes left by the test: {left}"
