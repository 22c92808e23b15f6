"""`emberbox up`: the three servers of one machine under one supervisor."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emberbox.cli.console import Console
from emberbox.cli.host import HostClient, HostUnreachableError
from emberbox.cli.options import Options, reached, read_settings
from emberbox.cli.preflight import check_disk, check_ports
from emberbox.cli.probes import host_probe, http_probe
from emberbox.cli.processes import how_to_call
from emberbox.cli.shell import Program, Shell
from emberbox.cli.upfile import UpFile
from emberbox.shared import internal_secret
from emberbox.shared.errors import StartupError
from emberbox.shared.home import Home, default_home
from emberbox.shared.protocol import (
    API_INTERNAL_PORT,
    API_PORT,
    CLIENT_PROXY_PORT,
    DATA_PROXY_PORT,
    ORCHESTRATOR_PORT,
)

if TYPE_CHECKING:
    from emberbox.cli.probes import Probe

_HOST = "orchestrator"
_END_TIMEOUT = 55.0
"""Seconds for the orchestrator to end its sandboxes: below the supervisor's own patience."""


MakePrograms = Callable[[Options, HostClient], list[Program]]


def _port(
    flag: str, variable: str, default: int, text: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    kind = click.IntRange(1, 65535)
    help_text = f"{text} [{variable}]"
    return click.option(
        flag, type=kind, default=default, envvar=variable, show_default=True, help=help_text
    )


@click.command()
@click.option("--home", type=click.Path(path_type=Path), help="State directory [EMBERBOX_HOME].")
@_port("--api-port", "EMBERBOX_API_PORT", API_PORT, "REST API.")
@_port(
    "--api-internal-port",
    "EMBERBOX_API_INTERNAL_PORT",
    API_INTERNAL_PORT,
    "gRPC of the API server for our own proxies.",
)
@_port("--proxy-port", "EMBERBOX_PROXY_PORT", CLIENT_PROXY_PORT, "Client proxy; health beside it.")
@_port("--orchestrator-port", "EMBERBOX_ORCHESTRATOR_PORT", ORCHESTRATOR_PORT, "gRPC.")
@_port("--data-port", "EMBERBOX_DATA_PORT", DATA_PROXY_PORT, "Data proxy.")
@click.option("--workers", type=int, help="Worker processes of the data proxy.")
@click.option("--keep", is_flag=True, help="Leave sandboxes running on Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON when all is ready.")
def up(
    *,
    home: Path | None,
    api_port: int,
    api_internal_port: int,
    proxy_port: int,
    orchestrator_port: int,
    data_port: int,
    workers: int | None,
    keep: bool,
    as_json: bool,
) -> None:
    """Run all three servers on this machine until Ctrl-C.

    Ctrl-C ends the sandboxes after saying how many; --keep leaves them to the next up.
    """
    if os.geteuid() != 0:
        raise StartupError(
            f"up makes network namespaces and needs root: run sudo {how_to_call()} up"
        )
    hosts, node = read_settings()
    options = Options(
        Home((home or default_home()).absolute()),
        api_port=api_port,
        api_internal_port=api_internal_port,
        proxy_port=proxy_port,
        orchestrator_port=orchestrator_port,
        data_port=data_port,
        workers=workers,
        keep=keep,
        json=as_json,
        hosts=hosts,
        node=node,
    )
    sys.exit(run(options, programs))


def run(options: Options, make_programs: MakePrograms) -> int:
    """Check the machine, take over from a dead `up`, run; the exit status. Raises StartupError."""
    console = Console()
    record = UpFile(options.home.root / "up.json")
    record.lock()
    try:
        check_disk(options)
        record.stop_leftovers(console.say)
        check_ports(options)
        return asyncio.run(_supervise(options, make_programs, record, console))
    finally:
        record.release()


def programs(options: Options, client: HostClient) -> list[Program]:
    """The programs of this machine, in the order they are started and stopped."""
    home = options.home
    workers = [] if options.workers is None else ["--workers", str(options.workers)]
    orchestrator = [
        *("--port", str(options.orchestrator_port)),
        *("--data-port", str(options.data_port)),
        *("--api-internal", options.api_internal_address),
    ]
    api = [
        *("--port", str(options.api_port)),
        *("--internal-port", str(options.api_internal_port)),
        *("--orchestrators", client.address),
    ]
    proxy = [
        *("--port", str(options.proxy_port)),
        *("--health-port", str(options.health_port)),
        *("--data-proxy", options.data_address),
    ]
    api_probe = http_probe(reached(options.hosts.api), options.api_port)
    proxy_probe = http_probe(reached(options.hosts.health), options.health_port)
    return [
        _program(_HOST, home, [*orchestrator, *workers], host_probe(client)),
        _program("api-server", home, api, api_probe),
        _program("client-proxy", home, proxy, proxy_probe),
    ]


def _program(name: str, home: Home, arguments: list[str], probe: Probe) -> Program:
    log = home.root / "logs" / f"{name}.log"
    # -P: the directory `up` happens to be started in is no place to import from as root.
    interpreter = [sys.executable, "-P", "-m", "emberbox.cli", name]
    argv = [*interpreter, "--home", str(home.root), "--log-file", str(log), *arguments]
    return Program(name, argv, log, probe)


@dataclass(frozen=True, slots=True)
class SandboxesOfHost:
    """How `up` ends what runs on this machine before it ends the programs."""

    client: HostClient
    keep: bool

    async def end(self, say: Callable[[str], None]) -> None:
        """Say how many sandboxes end, then end them; a failure is said and leaves them be."""
        try:
            count = (await self.client.info()).sandboxes
            say(_ending(count, keep=self.keep))
            await self.client.shutdown(keep_sandboxes=self.keep, timeout=_END_TIMEOUT)
        except HostUnreachableError as error:
            say(f"the orchestrator did not end its sandboxes ({error}): the next up has them")


def _ending(count: int, *, keep: bool) -> str:
    if not count:
        return "stopping; no sandbox runs"
    sandboxes = "1 sandbox" if count == 1 else f"{count} sandboxes"
    if keep:
        return f"stopping; {sandboxes} left running for the next up"
    return f"stopping; ending {sandboxes} (Ctrl-C again: leave those that remain)"


def announcement(options: Options, api_key: str) -> str:
    """What stdout gets when all is ready: one line of JSON, or lines for a shell."""
    if options.json:
        facts = {
            "api_url": options.api_url,
            "sandbox_url": options.sandbox_url,
            "api_key": api_key,
            "domain": _domain(options),
            "orchestrator": options.orchestrator_address,
            "home": str(options.home.root),
            "pid": os.getpid(),
        }
        return json.dumps(facts)
    values = {"API_KEY": api_key, "API_URL": options.api_url, "SANDBOX_URL": options.sandbox_url}
    ours = [f"export EMBERBOX_{name}={value}" for name, value in values.items()]
    official = [f"export E2B_{name}={value}" for name, value in values.items()]
    return "\n".join(["# emberbox", *ours, "# the official e2b SDKs", *official])


def _domain(options: Options) -> str:
    """The suffix of sandbox host names, `<port>-<id>.<domain>`."""
    return os.environ.get("EMBERBOX_DOMAIN") or f"localhost:{options.proxy_port}"


async def _supervise(
    options: Options, make_programs: MakePrograms, record: UpFile, console: Console
) -> int:
    client = HostClient(options.orchestrator_address, _secret(options.secret_file))

    def announce() -> None:
        click.echo(announcement(options, _api_key(options.home)))
        console.say("ready; Ctrl-C stops")

    shell = Shell(
        programs=make_programs(options, client),
        host=SandboxesOfHost(client, options.keep),
        host_name=_HOST,
        record=record,
        console=console,
        announce=announce,
    )
    return await shell.run()


def _secret(path: Path) -> str:
    """Read once: what changes the file later must not keep `up` from stopping in order."""
    try:
        return internal_secret.load_or_create(path)
    except OSError as error:
        raise StartupError(f"{path} cannot be read: {error.strerror}") from error


def _api_key(home: Home) -> str:
    try:
        return home.api_key.read_text().strip()
    except FileNotFoundError:
        raise StartupError(
            f"the API server made no {home.api_key}, as there is no team default: run "
            f"{how_to_call()} team create default and start again"
        ) from None
