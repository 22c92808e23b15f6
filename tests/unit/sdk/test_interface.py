"""The classes against those of the installed `e2b` package, so that a drift is seen."""

from __future__ import annotations

import inspect
import typing
from typing import Any

import e2b
import pytest
from e2b.sandbox.filesystem.filesystem import AsyncFileStreamReader as E2BAsyncFileStreamReader
from e2b.sandbox.filesystem.filesystem import FileStreamReader as E2BFileStreamReader
from e2b.sandbox_async.commands.command import Commands as E2BAsyncCommands
from e2b.sandbox_async.commands.pty import Pty as E2BAsyncPty
from e2b.sandbox_async.filesystem.filesystem import Filesystem as E2BAsyncFilesystem
from e2b.sandbox_async.git import Git as E2BAsyncGit
from e2b.sandbox_sync.commands.command import Commands as E2BCommands
from e2b.sandbox_sync.commands.pty import Pty as E2BPty
from e2b.sandbox_sync.filesystem.filesystem import Filesystem as E2BFilesystem

import emberbox
from emberbox.sdk._async.commands import AsyncCommands
from emberbox.sdk._async.downloads import AsyncFileStreamReader
from emberbox.sdk._async.filesystem import AsyncFilesystem
from emberbox.sdk._async.git import AsyncGit
from emberbox.sdk._async.pty import AsyncPty
from emberbox.sdk._sync.commands import Commands
from emberbox.sdk._sync.downloads import FileStreamReader
from emberbox.sdk._sync.filesystem import Filesystem
from emberbox.sdk._sync.pty import Pty
from emberbox.sdk.instance_or_class import InstanceOrClass
from emberbox.sdk.not_yet import NotYet

PAIRS = [
    (emberbox.Sandbox, e2b.Sandbox),
    (emberbox.AsyncSandbox, e2b.AsyncSandbox),
    (Commands, E2BCommands),
    (AsyncCommands, E2BAsyncCommands),
    (Filesystem, E2BFilesystem),
    (AsyncFilesystem, E2BAsyncFilesystem),
    (Pty, E2BPty),
    (AsyncPty, E2BAsyncPty),
    (emberbox.Git, e2b.Git),
    (AsyncGit, E2BAsyncGit),
    (FileStreamReader, E2BFileStreamReader),
    (AsyncFileStreamReader, E2BAsyncFileStreamReader),
    (emberbox.CommandHandle, e2b.CommandHandle),
    (emberbox.AsyncCommandHandle, e2b.AsyncCommandHandle),
    (emberbox.AsyncCommandInputHandle, e2b.AsyncCommandInputHandle),
    (emberbox.WatchHandle, e2b.WatchHandle),
    (emberbox.AsyncWatchHandle, e2b.AsyncWatchHandle),
    (emberbox.SandboxPaginator, e2b.SandboxPaginator),
    (emberbox.AsyncSandboxPaginator, e2b.AsyncSandboxPaginator),
    (emberbox.SnapshotPaginator, e2b.SnapshotPaginator),
    (emberbox.AsyncSnapshotPaginator, e2b.AsyncSnapshotPaginator),
]

# Methods that say "not supported yet" take anything, so they have no parameters to compare.
TO_COME = {"update_network", "get_mcp_url", "get_mcp_token"}

# Parameters that ours has and theirs has not, each with its reason.
MORE = {
    "Commands.connect": {
        "on_stdout": "handlers are given alike to `run` and `connect`, in both flavours",
        "on_stderr": "as on_stdout",
    }
}


# How objects take part in statements: `for`, `with` and their asynchronous forms.
STATEMENTS = {"__iter__", "__next__", "__enter__", "__exit__"}
STATEMENTS |= {"__aiter__", "__anext__", "__aenter__", "__aexit__"}


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_") or name in STATEMENTS}


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_every_name_of_e2b_is_there_or_declared_to_come(ours: type, theirs: type) -> None:
    assert public(theirs) - public(ours) == set()


