"""The stack of these tests is theirs alone: each leaves it as it found it, whatever it broke."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults import invariants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stack import Stack


@pytest.fixture(autouse=True)
def _nothing_is_left_or_unexplained(stack: Stack) -> Iterator[None]:
    """After each test: no sandbox, every program serves, and each end has its reason."""
    yield
    invariants.assert_whole(stack)
    invariants.assert_empty(stack)
    invariants.assert_ends_are_explained(stack)
