"""Every name that the installed `e2b` package exports is ours too, and records are alike.

What differs stands in EXCEPTIONS and PLUMBING, with the reason.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from typing import TYPE_CHECKING, Any

import e2b
import pytest

import emberbox

if TYPE_CHECKING:
    from collections.abc import Callable

EXCEPTIONS = {
    "ApiClient": "the generated REST client of e2b, which its own code alone uses",
    "client": "a module; what it exports, E2B, is here",
}
PLUMBING = {
    "from_dict": "e2b reads JSON into its records with it; ours has from_json for that",
}


def public(cls: object) -> list[str]:
    return sorted(name for name in dir(cls) if not name.startswith("_"))


def test_every_name_of_the_package_is_there() -> None:
    assert set(e2b.__all__) - set(emberbox.sdk.__all__) == set(EXCEPTIONS)
    assert all(hasattr(emberbox, name) for name in emberbox.sdk.__all__)


def test_the_names_of_the_package() -> None:
    own = set(emberbox.sdk.__all__) - set(e2b.__all__) - set(dir(e2b))
    assert own == {
        "ApiUnreachableException",
        "AsyncWriteEntry",
        "NotSupportedYetException",
        "WriteEntry",
    }
    assert set(emberbox.sdk.__all__) <= set(dir(emberbox))


def test_exceptions_have_the_bases_of_e2b() -> None:
    for name in emberbox.sdk.__all__:
        value = getattr(emberbox, name)
        theirs = getattr(e2b, name, None)
        if not (inspect.isclass(value) and issubclass(value, Exception) and theirs is not None):
            continue
        own_bases = {base.__name__ for base in value.__mro__}
        assert {base.__name__ for base in theirs.__mro__} == own_bases, name


def test_enumerations_have_the_values_of_e2b() -> None:
    for name in ("FileType", "FilesystemEventType", "SandboxState"):
        own = {item.name: item.value for item in getattr(emberbox, name)}
        assert own == {item.name: item.value for item in getattr(e2b, name)}


def test_a_client_has_every_class() -> None:
    assert set(public(e2b.E2B())) - set(public(emberbox.E2B())) == set()


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
