"""Methods that work on a sandbox at hand and, called on the class, on a sandbox id."""

from __future__ import annotations

import functools
from types import MethodType
from typing import TYPE_CHECKING, Concatenate, Generic, ParamSpec, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")


class InstanceOrClass(Generic[T, P, R, Q, S]):
    """`sandbox.kill()` and `Sandbox.kill(sandbox_id)` under one name.

    `Sandbox.kill(sandbox)` works too, as it does for any method.
    """

    def __init__(
        self,
        of_instance: Callable[Concatenate[T, P], R],
        of_class: Callable[Concatenate[type[T], Q], S],
    ) -> None:
        self.of_instance = of_instance
        self.of_class = of_class
        self.__doc__ = of_instance.__doc__

    @overload
    def __get__(self, instance: None, owner: type[T]) -> Callable[Q, S]: ...

    @overload
    def __get__(self, instance: T, owner: type[T]) -> Callable[P, R]: ...

    def __get__(self, instance: T | None, owner: type[T]) -> Callable[Q, S] | Callable[P, R]:
        if instance is not None:
            bound: Callable[P, R] = MethodType(self.of_instance, instance)
            return bound

        @functools.wraps(self.of_class)
        def on_class(*args: Q.args, **options: Q.kwargs) -> S:
            if args and isinstance(args[0], owner):
                return self.of_instance(*args, **options)  # type: ignore[return-value, arg-type]
            return self.of_class(owner, *args, **options)

        return on_class
