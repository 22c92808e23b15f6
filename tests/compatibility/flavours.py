"""The two flavours of the official Python package behind one face, so that a test reads once.

Every method is awaited, in both: `await box.commands.run("true")`. A call of the sync flavour runs
in a thread meanwhile, so that a test can do something else at the same time.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import e2b
from packaging.version import Version

from scripts.compat_surface import CLASSES, canonical_class

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

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
        name = f"{self._name}.{attribute}"
        return lambda *arguments, **options: Call(name, self._target, value, arguments, options)


@dataclass(frozen=True, slots=True)
class Call:
    """A call that happens when it is awaited, and never otherwise."""

    name: str
    target: Any
    method: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    def __await__(self) -> Generator[Any, None, Any]:
        return self._made().__await__()

    async def _made(self) -> Any:
        CALLED.add(self.name)
        plain = [_unwrapped(argument) for argument in self.arguments]
        named = {name: _unwrapped(value) for name, value in self.options.items()}
        if _is_async(self.target):
            result = self.method(*plain, **named)
            return _wrapped(await result if inspect.isawaitable(result) else result)
        return _wrapped(await asyncio.to_thread(self.method, *plain, **named))


class Sdk:
    """One flavour of the package: its classes, by their shared names."""

    def __init__(self, flavour: str) -> None:
        self.flavour = flavour

    def __getattr__(self, name: str) -> Awaited:
        return Awaited(CLASSES[name][self.flavour], name)

    def reach(self, sandbox_id: str, port: int, token: str) -> Awaited:
        """A sandbox whose daemon is looked for at this port, with this token."""
        routing = {"E2b-Sandbox-Id": sandbox_id, "E2b-Sandbox-Port": str(port)}
        sandbox = CLASSES["Sandbox"][self.flavour](
            sandbox_id=sandbox_id,
            sandbox_domain=None,
            envd_version=Version("0.6.13"),
            envd_access_token=token,
            traffic_access_token=None,
            connection_config=e2b.ConnectionConfig(
                extra_sandbox_headers={**routing, "X-Access-Token": token}
            ),
        )
        return Awaited(sandbox, "Sandbox")

    def client(self, **options: Any) -> Client:
        """A client with a configuration of its own."""
        return Client(e2b.E2B(**options), self.flavour)


class Client:
    """The classes that a client object offers, in one flavour."""

    def __init__(self, client: e2b.E2B, flavour: str) -> None:
        self._client = client
        self._prefix = "Async" if flavour == "async" else ""

    def __getattr__(self, name: str) -> Awaited:
        CALLED.add(f"E2B.{name}")
        return Awaited(getattr(self._client, self._prefix + name), name)


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    """Ask until it is so. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        await asyncio.sleep(0.05)


async def boot_of(box: Any) -> str:
    """The id of the boot of a sandbox: another one after the next."""
    return str(await box.files.read("/proc/sys/kernel/random/boot_id"))


def _is_async(target: Any) -> bool:
    cls = target if isinstance(target, type) else type(target)
    return any(issubclass(cls, of.get("async", ())) for of in CLASSES.values())


def _wrapped(value: Any) -> Any:
    if isinstance(value, list):
        return [_wrapped(item) for item in value]
    name = canonical_class(value)
    return value if name is None else Awaited(value, name)


def _unwrapped(value: Any) -> Any:
    return value._target if isinstance(value, Awaited) else value
