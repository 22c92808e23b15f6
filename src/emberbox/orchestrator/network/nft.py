"""Loading and reading nftables rules through the `nft` program (never on the create path)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TypedDict

from emberbox.orchestrator.network.errors import RulesRefusedError


class BaseChain(TypedDict, total=False):
    """A chain that hangs on a hook, as nft's JSON describes it."""

    family: str
    table: str
    name: str
    hook: str
    prio: int
    policy: str


_TIMEOUT_S = 30
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def find_tool(name: str) -> str | None:
    """A system tool's path; tools of root are not on everyone's PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")


def load(rules: str) -> None:
    """Load rules in one transaction in the calling thread's namespace.

    A child starts in the namespace of the thread that starts it. Raises RulesRefusedError.
    """
    done = _run("-f", "-", given=rules)
    if done.returncode != 0:
        raise RulesRefusedError(done.stderr)


def delete_table(family: str, name: str) -> None:
    """Remove a table; `add` first makes that succeed when it is absent."""
    load(f"add table {family} {name}\ndelete table {family} {name}\n")


def base_chains() -> list[BaseChain]:
    """The chains of the namespace that hang on a hook. Raises RulesRefusedError."""
    done = _run("-j", "list", "chains")
    if done.returncode != 0:
        raise RulesRefusedError(done.stderr)
    objects = json.loads(done.stdout)["nftables"]
    return [o["chain"] for o in objects if "chain" in o and "hook" in o["chain"]]


def _run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    tool = find_tool("nft")
    if tool is None:
        raise RulesRefusedError("the program nft is missing; install the package nftables")
    try:
        return subprocess.run(
            [tool, *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RulesRefusedError(f"no answer within {_TIMEOUT_S} s") from error
