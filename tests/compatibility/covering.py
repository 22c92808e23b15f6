"""Which method of an official SDK a test is about, for the table of docs/compatibility.md."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.compat_surface import group_of
from scripts.compat_table import ERROR, NORMAL, NOT_YET, RESULTS_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = "covers"
ONLY = "only_flavour"

only_sync: pytest.MarkDecorator = getattr(pytest.mark, ONLY)("sync")
"""What the async flavour does in another way, or not at all."""

only_async: pytest.MarkDecorator = getattr(pytest.mark, ONLY)("async")
"""The other way round."""


def covers(*methods: str) -> pytest.MarkDecorator:
    """The test calls these methods ("Sandbox.create") and checks their normal results."""
    return getattr(pytest.mark, MARK)(*methods, case=NORMAL)  # type: ignore[no-any-return]


def covers_error(error: type[Exception] | str, *methods: str) -> pytest.MarkDecorator:
    """The test makes each of these methods raise the error, or sees what the text says."""
    name = error if isinstance(error, str) else error.__name__
    return getattr(pytest.mark, MARK)(*methods, case=ERROR + name)  # type: ignore[no-any-return]


def covers_not_yet(*methods: str) -> pytest.MarkDecorator:
    """The test sees each of these methods, which come later, fail with a clear typed error."""
    return getattr(pytest.mark, MARK)(*methods, case=NOT_YET)  # type: ignore[no-any-return]


def claims(item: pytest.Item) -> Iterator[tuple[str, str]]:
    """The methods and cases that a test is about."""
    for mark in item.iter_markers(MARK):
        for method in mark.args:
            yield method, mark.kwargs["case"]


def record(item: pytest.Item, *, passed: bool) -> None:
    """Write down what a test of the Python package showed, when somebody wants to know."""
    flavour = flavour_of(item)
    for method, case in claims(item):
        append_result(
            sdk="python",
            group=group_of(method),
            method=method,
            flavour=flavour,
            case=case,
            outcome="passed" if passed else "failed",
        )


def append_result(**result: str) -> None:
    """Add one line to the results, see scripts/compat_table.py."""
    name = os.environ.get(RESULTS_VARIABLE)
    if name:
        with Path(name).open("a") as results:
            results.write(json.dumps(result) + "\n")


def is_of_other_flavour(item: pytest.Item) -> bool:
    """Whether a test is not for the flavour that it would run in."""
    only = item.get_closest_marker(ONLY)
    return only is not None and only.args[0] != flavour_of(item)


def flavour_of(item: pytest.Item) -> str:
    """ "sync", "async", or nothing for what has one flavour."""
    call = getattr(item, "callspec", None)
    return str(call.params.get("flavour", "")) if call else ""
