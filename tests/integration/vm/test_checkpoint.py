"""Sandboxes are copied while they run, and others begin where they were."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.integration.vm.pausing import Life, Orchestrator, PausableSandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.stack import Stack

pytestmark = [pytest.mark.vm, pytest.mark.exhaustive, pytest.mark.timeout(600)]


@pytest.fixture
def new(stack: Stack) -> Iterator[Callable[[], PausableSandbox]]:
    """Makes sandboxes that are gone after the test."""
    made: list[PausableSandbox] = []

    def make() -> PausableSandbox:
        made.append(PausableSandbox(Orchestrator(stack)))
        return made[-1]

    yield make
    for sandbox in made:
        sandbox.kill()


def test_children_begin_where_the_source_was_and_it_goes_on(
    stack: Stack, new: Callable[[], PausableSandbox]
) -> None:
    source = new()
    source.create()
    life = Life(source)
    life.begin(16)
    life.check()
    then = dataclasses.replace(life)
    made = source.checkpoint()
    assert made.memory_bytes > 16 << 20
    life.check()
    build = {"template_id": made.template.template_id, "build_id": made.template.build_id}

    children = [new() for _ in range(2)]
    for child in children:
        assert child.create(**build).notice == ""
        dataclasses.replace(then, sandbox=child).check()
        assert child.run("hostname") == child.sandbox_id
        assert child.refuses(source.token)
    life.check()

    stack.kill_program("orchestrator")
    # What a child has made its own is saved over the checkpoint that it is a clone of.
    life_of_child = dataclasses.replace(then, sandbox=children[0])
    children[0].pause()
    with pytest.raises(grpc.RpcError) as used:
        source.orchestrator.delete_build(made.template)
    assert used.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    children[0].resume()
    life_of_child.check()

    late = new()
    late.create(**build)
    dataclasses.replace(then, sandbox=late).check()
    for child in (*children, late):
        child.kill()
    source.orchestrator.delete_build(made.template)
    with pytest.raises(grpc.RpcError) as gone:
        source.orchestrator.delete_build(made.template)
    assert gone.value.code() is grpc.StatusCode.NOT_FOUND
    life.check()


def test_a_checkpoint_of_files_alone_is_booted(new: Callable[[], PausableSandbox]) -> None:
    source = new()
    source.create()
    life = Life(source)
    life.begin(4)
    life.check()
    made = source.checkpoint(files_only=True)
    assert made.memory_bytes == 0
    child = new()
    child.create(template_id=made.template.template_id, build_id=made.template.build_id)
    dataclasses.replace(life, sandbox=child).check_files()
    child.kill()
    source.orchestrator.delete_build(made.template)
    life.check()
