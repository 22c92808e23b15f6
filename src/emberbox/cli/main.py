"""Entry points of `emberbox` and of the thin executables `api-server`, `client-proxy` and
`orchestrator`.

Nothing outside the standard library is imported before the commands are known to be
installed: `pip install emberbox` brings the SDK alone, and these scripts with it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

from emberbox.shared.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> NoReturn:
    """`emberbox …`."""

    def command() -> None:
        from emberbox.cli.commands import emberbox  # noqa: PLC0415 - see the module's docstring

        emberbox(prog_name="emberbox")

    _run(command)


def api_server() -> NoReturn:
    """`api-server …`, the same as `emberbox api-server …`."""
    _run_server("api-server")


def client_proxy() -> NoReturn:
    """`client-proxy …`, the same as `emberbox client-proxy …`."""
    _run_server("client-proxy")


def orchestrator() -> NoReturn:
    """`orchestrator …`, the same as `emberbox orchestrator …`."""
    _run_server("orchestrator")


def _run_server(name: str) -> NoReturn:
    def command() -> None:
        from emberbox.cli.servers import COMMANDS  # noqa: PLC0415 - see the module's docstring

        COMMANDS[name](prog_name=name)

    _run(command)


def _run(command: Callable[[], None]) -> NoReturn:
    """Run a command; what a person can mend is one line on stderr, with exit status 1."""
    try:
        command()
    except StartupError as error:
        sys.exit(f"emberbox: {error}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "emberbox":
            raise
        sys.exit(
            f"emberbox: the servers are not installed ({error.name} is missing): "
            "run pip install 'emberbox[server]'"
        )
    sys.exit(0)
