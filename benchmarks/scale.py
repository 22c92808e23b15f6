"""What a create and a list cost the control plane as the records grow.

The API server, Postgres and Redis are real; the hosts are simulated (`simulated_host`), so what a
VM takes is not in the figures. Each count is reached by inserting rows of sandboxes that run on the
simulated hosts, which list them; the reconciling passes over them go on while it is measured, and
their share of the API server's processor is in `background_cpu_percent`. All are of one team that
has limits, so that its quota is counted over all of them at every create.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
from sqlalchemy import insert, text

from benchmarks.figures import at_least_one, percentiles, progress
from benchmarks.simulated_host import BUILD_ID, TEMPLATE_ID, SimulatedHost
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox.api_server.configuring import CLUSTER_METADATA
from emberbox.api_server.records.lifecycle import State
from emberbox.api_server.store import Sandbox, Store
from emberbox.api_server.store.tables import sandboxes
from emberbox.shared import internal_secret
from emberbox.shared.ids import new_run_id, new_sandbox_id
from emberbox.shared.protocol import ENVD_VERSION
from scripts.free_ports import find_free_ports
from scripts.running import EMBERBOX
from tests.services import Postgres, Redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator

    from emberbox.api_server.store.rows import Team

_COUNTS = (1, 100, 1_000, 10_000)
_INSERTED_AT_ONCE = 500
_SETTLE_SECONDS = 12
"""Two passes of reconciling, after which nothing is done about the new rows any more."""
_NEVER_REACHED = 1_000_000_000
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class _Api:
    http: httpx2.AsyncClient
    pid: int

    def cpu_seconds(self) -> float:
        """What its process has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


def main(arguments: list[str]) -> dict[str, Any]:
    """Measure each count in turn."""
    parser = argparse.ArgumentParser(prog="scale")
    parser.add_argument("--records", type=at_least_one, nargs="+", default=list(_COUNTS))
    parser.add_argument("--creates", type=at_least_one, default=100, help="measured at each count")
    parser.add_argument("--hosts", type=at_least_one, default=20, help="simulated")
    return asyncio.run(_measure(parser.parse_args(arguments)))


async def _measure(given: argparse.Namespace) -> dict[str, Any]:
    found = []
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emberbox-scale-")))
        postgres_port, redis_port, api_port, internal_port = find_free_ports(
            postgres=1, redis=1, api=1, internal=1
        )
        postgres, redis = Postgres(postgres_port), Redis(redis_port)
        for service in (postgres, redis):
            stack.callback(service.remove)
            service.start()
        postgres.sql("CREATE DATABASE scale")
        environment = {
            **os.environ,
            "EMBERBOX_HOME": str(home),
            "EMBERBOX_DATABASE_URL": postgres.url("scale"),
            "EMBERBOX_REDIS_URL": redis.url,
            "EMBERBOX_ORCHESTRATORS": "",
            "EMBERBOX_API_PORT": str(api_port),
            "EMBERBOX_API_INTERNAL_PORT": str(internal_port),
        }
        hosts = [SimulatedHost(f"simulated-{n}") for n in range(given.hosts)]
        for host in hosts:
            await host.start()
            stack.push_async_callback(host.stop)
        api = await stack.enter_async_context(_serving(environment, home, api_port))
        secret = internal_secret.load_or_create(home / "internal_secret")
        beats = asyncio.create_task(_beat(hosts, f"127.0.0.1:{internal_port}", secret))
        stack.callback(beats.cancel)
        await _until_created(api)
        store = await Store.open(environment["EMBERBOX_DATABASE_URL"])
        stack.push_async_callback(store.close)
        await _limit_team(store)
        for records in sorted(given.records):
            await _grow(store, hosts, records)
            found.append(await _at(api, records, given.creates))
    return {"scale": found, "runs": given.creates, "hosts": f"{given.hosts} simulated, no VMs"}


@asynccontextmanager
async def _serving(environment: dict[str, str], home: Path, port: int) -> AsyncIterator[_Api]:
    process = await asyncio.create_subprocess_exec(
        EMBERBOX, "api-server", "--log-file", str(home / "api.log"), env=environment
    )
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            await _until_healthy(http)
            http.headers["X-API-Key"] = (home / "api_key").read_text().strip()
            yield _Api(http, process.pid)
    finally:
        process.terminate()
        await process.wait()


async def _until_healthy(http: httpx2.AsyncClient) -> None:
    while True:
        try:
            if (await http.get("/health")).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        await asyncio.sleep(0.1)


