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
        return refuser(self.feature)


def refuse_options(owner: str, options: dict[str, object]) -> None:
    """Raises NotSupportedYetException for the first option that was given.

    Leaving one out silently could leave a sandbox less closed than its caller believes.
    """
    for name, value in options.items():
        if value is not None:
            raise NotSupportedYetException(f"{owner}({name}=…)")


def refuser(feature: str) -> Callable[..., NoReturn]:
    """A function that raises NotSupportedYetException for a feature, whatever it is given."""

    def refuse(*_args: object, **_options: object) -> NoReturn:
        raise NotSupportedYetException(feature)

    return refuse