def methods() -> list[Any]:
    return [
        pytest.param(ours, theirs, name, id=f"{ours.__name__}.{name}")
        for ours, theirs in PAIRS
        for name in sorted(public(theirs) & public(ours) - STATEMENTS)
        if not isinstance(inspect.getattr_static(ours, name), NotYet | property)
        and callable(getattr(theirs, name))
    ]


@pytest.mark.parametrize(("ours", "theirs", "name"), methods())
def test_parameters_are_those_of_e2b(ours: type, theirs: type, name: str) -> None:
    for own, other in zip(both_forms(ours, name), both_forms(theirs, name), strict=True):
        assert without_more(ours, name, own) == parameters(other)
        assert inspect.iscoroutinefunction(own) == inspect.iscoroutinefunction(other)
    assert is_classmethod(ours, name) == is_classmethod(theirs, name)


@pytest.mark.parametrize(("ours", "theirs", "name"), methods())
def test_overloads_are_those_of_e2b(ours: type, theirs: type, name: str) -> None:
    if isinstance(inspect.getattr_static(ours, name), InstanceOrClass):
        return  # its two forms are not overloads of one function; they are compared above
    own = [without_more(ours, name, form) for form in typing.get_overloads(getattr(ours, name))]
    others = [parameters(form) for form in typing.get_overloads(getattr(theirs, name))]
    assert sorted(own, key=str) == sorted(others, key=str)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_what_is_a_property_in_e2b_is_one_and_nothing_else_is(ours: type, theirs: type) -> None:
    for name in public(theirs) & public(ours):
        own, other = (inspect.getattr_static(cls, name) for cls in (ours, theirs))
        assert isinstance(own, property) == isinstance(other, property), name


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_what_is_a_value_in_e2b_is_the_same(ours: type, theirs: type) -> None:
    for name in public(theirs) & public(ours) - STATEMENTS:
        other = getattr(theirs, name)
        if not isinstance(other, property) and not callable(other):
            assert getattr(ours, name) == other, name


def test_no_exception_is_stale() -> None:
    pairs = {ours.__name__: (ours, theirs) for ours, theirs in PAIRS}
    for place, names in MORE.items():
        cls, _, method = place.partition(".")
        own, other = (inspect.signature(getattr(each, method)) for each in pairs[cls])
        assert names.keys() <= own.parameters.keys() - other.parameters.keys()


def without_more(cls: type, name: str, function: Any) -> list[tuple[str, Any, Any]]:
    """The parameters of ours but for those that e2b has not."""
    more = MORE.get(f"{cls.__name__}.{name}", {})
    return [each for each in parameters(function) if each[0] not in more]


def is_classmethod(cls: type, name: str) -> bool:
    return isinstance(inspect.getattr_static(cls, name), classmethod)


def both_forms(cls: type, name: str) -> list[Any]:
    """A method; or the two that share a name, for a sandbox at hand and for an id."""
    static = inspect.getattr_static(cls, name)
    if isinstance(static, InstanceOrClass):
        return [static.of_instance, static.of_class]
    if hasattr(static, "class_method_name"):  # e2b's way to do it
        return [static.method, getattr(cls, static.class_method_name).__func__]
    return [getattr(static, "__func__", static)]


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    signature = inspect.signature(function)
    return [
        (parameter.name, parameter.kind, parameter.default)
        for parameter in list(signature.parameters.values())[1:]
    ]


@pytest.mark.parametrize("cls", [emberbox.Sandbox, emberbox.AsyncSandbox])
def test_only_these_methods_are_still_to_come(cls: type) -> None:
    assert {name for name, value in vars(cls).items() if isinstance(value, NotYet)} == TO_COME


def not_yet() -> list[Any]:
    return [
        pytest.param(cls, name, id=f"{cls.__name__}.{name}")
        for cls, _ in PAIRS
        for name, value in vars(cls).items()
        if isinstance(value, NotYet)
    ]


@pytest.mark.parametrize(("cls", "name"), not_yet())
def test_a_method_to_come_says_so(cls: type, name: str) -> None:
    with pytest.raises(emberbox.NotSupportedYetException) as caught:
        getattr(cls, name)("x", y=1)
    assert caught.value.feature == f"{cls.__name__}.{name}"
    assert isinstance(caught.value, emberbox.SandboxException)
