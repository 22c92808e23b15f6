"""Template builds on disk, and which one a host offers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import TYPE_CHECKING, Any, cast

import pytest

from emberbox.orchestrator.errors import MachineError, TemplateMissing
from emberbox.orchestrator.images import ImageStore
from emberbox.orchestrator.machines.driver import Hardware
from emberbox.orchestrator.readiness import Readiness
from emberbox.orchestrator.templates.catalog import TemplateCatalog
from emberbox.orchestrator.templates.prepare import Preparation, base_template
from emberbox.orchestrator.templates.store import (
    Manifest,
    Template,
    TemplateStore,
    build_key,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SPEC = base_template(Hardware(2, 512), 1024)


class StandInDriver:
    """A driver of which only its version matters."""

    made_with = "vmm 1"

    def __init__(self) -> None:
        self.forgotten: list[Path] = []

    def forget(self, snapshot: Any) -> None:
        self.forgotten.append(snapshot.directory)


class StandInBuilder:
    """Makes builds without a VM, or fails."""

    def __init__(self, store: TemplateStore, failure: Exception | None = None) -> None:
        self.driver = StandInDriver()
        self._store, self._failure = store, failure

    async def ensure(self, *_arguments: object) -> Template:
        if self._failure:
            raise self._failure
        return build(self._store, "new", made_with="vmm 1")


def build(store: TemplateStore, build_id: str, made_with: str = "vmm 1") -> Template:
    work = store.begin(SPEC, build_id)
    files = dict.fromkeys(("kernel", "initrd", "root", "runtime"), "/etc/hostname")
    manifest = Manifest(build_id, "k", made_with, "0.6.13", 2, 512, 1024, {}, files)
    return store.finish(SPEC, work, manifest)


@pytest.fixture
def store(tmp_path: Path) -> TemplateStore:
    return TemplateStore(tmp_path / "templates")


def preparation(
    store: TemplateStore, tmp_path: Path, builder: StandInBuilder, monkeypatch: pytest.MonkeyPatch
) -> Preparation:
    monkeypatch.setattr(
        "emberbox.orchestrator.templates.prepare.ensure_images", lambda *_, **__: None
    )
    return Preparation(
        spec=SPEC,
        images=ImageStore(tmp_path / "images"),
        templates=store,
        catalog=TemplateCatalog(),
        builder=cast("Any", builder),
        readiness=Readiness(),
        in_use=set,
    )


def test_a_build_is_found_by_what_it_was_made_with(store: TemplateStore) -> None:
    made = build(store, "b-1")
    assert store.find(SPEC, "k") == made
    assert store.find(SPEC, "other") is None


def test_what_a_crash_left_half_built_is_no_build_and_is_swept(store: TemplateStore) -> None:
    work = store.begin(SPEC, "b-1")
    assert store.builds(SPEC) == []
    store.sweep()
    assert not work.exists()


def test_a_torn_removal_is_no_build_and_is_swept(store: TemplateStore) -> None:
    made, other = build(store, "b-1"), build(store, "b-2")
    (made.directory / "template.json").unlink()
    assert store.builds(SPEC) == [other]
    store.sweep()
    assert not made.directory.exists()
    assert store.builds(SPEC) == [other]


def test_the_last_build_of_a_template_leaves_nothing(store: TemplateStore, tmp_path: Path) -> None:
    first, second = build(store, "b-1"), build(store, "b-2")
    store.remove(first)
    assert store.builds(SPEC) == [second]
    store.remove(second)
    assert list((tmp_path / "templates").iterdir()) == []
    assert build(store, "b-3").directory.exists()


def test_a_manifest_of_another_version_is_read_as_far_as_it_is_known(store: TemplateStore) -> None:
    made = build(store, "b-1")
    manifest = made.directory / "template.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "to_come": 1}))
    assert store.get(SPEC.template_id, "b-1") is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda spec, images, vmm: (spec, {**images, "root": "2"}, vmm),
        lambda spec, images, vmm: (spec, images, "vmm 2"),
        lambda _spec, images, vmm: (base_template(Hardware(1, 512), 1024), images, vmm),
    ],
)
def test_a_build_is_retaken_when_anything_it_depends_on_changes(
    change: Callable[..., tuple[Any, Any, Any]],
) -> None:
    before = (SPEC, {"root": "1"}, "vmm 1")
    assert build_key(*before) == build_key(*before)
    assert build_key(*before) != build_key(*change(*before))


def test_only_what_is_offered_can_be_asked_for(store: TemplateStore) -> None:
    catalog = TemplateCatalog()
    catalog.offer(build(store, "b-1"))
    assert catalog.get(SPEC.template_id).build_id == "b-1"
    assert catalog.get(SPEC.template_id, "b-1").build_id == "b-1"
    for wanted in (("other", ""), (SPEC.template_id, "b-2")):
        with pytest.raises(TemplateMissing):
            catalog.get(*wanted)


async def test_a_new_build_replaces_the_old_one(
    store: TemplateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = build(store, "old")
    builder = StandInBuilder(store)
    prepared = preparation(store, tmp_path, builder, monkeypatch)
    await prepared.run()
    assert prepared.catalog.get(SPEC.template_id).build_id == "new"
    assert builder.driver.forgotten == [old.directory / "snapshot"]
    assert [b.build_id for b in store.builds(SPEC)] == ["new"]


async def test_an_old_build_stays_while_a_sandbox_needs_it_and_goes_then(
    store: TemplateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(store, "old")
    builder = StandInBuilder(store)
    needed = {"old"}
    prepared = preparation(store, tmp_path, builder, monkeypatch)
    prepared = dataclasses.replace(prepared, in_use=lambda: needed, tidy_seconds=0.005)
    await prepared.run()
    assert prepared.catalog.get(SPEC.template_id).build_id == "new"
    assert {b.build_id for b in store.builds(SPEC)} == {"new", "old"}
    tidying = asyncio.create_task(prepared.keep_tidy())
    await asyncio.sleep(0.05)
    assert store.get(SPEC.template_id, "old")
    needed.clear()
    for _ in range(1000):
        if len(store.builds(SPEC)) == 1:
            break
        await asyncio.sleep(0.005)
    tidying.cancel()
    assert [b.build_id for b in store.builds(SPEC)] == ["new"]


async def test_an_older_build_goes_on_when_a_new_one_fails(
    store: TemplateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(store, "old")
    builder = StandInBuilder(store, MachineError("no boot"))
    prepared = preparation(store, tmp_path, builder, monkeypatch)
    await prepared.run()
    assert prepared.readiness.ready
    assert prepared.catalog.get(SPEC.template_id).build_id == "old"


async def test_sandboxes_boot_from_a_build_of_another_vmm_until_there_is_a_new_one(
    store: TemplateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(store, "old", made_with="vmm 0")
    builder = StandInBuilder(store)
    prepared = preparation(store, tmp_path, builder, monkeypatch)
    go, ensure = asyncio.Event(), builder.ensure

    async def ensure_later(_spec: object, _images: object, report: Callable[[str], None]) -> Any:
        report("booting")
        await go.wait()
        return await ensure()

    monkeypatch.setattr(builder, "ensure", ensure_later)
    preparing = asyncio.create_task(prepared.run())
    while prepared.readiness.status != "booting":  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    assert prepared.readiness.ready
    assert prepared.catalog.get(SPEC.template_id).build_id == "old"
    go.set()
    await preparing
    assert prepared.catalog.get(SPEC.template_id).build_id == "new"
    assert prepared.readiness.status == "ready"


async def test_a_build_of_another_vmm_is_not_enough_when_there_will_be_no_other(
    store: TemplateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(store, "old", made_with="vmm 0")
    builder = StandInBuilder(store, MachineError("no boot"))
    with pytest.raises(MachineError, match="no boot"):
        await preparation(store, tmp_path, builder, monkeypatch).run()
