"""The two flavours of the official Python package behind one face, so that a test reads once.

Every method is awaited, in both: `await box.commands.run("true")`. A call of the sync flavour runs
in a thread meanwhile, so that a test can do something else at the same time.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from scripts.compat_surface import CLASSES, canonical_class

CALLED: set[str] = set()
"""The methods that were called since this was last emptied, as "Class.method"."""


class Awaited:
    """A class or an object of the package; calls give plain values or more of these."""

    def __init__(self, target: Any, name: str) -> None:
        self._target = target
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._target, attribute)
        if not callable(value):
            return _wrapped(value)
        method = f"{self._name}.{attribute}"

        async def call(*arguments: Any, **options: Any) -> Any:
            CALLED.add(method)
            return _wrapped(await _called(self._target, value, arguments, options))

        return call


class Sdk:
    """One flavour of the package: its classes, by their shared names."""

    def __init__(self, flavour: str) -> None:
        self.flavour = flavour

    def __getattr__(self, name: str) -> Awaited:
        return Awaited(CLASSES[name][self.flavour], name)


async def _called(
    target: Any, method: Any, arguments: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    plain = [_unwrapped(argument) for argument in arguments]
    named = {name: _unwrapped(value) for name, value in options.items()}
    if "async" in _flavours_of(target):
        result = method(*plain, **named)
        return await result if inspect.isawaitable(result) else result
    return await asyncio.to_thread(method, *plain, **named)


def _flavours_of(target: Any) -> set[str]:
    cls = target if isinstance(target, type) else type(target)
    return {
        flavour
        for flavours in CLASSES.values()
        for flavour, known in flavours.items()
        if issubclass(cls, known)
    }


def _wrapped(value: Any) -> Any:
    if isinstance(value, list):
        return [_wrapped(item) for item in value]
    name = canonical_class(value)
    return value if name is None else Awaited(value, name)


def _unwrapped(value: Any) -> Any:
    return value._target if isinstance(value, Awaited) else value
