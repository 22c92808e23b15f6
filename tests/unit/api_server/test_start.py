"""Start-up: migrations, the first key, refusals, and the end by a signal."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import httpx
import pytest
from pydantic import ValidationError

from emberbox.api_server import main
from emberbox.api_server.bootstrap import ensure_default_key, refuse_public_without_keys
from emberbox.api_server.clock import utc_now
from emberbox.api_server.settings import Settings
from emberbox.api_server.store import Store
from emberbox.api_server.store.rows import Limits
from emberbox.api_server.tokens import SandboxTokens, hash_api_key, mask_api_key, new_api_key
from emberbox.shared.errors import StartupError
from emberbox.shared.home import Home

if TYPE_CHECKING:
    from pathlib import Path


def settings(home: Path, **values: object) -> Settings:
    return Settings(home=home, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["nonsense", "sqlite+aiosqlite:////proc/nowhere/x.db"])
async def test_a_database_that_cannot_be_used(url: str) -> None:
    with pytest.raises(StartupError):
        await Store.open(url)


async def test_another_database_is_refused_in_one_line() -> None:
    with pytest.raises(StartupError, match=r"^EMBERBOX_DATABASE_URL: mysql is no .*$") as refused:
        await Store.open("mysql+aiomysql://db/emberbox")
    assert "\n" not in str(refused.value)


async def test_a_postgres_that_is_not_there(free_port: int) -> None:
    with pytest.raises(StartupError, match="cannot be used") as refused:
        await Store.open(f"postgresql://emberbox:hidden@127.0.0.1:{free_port}/emberbox")
    assert "hidden" not in str(refused.value)


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    Home(tmp_path).database.write_text("not a database, but long enough to be read as one" * 99)
    with pytest.raises(StartupError, match="cannot be used"):
        await Store.open(settings(tmp_path).database)


async def test_the_first_key_is_made_once(tmp_path: Path) -> None:
    home = Home(tmp_path)
    store = await Store.open(settings(tmp_path).database)
    await asyncio.gather(*(ensure_default_key(store, home) for _ in range(3)))
    key = home.api_key.read_text().strip()
    assert home.api_key.stat().st_mode & 0o777 == 0o600
    assert [team.name for team in await store.teams.list()] == ["default"]
    assert len(await store.keys.list()) == 1
    key_hash = hash_api_key(key)
    assert key_hash is not None
    assert await store.keys.team_of_hash(key_hash) is not None
    await store.close()


async def test_a_lost_database_keeps_the_key(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for name in ("first", "second"):
        store = await Store.open(f"sqlite+aiosqlite:///{tmp_path / name}.db")
        await ensure_default_key(store, home)
        key_hash = hash_api_key(home.api_key.read_text().strip())
        assert key_hash is not None
        assert await store.keys.team_of_hash(key_hash) is not None
        await store.close()


@pytest.mark.parametrize("lost", ["never written", "deleted", "revoked"])
async def test_the_key_file_holds_a_key_that_works(tmp_path: Path, lost: str) -> None:
    home = Home(tmp_path)
    store = await Store.open(settings(tmp_path).database)
    if lost == "never written":
        await store.teams.create("default", Limits(), utc_now())  # by `emberbox key create`
    else:
        await ensure_default_key(store, home)
        first = home.api_key.read_text()
        if lost == "deleted":
            home.api_key.unlink()
        else:
            await store.keys.revoke((await store.keys.list())[0].key_id, utc_now())
    await ensure_default_key(store, home)
    if lost != "never written":
        assert home.api_key.read_text() != first
    key_hash = hash_api_key(home.api_key.read_text().strip())
    assert key_hash is not None
    found = await store.keys.team_of_hash(key_hash)
    assert found is not None
    assert found[1].name == "default"
    keys = len(await store.keys.list())
    await ensure_default_key(store, home)
    assert len(await store.keys.list()) == keys
    await store.close()


async def test_no_key_is_made_for_a_default_team_that_was_deleted(tmp_path: Path) -> None:
    home = Home(tmp_path)
    store = await Store.open(settings(tmp_path).database)
    await store.teams.create("research", Limits(), utc_now())
    await ensure_default_key(store, home)
    assert not home.api_key.exists()
    assert [team.name for team in await store.teams.list()] == ["research"]
    await store.close()


async def test_a_key_file_with_something_else(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.api_key.write_text("hello")
    store = await Store.open(settings(tmp_path).database)
    with pytest.raises(StartupError, match="does not hold an API key"):
        await ensure_default_key(store, home)
    assert await store.teams.list() == []
    await store.close()


async def test_public_addresses_need_a_key(tmp_path: Path) -> None:
    store = await Store.open(settings(tmp_path).database)
    for host in ("127.0.0.1", "::1", "localhost"):
        await refuse_public_without_keys(store, host)
    for host in ("0.0.0.0", "192.0.2.1", "::", "api.example"):
        with pytest.raises(StartupError, match="refusing to listen"):
            await refuse_public_without_keys(store, host)
    await ensure_default_key(store, Home(tmp_path))
    await refuse_public_without_keys(store, "0.0.0.0")
    await store.close()


def test_a_busy_port_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=f"port {port} of 127.0.0.1 is in use"):
            main._listen("127.0.0.1", port)


@pytest.mark.parametrize("value", ["host", "host:port", "a:1,b", ":8080", "a:99999"])
def test_addresses_of_orchestrators(tmp_path: Path, value: str) -> None:
    with pytest.raises(ValidationError, match="EMBERBOX_ORCHESTRATORS"):
        settings(tmp_path, orchestrators=value)


def test_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMBERBOX_HOME", str(tmp_path))
    monkeypatch.setenv("EMBERBOX_API_PORT", "4000")
    monkeypatch.setenv("EMBERBOX_ORCHESTRATORS", "a:1, b:2")
    read = Settings()
    assert (read.home, read.port) == (tmp_path, 4000)
    assert read.orchestrator_addresses == ("a:1", "b:2")
    assert read.secret_path == tmp_path / "internal_secret"


async def test_sigterm_is_a_normal_end(tmp_path: Path, free_port: int) -> None:
    environment = {
        **os.environ,
        "EMBERBOX_HOME": str(tmp_path),
        "EMBERBOX_API_PORT": str(free_port),
        "EMBERBOX_API_INTERNAL_PORT": "0",
        "EMBERBOX_ORCHESTRATORS": "127.0.0.1:1",
    }
    code = (
        "from emberbox.api_server.main import run\n"
        "from emberbox.api_server.settings import Settings\n"
        "run(Settings())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, env=environment, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    while b'"serving"' not in (line := await process.stderr.readline()):
        assert line, "the server ended before it served"
    key = Home(tmp_path).api_key.read_text().strip()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{free_port}") as http:
        assert (await http.get("/health")).status_code == 200
        answer = await http.post(
            "/v2/sandboxes", json={"templateID": "base"}, headers={"X-API-KEY": key}
        )
        assert answer.status_code == 503
    process.send_signal(signal.SIGTERM)
    output = await process.stderr.read()
    assert await process.wait() == 0, output
    assert key.encode() not in output


def test_keys_are_stored_as_their_hash() -> None:
    # SHA-256 of the 20 decoded bytes, base64 without padding (infra 1.1).
    known = "$sha256$3kfJsn640wDbtfLDU+Yyw5MmLPBjQMT6fxtAxMvTb5A"
    assert hash_api_key("e2b_" + "00" * 20) == known
    key = new_api_key()
    assert len(key) == 44
    assert str(mask_api_key(key)) == f"e2b_{key[4:6]}…{key[-4:]}"
    assert hash_api_key("sk_e2b_00") is None
    assert hash_api_key("e2b_Ä0") is None


def test_tokens_are_derived_from_the_seed() -> None:
    tokens = SandboxTokens("seed")
    assert tokens.envd("i1") == SandboxTokens("seed").envd("i1")
    assert len({tokens.envd("i1"), tokens.traffic("i1"), tokens.envd("i2")}) == 3
    assert SandboxTokens("other").envd("i1") != tokens.envd("i1")
