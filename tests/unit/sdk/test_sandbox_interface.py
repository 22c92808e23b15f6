"""Every public name and parameter of the official Sandbox, Git and models is ours too.

Compared by machine with the installed `e2b`; what differs stands in EXCEPTIONS and PLUMBING, with
the reason.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from typing import TYPE_CHECKING, Any

import e2b
import pytest
from e2b.sandbox_async.git import Git as E2BAsyncGit

import emberbox
from emberbox.sdk._async.git import AsyncGit
from emberbox.sdk.instance_or_class import InstanceOrClass
from emberbox.sdk.not_yet import NotYet

if TYPE_CHECKING:
    from collections.abc import Callable

EXCEPTIONS = {
    "ApiClient": "the generated REST client of e2b, which its own code alone uses",
    "client": "a module; what it exports, E2B, is here",
}
PLUMBING = {
    "from_dict": "e2b reads JSON into its records with it; ours has from_json for that",
}

# Methods that say "not supported yet" take anything, so they have no parameters to compare.
TO_COME = {
    "pause", "beta_pause", "fork", "create_snapshot", "list_snapshots", "delete_snapshot",
    "update_network", "get_mcp_url", "get_mcp_token",
}  # fmt: skip

CLASSES = [
    (emberbox.Sandbox, e2b.Sandbox),
    (emberbox.AsyncSandbox, e2b.AsyncSandbox),
    (emberbox.Git, e2b.Git),
    (AsyncGit, E2BAsyncGit),
    (emberbox.SandboxPaginator, e2b.SandboxPaginator),
    (emberbox.AsyncSandboxPaginator, e2b.AsyncSandboxPaginator),
]
SANDBOXES = CLASSES[:2]


def public(cls: object) -> list[str]:
    return sorted(name for name in dir(cls) if not name.startswith("_"))


def test_every_name_of_the_package_is_there() -> None:
    assert set(e2b.__all__) - set(emberbox.sdk.__all__) == set(EXCEPTIONS)
    assert all(hasattr(emberbox, name) for name in emberbox.sdk.__all__)


@pytest.mark.parametrize(("ours", "theirs"), CLASSES)
def test_every_name_of_a_class_is_there(ours: type, theirs: type) -> None:
    assert set(public(theirs)) - set(public(ours)) == set()


@pytest.mark.parametrize(("ours", "theirs"), SANDBOXES)
def test_only_these_methods_are_still_to_come(ours: type, theirs: type) -> None:
    found = {name for name in public(ours) if isinstance(static(ours, name), NotYet)}
    assert found == TO_COME
    assert set(public(theirs)) >= TO_COME


def test_a_client_has_every_class() -> None:
    assert set(public(e2b.E2B())) - set(public(emberbox.E2B())) == set()


def members() -> list[Any]:
    return [
        pytest.param(ours, theirs, name, id=f"{ours.__name__}.{name}")
        for ours, theirs in CLASSES
        for name in public(theirs)
        if not (name in TO_COME and (ours, theirs) in SANDBOXES)
    ]


@pytest.mark.parametrize(("ours", "theirs", "name"), members())
def test_a_member_has_the_kind_and_the_parameters(ours: type, theirs: type, name: str) -> None:
    own, other = static(ours, name), static(theirs, name)
    assert isinstance(own, property) == isinstance(other, property)
    if isinstance(own, property):
        return
    if not callable(getattr(ours, name)):
        assert own == other
        return
    assert isinstance(own, classmethod) == isinstance(other, classmethod)
    for own_form, other_form in zip(forms(ours, name), forms(theirs, name), strict=True):
        assert parameters(own_form) == parameters(other_form)
        assert inspect.iscoroutinefunction(own_form) == inspect.iscoroutinefunction(other_form)


def test_options_of_every_call() -> None:
    for name in ("ApiParams", "E2BClientParams"):
        assert keys(getattr(emberbox, name)) == keys(getattr(e2b, name))


def is_literal(value: Any) -> bool:
    return str(typing.get_origin(value)) == "typing.Literal"


KINDS: dict[str, Callable[[Any], bool]] = {
    "dataclass": dataclasses.is_dataclass,
    "dictionary": typing.is_typeddict,
    "literal": is_literal,
}


def exported(kind: str) -> list[str]:
    """Names of the package's records, dictionaries or literals that are not to come."""
    return [
        name
        for name in emberbox.sdk.__all__
        if hasattr(e2b, name) and KINDS[kind](getattr(emberbox, name))
    ]


@pytest.mark.parametrize("name", exported("dataclass"))
def test_a_record_has_the_fields_the_properties_and_the_order(name: str) -> None:
    ours, theirs = getattr(emberbox, name), getattr(e2b, name)
    assert fields(ours) == fields(theirs)
    assert set(public(theirs)) - set(public(ours)) <= set(PLUMBING)


@pytest.mark.parametrize("name", exported("dictionary"))
def test_a_dictionary_has_the_keys(name: str) -> None:
    assert keys(getattr(emberbox, name)) == keys(getattr(e2b, name))


@pytest.mark.parametrize("name", exported("literal"))
def test_a_literal_has_the_values(name: str) -> None:
    assert typing.get_args(getattr(emberbox, name)) == typing.get_args(getattr(e2b, name))


def test_the_models_that_matter_are_among_those_compared() -> None:
    records, dictionaries = set(exported("dataclass")), set(exported("dictionary"))
    assert records >= {"GitStatus", "GitFileStatus", "GitBranches", "SandboxMetrics", "SandboxInfo"}
    assert dictionaries >= {"SandboxNetworkOpts", "SandboxNetworkUpdate", "SandboxLifecycle"}
    assert "GitResetMode" in exported("literal")


def test_constants() -> None:
    assert emberbox.ALL_TRAFFIC == e2b.ALL_TRAFFIC
    assert emberbox.GuestUnresponsiveException.code == e2b.GuestUnresponsiveException.code
    assert parameters(emberbox.get_signature) == parameters(e2b.get_signature)


def static(cls: type, name: str) -> Any:
    return inspect.getattr_static(cls, name)


def forms(cls: type, name: str) -> list[Any]:
    """A method; or the two of one name, for a sandbox at hand and for an id."""
    found = static(cls, name)
    if isinstance(found, InstanceOrClass):
        return [found.of_instance, found.of_class]
    if hasattr(found, "class_method_name"):  # e2b's way to do it
        return [found.method, getattr(cls, found.class_method_name).__func__]
    return [getattr(found, "__func__", found)]


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [
        (parameter.name, parameter.kind, parameter.default)
        for parameter in inspect.signature(function).parameters.values()
    ]


def fields(record: Any) -> list[tuple[str, bool]]:
    """Names in their order, and whether each may be left out."""
    return [
        (
            field.name,
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING,
        )
        for field in dataclasses.fields(record)
    ]


def keys(dictionary: Any) -> tuple[frozenset[str], frozenset[str]]:
    """Keys that must be there, and those that may."""
    optional = frozenset(
        name
        for name, hint in typing.get_type_hints(dictionary, include_extras=True).items()
        if typing.get_origin(hint) is typing.NotRequired
    )
    return dictionary.__required_keys__ - optional, dictionary.__optional_keys__ | optional
