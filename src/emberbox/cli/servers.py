"""`emberbox api-server | client-proxy | orchestrator`: flags over environment over defaults.

A flag is another way to write its environment variable, so that each program has one typed
settings class and one set of names; `--home /x` is `EMBERBOX_HOME=/x`.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from emberbox.cli import logfile
from emberbox.shared.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Iterable

S = TypeVar("S")

_COMM_LENGTH = 15
"""TASK_COMM_LEN of Linux without the closing NUL."""


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag of a server command and the environment variable it sets."""

    flag: str
    variable: str
    help: str

    @property
    def argument(self) -> str:
        """The name under which click hands over the value."""
        return self.flag.removeprefix("--").replace("-", "_")


_HOME = Flag("--home", "EMBERBOX_HOME", "Directory of all state.")
_SECRET = Flag(
    "--internal-secret-file",
    "EMBERBOX_INTERNAL_SECRET_FILE",
    "File with the secret that the programs share.",
)

FLAGS: dict[str, tuple[Flag, ...]] = {
    "api-server": (
        Flag("--port", "EMBERBOX_API_PORT", "REST port."),
        Flag("--host", "EMBERBOX_API_HOST", "Address to listen on."),
        Flag("--internal-port", "EMBERBOX_API_INTERNAL_PORT", "gRPC port for our own proxies."),
        _HOME,
        Flag("--database-url", "EMBERBOX_DATABASE_URL", "SQLAlchemy URL of the database."),
        Flag("--orchestrators", "EMBERBOX_ORCHESTRATORS", "host:port of each, comma separated."),
        Flag("--domain", "EMBERBOX_DOMAIN", "Domain of sandbox host names, told to clients."),
        _SECRET,
    ),
    "client-proxy": (
        Flag("--port", "EMBERBOX_PROXY_PORT", "Port for clients."),
        Flag("--host", "EMBERBOX_PROXY_HOST", "Address to listen on."),
        Flag("--health-port", "EMBERBOX_PROXY_HEALTH_PORT", "Port of GET /health."),
        Flag("--data-proxy", "EMBERBOX_DATA_PROXY_ADDRESS", "host:port of the one host there is."),
        _HOME,
        _SECRET,
    ),
    "orchestrator": (
        Flag("--port", "EMBERBOX_ORCHESTRATOR_PORT", "gRPC port."),
        Flag("--host", "EMBERBOX_ORCHESTRATOR_HOST", "Address to listen on."),
        Flag("--data-port", "EMBERBOX_DATA_PORT", "Port of the data proxy."),
        Flag("--workers", "EMBERBOX_DATA_WORKERS", "Processes of the data proxy."),
        Flag(
            "--api-internal",
            "EMBERBOX_API_INTERNAL_ADDRESS",
            "host:port of the API server's internal gRPC.",
        ),
        Flag("--driver", "EMBERBOX_DRIVER", "auto, or the driver to use (see emberbox doctor)."),
        Flag("--node-id", "EMBERBOX_NODE_ID", "Name of this host; the host name by default."),
        _HOME,
        _SECRET,
    ),
}


def run_server(program: str, values: dict[str, str | None], log_file: Path | None) -> None:
    """Run one program until it is told to stop. Raises StartupError."""
    for flag in FLAGS[program]:
        value = values.get(flag.argument)
        if value is not None:
            os.environ[flag.variable] = value
    if log_file is not None:
        logfile.keep_small(log_file)
    name_process(program)
    package = f"emberbox.{program.replace('-', '_')}"
    settings = load_settings(importlib.import_module(f"{package}.settings").Settings)
    importlib.import_module(f"{package}.main").run(settings)


def name_process(program: str) -> None:
    """Let `ps` and `top` name the program, not the interpreter."""
    Path("/proc/self/comm").write_text(program[:_COMM_LENGTH])


def load_settings(settings: type[S]) -> S:
    """Read the settings. Raises StartupError that names the first variable that is wrong."""
    from pydantic import ValidationError  # noqa: PLC0415 - needed by servers only

    try:
        return settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        variable = name if name.startswith("EMBERBOX_") else f"EMBERBOX_{name.upper()}"
        raise StartupError(f"{variable}: {first['msg']}") from error


def _command(program: str, help_text: str) -> click.Command:
    def callback(log_file: Path | None, **values: str | None) -> None:
        run_server(program, values, log_file)

    log_option = click.Option(
        ["--log-file"],
        type=click.Path(path_type=Path, dir_okay=False),
        help=f"Log here, kept below 2 x {logfile.LIMIT >> 20} MiB, instead of to stderr.",
    )
    params: list[click.Parameter] = [*_options(FLAGS[program]), log_option]
    context = {"help_option_names": ["-h", "--help"]}
    return click.Command(
        program, callback=callback, params=params, help=help_text, context_settings=context
    )


def _options(flags: Iterable[Flag]) -> list[click.Option]:
    return [click.Option([flag.flag], help=f"{flag.help} [{flag.variable}]") for flag in flags]


api_server = _command("api-server", "Run the control plane: the REST API.")
client_proxy = _command("client-proxy", "Run the data plane's edge: traffic into sandboxes.")
orchestrator = _command("orchestrator", "Run this host's VMs and its data proxy.")

COMMANDS = {"api-server": api_server, "client-proxy": client_proxy, "orchestrator": orchestrator}
