"""Paused sandboxes outlive new versions of the VMM and of envd, and templates are retaken."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import emberbox
from emberbox import Sandbox
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from emberbox.orchestrator.images import ImageStore
from emberbox.orchestrator.machines.probe import QEMU_BINARY
from emberbox.orchestrator.snapshots.local import MANIFEST_FILE
from emberbox.orchestrator.snapshots.manifest import Snapshot
from emberbox.orchestrator.templates.prepare import BASE_TEMPLATE_ID
from emberbox.shared.protocol import ENVD_VERSION
from tests.integration.vm.pausing import Life, Orchestrator, PausableSandbox
from tests.stack import LANE, Stack, wait_until
from tests.stack_fixtures import new_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import FreePorts

pytestmark = [pytest.mark.vm, pytest.mark.exhaustive, pytest.mark.timeout(1500)]

BUILD_SECONDS = 600
TIDY_SECONDS = 120
NETWORK = {
    "EMBERBOX_NODE_ID": f"upgrade-tests-{LANE}",
    "EMBERBOX_NETWORK_RANGE": f"10.205.{16 * LANE}.0/20",
    "EMBERBOX_DNS_PORT": str(10553 + LANE),
}
NEW_ENVD = "99.0.1"
NEW_VMM = "99.0.2 (another)"


def test_after_a_recorded_change_it_boots_from_its_files_and_says_so(stack: Stack) -> None:
    sandbox = PausableSandbox(Orchestrator(stack))
    sandbox.create(env_vars={"KEPT": "yes"})
    life = Life(sandbox)
    life.begin(4)
    life.check()
    sandbox.pause()
    path = stack.home.snapshots / sandbox.sandbox_id / MANIFEST_FILE
    snapshot = Snapshot.from_json(path.read_bytes())
    older = dataclasses.replace(snapshot, made_with="an older VMM", envd_version="0.0.1")
    path.write_bytes(older.to_json())

    answer = sandbox.resume()
    assert "booted from its files" in answer.notice
    assert "an older VMM" in answer.notice
    assert any("an older VMM" in line for line in stack.story_of(sandbox.sandbox_id))
    life.check_files()
    assert sandbox.run("echo $KEPT") == "yes"

    # What was booted can be paused with its memory, too.
    life.begin(4)
    life.check()
    assert sandbox.pause().memory
    assert sandbox.resume().notice == ""
    life.check()
    sandbox.kill()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory that a VMM's uid can reach: pytest's own are closed to others."""
    made = Path("/tmp") / f"emberbox-{tmp_path.name}-{os.getpid()}"
    made.mkdir(mode=0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def own(free_ports: FreePorts, place: Path) -> Iterator[Stack]:
    """A stack of the test's own, whose runtime images are its own as well."""
    home = place / "home"
    home.mkdir()
    made = new_stack(free_ports, home, **NETWORK)
    shared = (home / "images" / "runtime").resolve()
    (home / "images" / "runtime").unlink()
    (home / "images" / "runtime").mkdir()
    for image in shared.iterdir():
        (home / "images" / "runtime" / image.name).symlink_to(image)
    made.start()
    yield made
    assert made.stop() == 0


def test_another_envd_serves_the_new_and_the_paused_keep_theirs(own: Stack, place: Path) -> None:
    paused = PausableSandbox(Orchestrator(own))
    paused.create()
    life = Life(paused)
    life.begin(4)
    life.check()
    paused.pause()
    [old] = builds(own)
    pinned = runtime_of(own, old)
    assert own.stop() == 0

    own.start(PYTHONPATH=str(another_emberbox(place)))
    # The older build serves while images and template are made anew, which is told.
    wait_until(lambda: status(own) != "ready", 30)
    assert builds(own) == [old]
    meanwhile = Sandbox.create(timeout=1200, **own.sdk)
    assert meanwhile.get_info().envd_version == ENVD_VERSION
    wait_until(lambda: builds(own) not in ([], [old]), BUILD_SECONDS)
    wait_until(lambda: status(own) == "ready", 30)
    with Sandbox.create(timeout=300, **own.sdk) as newest:
        assert newest.get_info().envd_version == NEW_ENVD

    # Nothing that the paused one stands on has gone: it goes on where it was.
    assert ImageStore(own.home.images).pins(pinned)
    assert paused.resume().notice == ""
    life.check()
    assert paused.pause().memory
    meanwhile.kill()
    assert paused.resume().notice == ""
    life.check()
    assert ImageStore(own.home.images).pins(pinned)

    # With the last sandbox that stands on it the older build goes, and what it kept.
    paused.kill()
    wait_until(lambda: not ImageStore(own.home.images).pins(pinned), TIDY_SECONDS)
    assert not (own.home.templates / BASE_TEMPLATE_ID / old).exists()


def test_another_vmm_boots_the_paused_from_their_files_and_retakes_templates(
    own: Stack, place: Path
) -> None:
    paused = PausableSandbox(Orchestrator(own))
    paused.create()
    life = Life(paused)
    life.begin(4)
    life.check()
    paused.pause()
    [old] = builds(own)
    assert own.stop() == 0

    own.start(PATH=f"{another_vmm(place)}:{os.environ['PATH']}")
    # Memory cannot be loaded any more, files can: until the template is retaken they are booted.
    meanwhile = PausableSandbox(Orchestrator(own))
    assert builds(own) == [old]
    assert "booted from its files" in meanwhile.create().notice
    meanwhile.kill()
    wait_until(lambda: builds(own) not in ([], [old]), BUILD_SECONDS)
    with Sandbox.create(timeout=300, **own.sdk) as newest:
        story = own.story_of(newest.sandbox_id)
        assert any("cloned" in line or "made of the warm clone" in line for line in story)

    answer = paused.resume()
    assert "booted from its files" in answer.notice
    assert f"here: {NEW_VMM}" in answer.notice
    assert answer.notice in "\n".join(own.story_of(paused.sandbox_id))
    life.check_files()
    paused.kill()


def another_emberbox(place: Path) -> Path:
    """This package with an envd of another version: a directory for PYTHONPATH."""
    source = Path(emberbox.__file__).parent
    copy = place / "python" / "emberbox"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    # Where a checkout has the lock of envd's packages.
    shutil.copytree(source.parent.parent / "requirements", place / "requirements")
    for module in ("envd/state.py", "shared/protocol.py"):
        text = (copy / module).read_text()
        changed = text.replace(f'"{ENVD_VERSION}"', f'"{NEW_ENVD}"')
        assert changed != text, module
        (copy / module).write_text(changed)
    return copy.parent


def another_vmm(place: Path) -> Path:
    """The QEMU of this machine under another version: a directory for PATH."""
    real = shutil.which(QEMU_BINARY)
    told = f'[ "$1" != --version ] || {{ echo "QEMU emulator version {NEW_VMM}"; exit; }}'
    program = place / "bin" / QEMU_BINARY
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n{told}\nexec {real} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return program.parent


def builds(stack: Stack) -> list[str]:
    """What the host offers of the base template."""
    request = pb.TemplateListRequest()
    answer = Orchestrator(stack).ask(pb_grpc.TemplateServiceStub, "List", request)
    return [one.build_id for one in answer.templates]


def status(stack: Stack) -> str:
    """What the host says that it is doing; it must take sandboxes."""
    request = pb.ServiceInfoRequest()
    answer = Orchestrator(stack).ask(pb_grpc.InfoServiceStub, "ServiceInfo", request)
    assert answer.ready
    return str(answer.status)


def runtime_of(stack: Stack, build: str) -> str:
    """The runtime image that a build was made on."""
    manifest = (stack.home.templates / BASE_TEMPLATE_ID / build / "template.json").read_text()
    found = re.search(r'"runtime": "([0-9a-f]+)"', manifest)
    assert found is not None
    return found[1]
