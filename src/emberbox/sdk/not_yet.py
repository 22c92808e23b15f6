"""Names of the `e2b` interface that Emberbox does not have yet, declared where they will be.

They exist so that calling one says so, instead of failing as a misspelt name would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from .errors import NotSupportedYetException

if TYPE_CHECKING:
    from collections.abc import Callable


class NotYet:
    """A method to come: calling it raises NotSupportedYetException."""

    def __init__(self) -> None:
        self.feature = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.feature = f"{owner.__name__}.{name}"

    def __get__(self, instance: object, owner: type) -> Callable[..., NoReturn]:
        return _refuser(self.feature)


class NotYetModule(NotYet):
    """A group of methods to come, such as `sandbox.pty`: each raises when called."""

    def __get__(self, instance: object, owner: type) -> NotYetGroup:  # type: ignore[override]
        return NotYetGroup(self.feature)


class NotYetGroup:
    """What a NotYetModule gives: every public name in it is a method to come."""

    def __init__(self, feature: str) -> None:
        self._feature = feature

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("_"):
            raise AttributeError(name)
        return _refuser(f"{self._feature}.{name}")


def refuse_options(owner: str, options: dict[str, object]) -> None:
    """Raises NotSupportedYetException for the first option that was given.

    Leaving one out silently could leave a sandbox less closed than its caller believes.
    """
    for name, value in options.items():
        if value is not None:
            raise NotSupportedYetException(f"{owner}({name}=…)")


def _refuser(feature: str) -> Callable[..., NoReturn]:
    def refuse(*_args: object, **_options: object) -> NoReturn:
        raise NotSupportedYetException(feature)

    return refuse
