"""The database as commands use it: beside a running server or without one."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

import click

from emberbox.cli.servers import load_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from redis.asyncio import Redis

    from emberbox.api_server.settings import Settings
    from emberbox.api_server.store import ApiKey, Sandbox, Store, Team

Result = TypeVar("Result")


def run(work: Callable[[Store], Coroutine[None, None, Result]]) -> Result:
    """Do `work` on the database of the settings. Raises StartupError when it cannot be used."""

    async def with_store() -> Result:
        async with _open() as store:
            return await work(store)

    return asyncio.run(with_store())


def api_settings() -> Settings:
    """The settings of the API server, as the environment gives them. Raises StartupError."""
    from emberbox.api_server.settings import Settings  # noqa: PLC0415 - not for `--help`

    return load_settings(Settings)


async def tell_servers(kind: str, subject: str) -> None:
    """Let API servers that share a Redis know at once; without one they look within seconds."""
    from emberbox.api_server.notices import publish  # noqa: PLC0415 - not for `--help`

    async with _redis() as redis:
        if redis is not None:
            await publish(redis, kind, subject)


async def drop_from_catalog(rows: Sequence[Sandbox]) -> None:
    """Let client proxies look for these no more. Without Redis there is no catalog."""
    async with _redis() as redis:
        if redis is None:
            return
        from emberbox.api_server.redis_catalog import remove_entries  # noqa: PLC0415
        from emberbox.shared.redis_connection import REDIS_ERRORS  # noqa: PLC0415

        try:
            await remove_entries(redis, rows)
        except REDIS_ERRORS as error:
            click.echo(f"the catalog keeps them for up to a day: {error}", err=True)


@asynccontextmanager
async def _redis() -> AsyncIterator[Redis | None]:
    url = api_settings().redis_url
    if not url:
        yield None
        return
    from emberbox.shared.redis_connection import open_redis  # noqa: PLC0415 - only where needed

    redis = open_redis(url)
    try:
        yield redis
    finally:
        await redis.aclose()


async def team_named(store: Store, name: str) -> Team:
    """The team of this name or id. Raises ClickException."""
    found = await store.teams.find(name)
    if found is None:
        raise click.ClickException(f"no team {name!r}: see `emberbox team list`")
    return found


def print_json(value: object) -> None:
    """One line of JSON on stdout."""
    click.echo(json.dumps(value, default=_text))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns on stdout, as wide as they need."""
    widths = [max(len(cell) for cell in column) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def as_dict(item: Team | ApiKey) -> dict[str, object]:
    """A row as JSON shows it."""
    return asdict(item)


@asynccontextmanager
async def _open() -> AsyncIterator[Store]:
    from emberbox.api_server.store import Store  # noqa: PLC0415 - not for `--help`

    store = await Store.open(api_settings().database)
    try:
        yield store
    finally:
        await store.close()


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
