"""`emberbox up`: the three servers of one machine under one supervisor."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emberbox.cli import ports
from emberbox.cli.console import Console
from emberbox.cli.host import HostClient, HostUnreachableError
from emberbox.cli.probes import host_probe, http_probe
from emberbox.cli.shell import Program, Shell
from emberbox.cli.upfile import UpFile
from emberbox.orchestrator.images.store import ImageStore
from emberbox.orchestrator.images.tools import BUILD_SPACE
from emberbox.shared.errors import StartupError
from emberbox.shared.home import Home, default_home
from emberbox.shared.protocol import (
    API_PORT,
    CLIENT_PROXY_PORT,
    DATA_PROXY_PORT,
    ORCHESTRATOR_PORT,
)

if TYPE_CHECKING:
    from emberbox.cli.probes import Probe

_LOOPBACK = "127.0.0.1"
_HOST = "orchestrator"
_GIB = 1 << 30
_DISK_TO_RUN = 1 * _GIB
_END_TIMEOUT = 55.0
"""Seconds for the orchestrator to end its sandboxes: below the supervisor's own patience."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line of `up` says."""

    home: Home
    api_port: int = API_PORT
    proxy_port: int = CLIENT_PROXY_PORT
    orchestrator_port: int = ORCHESTRATOR_PORT
    data_port: int = DATA_PROXY_PORT
    workers: int | None = None
    keep: bool = False
    json: bool = False

    @property
    def health_port(self) -> int:
        """Where the client proxy answers /health: beside its port, as 3003 is beside 3002."""
        return self.proxy_port + 1

    @property
    def api_url(self) -> str:
        """Base URL of the REST API."""
        return f"http://{_LOOPBACK}:{self.api_port}"

    @property
    def sandbox_url(self) -> str:
        """Base URL of traffic into sandboxes."""
        return f"http://{_LOOPBACK}:{self.proxy_port}"

    @property
    def secret_file(self) -> Path:
        """The secret the programs share."""
        configured = os.environ.get("EMBERBOX_INTERNAL_SECRET_FILE")
        return Path(configured) if configured else self.home.internal_secret


MakePrograms = Callable[[Options, HostClient], list[Program]]


@click.command()
@click.option("--home", type=click.Path(path_type=Path), help="State directory [EMBERBOX_HOME].")
@click.option("--api-port", default=API_PORT, show_default=True, help="REST API.")
@click.option("--proxy-port", default=CLIENT_PROXY_PORT, show_default=True, help="Client proxy.")
@click.option("--orchestrator-port", default=ORCHESTRATOR_PORT, show_default=True, help="gRPC.")
@click.option("--data-port", default=DATA_PROXY_PORT, show_default=True, help="Data proxy.")
@click.option("--workers", type=int, help="Worker processes of the data proxy.")
@click.option("--keep", is_flag=True, help="Leave sandboxes running on Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON when all is ready.")
def up(
    *,
    home: Path | None,
    api_port: int,
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
    where = (home or default_home()).absolute()
    options = Options(
        Home(where), api_port, proxy_port, orchestrator_port, data_port, workers, keep, as_json
    )
    if os.geteuid() != 0:
        raise StartupError("up makes network namespaces and needs root: run sudo emberbox up")
    sys.exit(run(options, programs))


def run(options: Options, make_programs: MakePrograms) -> int:
    """Check the machine, take over from a dead `up`, run; the exit status. Raises StartupError."""
    console = Console()
    record = UpFile(options.home.root / "up.json")
    record.lock()
    try:
        check_disk(options.home)
        record.stop_leftovers(console.say)
        check_ports(options)
        return asyncio.run(_supervise(options, make_programs, record, console))
    finally:
        record.release()


def check_disk(home: Home) -> None:
    """Raises StartupError when the disk below the home is too full for what is to come."""
    built = any(ImageStore(home.images).images("root"))
    needed = _DISK_TO_RUN if built else BUILD_SPACE + _DISK_TO_RUN
    free = shutil.disk_usage(home.root).free
    if free < needed:
        raise StartupError(
            f"{home.root} has {free / _GIB:.1f} GiB free and {needed / _GIB:.0f} GiB are needed: "
            "free some or pass --home on a larger disk"
        )


def check_ports(options: Options) -> None:
    """Raises StartupError that names who has a port and which flag moves ours."""
    wanted = {
        "--api-port": options.api_port,
        "--proxy-port": options.proxy_port,
        "--orchestrator-port": options.orchestrator_port,
        "--data-port": options.data_port,
    }
    if len({*wanted.values(), options.health_port}) != len(wanted) + 1:
        raise StartupError(
            f"the ports must differ from one another and from {options.health_port}, "
            "the client proxy's health port (its port + 1)"
        )
    for flag, port in [*wanted.items(), ("--proxy-port", options.health_port)]:
        holder = ports.holder(_LOOPBACK, port)
        if holder is None or (flag == "--data-port" and _is_our_data_proxy(holder, options.home)):
            continue
        raise StartupError(f"{holder}: stop it or pass {flag}")


def _is_our_data_proxy(holder: ports.Holder, home: Home) -> bool:
    """The data proxy outlives the orchestrator on purpose; the next one takes it over."""
    if holder.pid is None:
        return False
    try:
        command = Path(f"/proc/{holder.pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"emberbox.orchestrator.data_proxy" in command and bytes(home.root) in command


def programs(options: Options, client: HostClient) -> list[Program]:
    """The programs of this machine, in the order they are started and stopped."""
    home = options.home
    workers = [] if options.workers is None else ["--workers", str(options.workers)]
    orchestrator = ["--port", str(options.orchestrator_port), "--data-port", str(options.data_port)]
    api = ["--port", str(options.api_port), "--orchestrators", client.address]
    proxy = [
        *("--port", str(options.proxy_port)),
        *("--health-port", str(options.health_port)),
        *("--data-proxy", f"{_LOOPBACK}:{options.data_port}"),
    ]
    api_probe = http_probe(_LOOPBACK, options.api_port)
    proxy_probe = http_probe(_LOOPBACK, options.health_port)
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
    client = HostClient(f"{_LOOPBACK}:{options.orchestrator_port}", options.secret_file)

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


def _api_key(home: Home) -> str:
    try:
        return home.api_key.read_text().strip()
    except FileNotFoundError:
        raise StartupError(
            f"the API server made no {home.api_key}: make a key with emberbox key create "
            "and write it there"
        ) from None
