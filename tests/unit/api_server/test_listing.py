"""Lists: filters, order, pages."""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emberbox.api_server.listing import decode_metadata

from .standin import BASE_ID

if TYPE_CHECKING:
    from .harness import World


async def ids(world: World, query: str = "", path: str = "/v2/sandboxes") -> list[str]:
    answer = await world.http.get(f"{path}{query}")
    assert answer.status_code == 200, answer.text
    return [one["sandboxID"] for one in answer.json()]


async def test_newest_first_in_both_generations(world: World) -> None:
    made = [await world.created() for _ in range(3)]
    assert await ids(world) == made[::-1]
    assert await ids(world, path="/sandboxes") == made[::-1]
    assert await ids(world, "?order=asc") == made


async def test_an_element_has_the_required_fields_and_no_token(world: World) -> None:
    await world.created(metadata={"a": "b"})
    (one,) = (await world.http.get("/v2/sandboxes")).json()
    assert set(one) == {
        "templateID", "sandboxID", "clientID", "startedAt", "endAt", "cpuCount", "memoryMB",
        "diskSizeMB", "state", "envdVersion", "alias", "metadata",
    }  # fmt: skip


async def test_a_killed_one_is_not_listed(world: World) -> None:
    gone, here = await world.created(), await world.created()
    await world.http.delete(f"/sandboxes/{gone}")
    assert await ids(world) == [here]


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages(world: World, order: str) -> None:
    made = [await world.created() for _ in range(5)]
    found, token = [], ""
    while True:
        query = f"?limit=2&order={order}" + (f"&nextToken={token}" if token else "")
        answer = await world.http.get(f"/v2/sandboxes{query}")
        found.append([one["sandboxID"] for one in answer.json()])
        token = urllib.parse.quote(answer.headers.get("x-next-token", ""))
        if not token:
            break
    expected = made if order == "asc" else made[::-1]
    assert found == [expected[:2], expected[2:4], expected[4:]]


@pytest.mark.parametrize("token", ["x", "eA==", "%00", "MjAyNi0wMS0wMVQwMDowMDowMF9fYQ=="])
async def test_malformed_tokens(world: World, token: str) -> None:
    answer = await world.http.get(f"/v2/sandboxes?nextToken={token}")
    assert answer.json() == {"code": 400, "message": "Invalid next token"}


@pytest.mark.parametrize(("state", "count"), [("running", 1), ("running,paused", 1), ("paused", 0)])
async def test_state(world: World, state: str, count: int) -> None:
    await world.created()
    assert len(await ids(world, f"?state={state}")) == count


@pytest.mark.parametrize(
    "query", ["state=dead", "limit=0", "limit=101", "limit=x", "order=up", "startedAfter=x"]
)
async def test_wrong_values(world: World, query: str) -> None:
    answer = await world.http.get(f"/v2/sandboxes?{query}")
    assert answer.status_code == 400
    assert answer.json()["code"] == 400
    assert query.partition("=")[0] in answer.json()["message"]


async def test_template_and_start(world: World) -> None:
    first, second = await world.created(), await world.created()
    assert len(await ids(world, "?template=base")) == 2
    assert len(await ids(world, f"?template={BASE_ID}")) == 2
    assert await ids(world, "?template=unknown") == []
    moment = (await world.row(first)).started_at.isoformat()
    assert await ids(world, f"?startedAfter={urllib.parse.quote(moment)}") == [second]


@pytest.mark.parametrize(
    "wire",
    [
        "a%252520b%3Dc%252Fd",  # Python SDK
        "a%252520b%3Dc%25252Fd",  # JavaScript SDK
    ],
)
async def test_metadata_as_the_sdks_write_them(world: World, wire: str) -> None:
    wanted = await world.created(metadata={"a b": "c/d", "more": "x"})
    await world.created(metadata={"a b": "other"})
    assert await ids(world, f"?metadata={wire}") == [wanted]
    assert await ids(world, f"?metadata={wire}", "/sandboxes") == [wanted]
    assert await ids(world, "?metadata=more%3Dx%26a%252520b%3Dnope") == []


async def test_pages_of_matches_only(world: World) -> None:
    made = [await world.created(metadata={"n": str(number % 2)}) for number in range(6)]
    answer = await world.http.get("/v2/sandboxes?metadata=n%3D1&limit=2&order=asc")
    assert [one["sandboxID"] for one in answer.json()] == [made[1], made[3]]
    token = answer.headers["x-next-token"]
    answer = await world.http.get(
        "/v2/sandboxes",
        params={"metadata": "n=1", "limit": 2, "order": "asc", "nextToken": token},
    )
    assert [one["sandboxID"] for one in answer.json()] == [made[5]]
    assert "x-next-token" not in answer.headers


@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=5))
def test_metadata_survive_the_encoding_of_the_python_sdk(metadata: dict[str, str]) -> None:
    quoted = {urllib.parse.quote(key): urllib.parse.quote(value) for key, value in metadata.items()}
    assert decode_metadata(urllib.parse.urlencode(quoted)) == metadata
