"""Snapshots and forks with the official Python package."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
from e2b import (
    AuthenticationException,
    InvalidArgumentException,
    RateLimitException,
    SandboxException,
    SandboxNotFoundException,
)

from tests.compatibility.covering import covers, covers_error
from tests.compatibility.flavours import boot_of
from tests.stack import TIME_TO_BOOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.compatibility.flavours import Sdk
    from tests.stack import Stack

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

NO_SANDBOX = "i00000000000000000000"
WRONG_KEY = {"api_key": "e2b_" + "0" * 40}


async def listed(pages: Any) -> list[str]:
    """The ids of all snapshots of a list."""
    found: list[str] = []
    while pages.has_next:
        found += [snapshot.snapshot_id for snapshot in await pages.next_items()]
    return found


@covers("Sandbox.create_snapshot", "Sandbox.create", "Sandbox.delete_snapshot")
@covers_error(SandboxException, "Sandbox.delete_snapshot")
async def test_a_sandbox_of_a_snapshot(sdk: Sdk, new_box: Callable[..., Any]) -> None:
    source = await new_box()
    boot = await boot_of(source)
    await source.files.write("/dev/shm/kept", "before")
    snapshot = await source.create_snapshot()
    await source.files.write("/dev/shm/kept", "after")
    box = await new_box(snapshot.snapshot_id)
    assert box.sandbox_id != source.sandbox_id
    assert await boot_of(box) == boot
    assert await box.files.read("/dev/shm/kept") == "before"
    assert (await box.commands.run("hostname")).stdout.strip() == box.sandbox_id
    assert await source.files.read("/dev/shm/kept") == "after"
    with pytest.raises(SandboxException, match=r"400: .* used by sandboxes"):
        await sdk.Sandbox.delete_snapshot(snapshot.snapshot_id)
    await box.pause()
    with pytest.raises(SandboxException, match=r"400: .* used by sandboxes"):
        await sdk.Sandbox.delete_snapshot(snapshot.snapshot_id)
    await box.kill()
    assert await sdk.Sandbox.delete_snapshot(snapshot.snapshot_id) is True
    assert await source.delete_snapshot(snapshot.snapshot_id) is False
    with pytest.raises(SandboxException, match="404"):
        await sdk.Sandbox.create(snapshot.snapshot_id)


@covers("Sandbox.create_snapshot", "Sandbox.list_snapshots", "SnapshotPaginator.next_items")
@covers("Sandbox.create")
async def test_names_and_tags(sdk: Sdk, new_box: Callable[..., Any]) -> None:
    box = await new_box()
    name = f"named-{sdk.flavour}"
    await box.files.write("version", "1")
    first = await sdk.Sandbox.create_snapshot(box.sandbox_id, f"{name}:v1")
    await box.files.write("version", "2")
    second = await box.create_snapshot(name)
    await box.files.write("version", "3")
    third = await box.create_snapshot(name=name)
    assert (first.snapshot_id, first.names) == (f"default/{name}:v1", [f"default/{name}:v1"])
    assert second == third
    assert (second.snapshot_id, second.names) == (f"default/{name}:default", [f"default/{name}"])
    for reference, version in ((f"{name}:v1", "1"), (name, "3"), (second.snapshot_id, "3")):
        assert await (await new_box(reference)).files.read("version") == version
    both = [second.snapshot_id, first.snapshot_id]
    assert await listed(await box.list_snapshots()) == both
    assert await listed(await box.list_snapshots(limit=1)) == both
    assert await listed(await sdk.Sandbox.list_snapshots(name=name)) == both
    assert await listed(await sdk.Sandbox.list_snapshots(name=f"{name}:v1")) == both[1:]
    assert await listed(await sdk.Sandbox.list_snapshots(sandbox_id=NO_SANDBOX)) == []
    assert set(both) <= set(await listed(await sdk.Sandbox.list_snapshots()))


@covers("Sandbox.create_snapshot")
async def test_a_snapshot_of_files_alone(sdk: Sdk, new_box: Callable[..., Any]) -> None:
    source = await new_box()
    await source.files.write("kept", "on disk")
    snapshot = await source.create_snapshot(mode="filesystem")
    box = await new_box(snapshot.snapshot_id, request_timeout=TIME_TO_BOOT)
    assert await box.files.read("kept") == "on disk"
    assert await boot_of(box) != await boot_of(source)
    await box.kill()
    assert await sdk.Sandbox.delete_snapshot(snapshot.snapshot_id) is True


@covers_error(SandboxNotFoundException, "Sandbox.create_snapshot")
@covers_error(InvalidArgumentException, "Sandbox.create_snapshot")
@covers_error(SandboxException, "Sandbox.create_snapshot")
async def test_what_create_snapshot_refuses(sdk: Sdk, new_box: Callable[..., Any]) -> None:
    with pytest.raises(SandboxNotFoundException, match=NO_SANDBOX):
        await sdk.Sandbox.create_snapshot(NO_SANDBOX)
    box = await new_box()
    with pytest.raises(InvalidArgumentException, match="mode"):
        await box.create_snapshot(mode="half")
    for name in ("No Name!", "another/name"):
        with pytest.raises(SandboxException, match="400"):
            await box.create_snapshot(name)
    await box.pause()
    with pytest.raises(SandboxNotFoundException):
        await box.create_snapshot()


@covers_error(SandboxException, "SnapshotPaginator.next_items")
async def test_a_page_token_of_somebody_else(sdk: Sdk) -> None:
    pages = await sdk.Sandbox.list_snapshots(next_token="not one of ours")
    with pytest.raises(SandboxException, match="400: Invalid next token"):
        await pages.next_items()


@covers_error(AuthenticationException, "Sandbox.create_snapshot", "Sandbox.delete_snapshot")
@covers_error(AuthenticationException, "Sandbox.fork", "SnapshotPaginator.next_items")
async def test_a_wrong_key(sdk: Sdk) -> None:
    pages = await sdk.Sandbox.list_snapshots(**WRONG_KEY)
    for call in (
        sdk.Sandbox.create_snapshot(NO_SANDBOX, **WRONG_KEY),
        sdk.Sandbox.delete_snapshot("a-snapshot", **WRONG_KEY),
        sdk.Sandbox.fork(NO_SANDBOX, **WRONG_KEY),
        pages.next_items(),
    ):
        with pytest.raises(AuthenticationException, match="401"):
            await call


@covers_error(SandboxException, "Sandbox.delete_snapshot")
async def test_what_is_built_in_stays(sdk: Sdk) -> None:
    with pytest.raises(SandboxException, match=r"400: .* built in"):
        await sdk.Sandbox.delete_snapshot("base")


# Forks


@covers("Sandbox.fork")
async def test_children_go_on_from_where_the_source_is(
    sdk: Sdk, new_box: Callable[..., Any]
) -> None:
    source = await new_box(metadata={"family": "one"})
    await source.files.write("/dev/shm/name", "source")
    await source.commands.run("exec -a keeper sleep 1000", background=True)
    children = await source.fork(timeout=200, count=2)
    try:
        script = "pgrep -f '^keeper'; cat /dev/shm/name"
        before = (await source.commands.run(script)).stdout
        assert [(await child.commands.run(script)).stdout for child in children] == [before] * 2
        boxes = [source, *children]
        for number, box in enumerate(boxes):
            await box.files.write("/dev/shm/name", str(number))
        assert [await box.files.read("/dev/shm/name") for box in boxes] == ["0", "1", "2"]
        names = [(await box.commands.run("hostname")).stdout.strip() for box in boxes]
        assert names == [box.sandbox_id for box in boxes]
        random = "/proc/sys/kernel/random/uuid"
        assert len({await box.files.read(random) for box in boxes}) == 3
        info = await children[0].get_info()
        assert (info.metadata, info.name) == ({"family": "one"}, "base")
    finally:
        for child in children:
            assert await child.kill() is True


@covers("Sandbox.fork")
@covers_error(SandboxNotFoundException, "Sandbox.fork")
@covers_error(InvalidArgumentException, "Sandbox.fork")
@covers_error(SandboxException, "Sandbox.fork")
async def test_fork_by_id_and_what_it_refuses(sdk: Sdk, new_box: Callable[..., Any]) -> None:
    source = await new_box()
    (child,) = await sdk.Sandbox.fork(source.sandbox_id, timeout=100)
    assert await child.is_running()
    assert await child.kill()
    for count in (0, 21):
        with pytest.raises(InvalidArgumentException, match="count"):
            await source.fork(count=count)
    with pytest.raises(SandboxNotFoundException, match=NO_SANDBOX):
        await sdk.Sandbox.fork(NO_SANDBOX)
    await source.pause()
    with pytest.raises(SandboxException, match="409"):
        await source.fork()


@covers_error(RateLimitException, "Sandbox.fork")
async def test_each_child_succeeds_or_fails_alone(sdk: Sdk, stack: Stack) -> None:
    team = {"api_key": stack.sdk_of_new_team("--concurrent-sandboxes", "3")["api_key"]}
    source = await sdk.Sandbox.create(timeout=200, **team)
    results = await source.fork(timeout=200, count=4)
    errors = [result for result in results if isinstance(result, Exception)]
    children = [result for result in results if not isinstance(result, Exception)]
    try:
        assert [type(error) for error in errors] == [RateLimitException] * 2
        assert all([await child.is_running() for child in children])
    finally:
        for box in (source, *children):
            await box.kill()


@covers_error("401 with the token of its source", "Sandbox.fork")
async def test_no_child_answers_to_the_token_of_its_source(
    sdk: Sdk, new_box: Callable[..., Any]
) -> None:
    source = await new_box()
    snapshot = await source.create_snapshot(f"secret-{uuid.uuid4().hex[:8]}")
    (child,) = await source.fork(timeout=200)
    made = await new_box(snapshot.snapshot_id)
    try:
        tokens = {box.sandbox_id: token_of(box) for box in (source, child, made)}
        assert len(set(tokens.values())) == 3
        for sandbox_id in tokens:
            for owner, token in tokens.items():
                seen = sdk.reach(sandbox_id, 49983, token)
                if owner == sandbox_id:
                    assert (await seen.commands.run("echo mine")).stdout == "mine\n"
                else:
                    with pytest.raises(AuthenticationException):
                        await seen.commands.run("echo yours")
    finally:
        await child.kill()


def token_of(box: Any) -> str:
    """The token that envd asks for."""
    return str(box.connection_config.sandbox_headers["X-Access-Token"])
