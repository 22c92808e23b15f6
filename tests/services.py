"""Postgres, Redis and nginx for the tests: real servers of their own, on free ports, with a
temporary directory, as an unprivileged user. None is a service of the machine."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_USER = "nobody"
_UNPACKED = Path(__file__).parents[1] / ".tools" / "usr" / "sbin"
"""Where scripts/install puts what it does not install."""
_START_SECONDS = 60
_PASSWORD = "of-the-tests"


class Service:
    """One server process. It listens on `host`, and keeps its port and files over restarts."""

    in_order = signal.SIGTERM
    """Ends it without waiting for its clients."""
    at_once = signal.SIGKILL

    def __init__(self, name: str, port: int, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = port
        self.directory = Path(tempfile.mkdtemp(prefix=f"emberbox-{name}-"))
        if os.geteuid() == 0:
            owner = pwd.getpwnam(_USER)
            os.chown(self.directory, owner.pw_uid, owner.pw_gid)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The running server."""
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it was started, and not ended."""
        return self._process is not None

    def argv(self) -> Sequence[str]:
        """How it is started."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_unprivileged(), *self.argv()], stdout=log, stderr=log, cwd=self.directory
            )
        self._wait_until(self.answers)

    def answers(self) -> bool:
        """Whether it takes work."""
        raise NotImplementedError

    def end(self, number: signal.Signals | None = None) -> None:
        """End the process, in order or by a signal, and wait for that; its files stay."""
        if self._process is None:
            return
        self._process.send_signal(number or self.in_order)
        self._process.wait(_START_SECONDS)
        self._process = None

    def remove(self) -> None:
        """End it and remove its files."""
        self.end(self.at_once)
        shutil.rmtree(self.directory)

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not condition():
            assert self._process is not None
            assert self._process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < deadline, (self.directory / "log").read_text()
            time.sleep(0.02)


class Postgres(Service):
    """A cluster of its own. It skips fsync: a killed process loses nothing by that."""

    in_order = signal.SIGINT
    at_once = signal.SIGQUIT  # SIGKILL would leave its children for a moment

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        super().__init__("postgres", port, host)
        self._bin = _postgres_directory()
        (self.directory / "password").write_text(_PASSWORD)
        (self.directory / "password").chmod(0o644)
        _run(
            [*_unprivileged(), self._bin / "initdb"],
            *("--pgdata", "data", "--username", "emberbox", "--pwfile", "password"),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"),
            cwd=self.directory,
        )
        if host != "127.0.0.1":
            with (self.directory / "data" / "pg_hba.conf").open("a") as rules:
                rules.write("host all all samenet scram-sha-256\n")

    def argv(self) -> Sequence[str]:
        """Small, and without durability against a loss of power."""
        settings = {
            "listen_addresses": self.host,
            "unix_socket_directories": str(self.directory),
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "shared_buffers": "32MB",
            "max_connections": "100",
            "autovacuum": "off",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self._bin / "postgres"), "-D", "data", "-p", str(self.port), *options]

    def answers(self) -> bool:
        """Whether it takes connections."""
        ready = [str(self._bin / "pg_isready"), "-q", "-h", self.host, "-p", str(self.port)]
        return subprocess.run(ready, check=False).returncode == 0

    def url(self, database: str) -> str:
        """For EMBERBOX_DATABASE_URL."""
        return f"postgresql://emberbox:{_PASSWORD}@{self.host}:{self.port}/{database}"

    def sql(self, text: str, database: str = "postgres") -> str:
        """What a statement answers, a line a row, tabs between the columns."""
        return _run(
            [self._bin / "psql"],
            *("--no-psqlrc", "--tuples-only", "--no-align", "--quiet", "--field-separator", "\t"),
            *("--set", "ON_ERROR_STOP=1", self.url(database)),
            text=text,
        )


class Redis(Service):
    """A server that keeps nothing on disk: after a restart it is empty."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        super().__init__("redis", port, host)

    def argv(self) -> Sequence[str]:
        """In memory alone."""
        return [
            _program("redis-server"),
            *("--port", str(self.port), "--bind", self.host, "--requirepass", _PASSWORD),
            *("--save", "", "--appendonly", "no"),
        ]

    def answers(self) -> bool:
        """Whether it takes connections."""
        return _takes_connections(self.host, self.port)

    def command(self, *words: str) -> str:
        """What it answers to a command."""
        argv = [_program("redis-cli"), "-h", self.host, "-p", str(self.port)]
        return _run(argv, "--no-auth-warning", "-a", _PASSWORD, *words)

    @property
    def url(self) -> str:
        """For EMBERBOX_REDIS_URL."""
        return f"redis://:{_PASSWORD}@{self.host}:{self.port}/0"


class Nginx(Service):
    """A load balancer; `config` is what stands in its `http` block."""

    def __init__(self, port: int, config: str, host: str = "127.0.0.1") -> None:
        super().__init__("nginx", port, host)
        places = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "\n".join(f"{place}_temp_path {self.directory}/{place};" for place in places)
        (self.directory / "nginx.conf").write_text(
            f"daemon off; worker_processes 1; pid {self.directory}/pid; error_log stderr;\n"
            f"events {{ worker_connections 1024; }}\n"
            f"http {{ access_log off;\n{temporary}\n{config}\n}}\n"
        )

    def argv(self) -> Sequence[str]:
        """In the foreground."""
        config = str(self.directory / "nginx.conf")
        return [_program("nginx"), "-p", str(self.directory), "-e", "stderr", "-c", config]

    def answers(self) -> bool:
        """Whether it takes connections."""
        return _takes_connections(self.host, self.port)


def _takes_connections(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def _run(argv: Sequence[str | Path], *more: str, text: str = "", cwd: Path | None = None) -> str:
    done = subprocess.run(
        [*argv, *more],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=_START_SECONDS,
        cwd=cwd,
    )
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def _unprivileged() -> list[str]:
    # Not by arguments of Popen: that would fork this process, whose gRPC does not take it.
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={_USER}", f"--regid={_gid()}", "--clear-groups"]


def _gid() -> int:
    return pwd.getpwnam(_USER).pw_gid


def _program(name: str) -> str:
    places = (os.environ["PATH"], "/usr/sbin", "/sbin", str(_UNPACKED))
    found = shutil.which(name, path=os.pathsep.join(places))
    assert found is not None, f"{name} is missing: run make install"
    return found


def _postgres_directory() -> Path:
    versions = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    newest = max(versions, key=lambda path: int(path.parts[4]), default=None)
    return newest.parent if newest else Path(_program("postgres")).parent
