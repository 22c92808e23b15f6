"""The real `up` with stand-in programs.

standin_up.py HOME API_PORT PROXY_PORT ORCHESTRATOR_PORT DATA_PORT [--keep] [--hang]
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from emberbox.cli.options import Options
from emberbox.cli.probes import host_probe, http_probe
from emberbox.cli.shell import Program
from emberbox.cli.up import run
from emberbox.shared.errors import StartupError
from emberbox.shared.home import Home

if TYPE_CHECKING:
    from emberbox.cli.host import HostClient

HERE = Path(__file__).parent


def programs(options: Options, client: HostClient, *, hang: bool) -> list[Program]:
    home = options.home.root
    host = [sys.executable, HERE / "standin_host.py", options.orchestrator_port, home, int(hang)]
    web_ports = {"api-server": options.api_port, "client-proxy": options.health_port}
    return [
        Program(
            "orchestrator", list(map(str, host)), log(home, "orchestrator"), host_probe(client)
        ),
        *(web(home, name, port) for name, port in web_ports.items()),
    ]


def web(home: Path, name: str, port: int) -> Program:
    argv = [sys.executable, str(HERE / "standin_web.py"), str(port), str(home), name]
    return Program(name, argv, log(home, name), http_probe("127.0.0.1", port))


def log(home: Path, name: str) -> Path:
    return home / "logs" / f"{name}.log"


def main(
    home: str, api: str, internal: str, proxy: str, orchestrator: str, data: str, *flags: str
) -> int:
    options = Options(
        Home(Path(home)),
        api_port=int(api),
        api_internal_port=int(internal),
        proxy_port=int(proxy),
        orchestrator_port=int(orchestrator),
        data_port=int(data),
        keep="--keep" in flags,
        json=True,
    )
    try:
        return run(options, partial(programs, hang="--hang" in flags))
    except StartupError as error:
        sys.exit(f"emberbox: {error}")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
