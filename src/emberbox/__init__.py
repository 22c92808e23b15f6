"""Emberbox: microVM sandboxes on machines of one's own, driven from Python.

    from emberbox import Sandbox

    with Sandbox.create() as sandbox:
        print(sandbox.commands.run("uname -r").stdout)

The SDK is loaded when one of its names is first used: the servers and the daemon in the VM live
in this package too and do not need it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .sdk import *  # noqa: F403


def __getattr__(name: str) -> object:
    if name == "__all__" or not name.startswith("_"):
        sdk = importlib.import_module("emberbox.sdk")
        if name in (*sdk.__all__, "__all__"):
            value: object = getattr(sdk, name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *importlib.import_module("emberbox.sdk").__all__]