async def _until_created(api: _Api) -> None:
    while True:
        answer = await api.http.post("/v2/sandboxes", json={"templateID": "base"})
        if answer.status_code == 201:
            return
        await asyncio.sleep(0.5)  # the hosts' first word is on its way


async def _beat(hosts: list[SimulatedHost], address: str, secret: str) -> None:
    while True:
        for host in hosts:
            await host.register(address, secret)
        await asyncio.sleep(5)


async def _team(store: Store) -> Team:
    team = await store.teams.find("default")
    if team is None:
        raise RuntimeError("the API server made no team")
    return team


async def _limit_team(store: Store) -> None:
    """Without a limit nothing is counted at a create."""
    bounds = ("concurrent_sandboxes", "total_vcpu", "total_ram_mb", "total_disk_mb")
    team = await _team(store)
    await store.teams.set_limits(team.team_id, dict.fromkeys(bounds, _NEVER_REACHED))


async def _grow(store: Store, hosts: list[SimulatedHost], records: int) -> None:
    team = await _team(store)
    cluster_id = await store.cluster.cluster_id()
    there = sum(len(host.sandboxes) for host in hosts)
    while there < records:
        rows = list(_rows(team.team_id, hosts, min(_INSERTED_AT_ONCE, records - there)))
        async with store.database.write() as connection:
            await connection.execute(insert(sandboxes), [asdict(row) for row in rows])
        for row in rows:
            host = next(one for one in hosts if one.node_id == row.node_id)
            host.sandboxes[row.sandbox_id] = pb.RunningSandbox(
                sandbox_id=row.sandbox_id,
                execution_id=row.execution_id,
                state="running",
                metadata={CLUSTER_METADATA: cluster_id},
            )
        there += len(rows)
        progress("records", there, records)
    async with store.database.engine.connect() as connection:
        alone = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await alone.execute(text("VACUUM ANALYZE"))  # as autovacuum, which is off here, would
    await asyncio.sleep(_SETTLE_SECONDS)


def _rows(team_id: str, hosts: list[SimulatedHost], count: int) -> Iterator[Sandbox]:
    now = datetime.now(UTC)
    for number in range(count):
        yield Sandbox(
            sandbox_id=new_sandbox_id(),
            team_id=team_id,
            execution_id=new_run_id(),
            node_id=hosts[number % len(hosts)].node_id,
            state=State.RUNNING,
            template_id=TEMPLATE_ID,
            template_name="base",
            build_id=BUILD_ID,
            vcpu=2,
            ram_mb=512,
            disk_mb=1024,
            envd_version=ENVD_VERSION,
            secure=True,
            allow_internet_access=None,
            public_traffic=True,
            options={},
            metadata={"number": str(number)},
            started_at=now,
            end_at=now + timedelta(hours=24),
            timeout=86_400,
        )


async def _at(api: _Api, records: int, creates: int) -> dict[str, Any]:
    idle = await _background(api)
    create_ms: list[float] = []
    began, cpu = time.perf_counter(), api.cpu_seconds()
    for number in range(creates):
        create = api.http.post("/v2/sandboxes", json={"templateID": "base"})
        create_ms.append(await _timed(create))
        progress(f"creates at {records} records", number + 1, creates)
    used = api.cpu_seconds() - cpu - idle * (time.perf_counter() - began)
    query = {"limit": "100"}
    list_ms = [await _timed(api.http.get("/v2/sandboxes", params=query)) for _ in range(20)]
    return {
        "records": records,
        "create_p50_ms": percentiles(create_ms)["p50"],
        "create_p99_ms": percentiles(create_ms)["p99"],
        "list_ms": percentiles(list_ms)["p50"],
        "api_cpu_ms": round(max(used, 0) * 1000 / creates, 2),
        "background_cpu_percent": round(idle * 100, 1),
    }


async def _background(api: _Api) -> float:
    """Seconds of processor that a second takes while nobody asks for anything."""
    began, cpu = time.perf_counter(), api.cpu_seconds()
    await asyncio.sleep(10)
    return (api.cpu_seconds() - cpu) / (time.perf_counter() - began)


async def _timed(request: Coroutine[None, None, httpx2.Response]) -> float:
    began = time.perf_counter()
    answer = await request
    if answer.status_code not in (200, 201):
        raise RuntimeError(f"{answer.request.url}: {answer.status_code} {answer.text}")
    return (time.perf_counter() - began) * 1000
