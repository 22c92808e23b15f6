"""Idempotency-Key on create."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import httpx

    from .harness import World


async def create(world: World, key: str, **body: object) -> httpx.Response:
    return await world.http.post(
        "/v2/sandboxes",
        json={"templateID": "base", **body},
        headers={"Idempotency-Key": key},
    )


async def test_the_same_key_gets_the_same_answer(world: World) -> None:
    first = await create(world, "key-1")
    second = await create(world, "key-1")
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert len(world.host.sandboxes) == 1


async def test_at_once_they_join(world: World) -> None:
    world.host.hold_create = asyncio.Event()
    both = asyncio.gather(create(world, "key-1"), create(world, "key-1"))
    await world.host.create_began.wait()
    world.host.hold_create.set()
    first, second = await both
    assert first.json() == second.json()
    assert len(world.host.sandboxes) == 1


async def test_the_same_key_for_another_request(world: World) -> None:
    await create(world, "key-1")
    answer = await create(world, "key-1", timeout=17)
    assert answer.status_code == 422
    assert answer.json()["error_code"] == "idempotency_key_reused"


async def test_a_key_whose_create_failed_may_be_tried_again(world: World) -> None:
    world.host.capacity = 0
    assert (await create(world, "key-1")).status_code == 503
    world.host.capacity = 1
    assert (await create(world, "key-1")).status_code == 201


async def test_keys_of_teams_are_apart(world: World) -> None:
    first = await create(world, "key-1")
    async with await world.other_team() as other:
        second = await other.post(
            "/v2/sandboxes", json={"templateID": "base"}, headers={"Idempotency-Key": "key-1"}
        )
    assert second.status_code == 201
    assert first.json()["sandboxID"] != second.json()["sandboxID"]


@pytest.mark.parametrize("key", ["", "Upper", "a" * 256, "a b"])
async def test_malformed(world: World, key: str) -> None:
    assert (await create(world, key)).status_code == 400
