"""The store: whole or absent, never twice, pruned only when nothing needs it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.images.manifest import Manifest, Package, hash_of, key_of
from emberbox.orchestrator.images.store import Image, ImageStore

if TYPE_CHECKING:
    from pathlib import Path

READER = "import sys; f = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
PACKAGES = (Package("busybox", "1.0", "amd64"),)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def make(store: ImageStore, content: str = "kernel", recipe: str = "1") -> Image:
    inputs = {"recipe": recipe, "content": content}
    key = key_of("kernel", inputs)
    with store.draft() as draft:
        (draft / "vmlinuz").write_text(content)
        manifest = Manifest("kernel", key, hash_of(key, PACKAGES), inputs, PACKAGES)
        return store.add(draft, manifest, time.monotonic())


def test_an_image_is_found_by_its_inputs_with_its_manifest(store: ImageStore) -> None:
    image = make(store)

    found = store.find("kernel", key_of("kernel", {"content": "kernel", "recipe": "1"}))

    assert found == image
    assert found.manifest.packages == PACKAGES
    assert found.manifest.files["vmlinuz"].size == len("kernel")
    assert found.file("vmlinuz").read_text() == "kernel"
    assert found.file("vmlinuz").stat().st_mode & 0o777 == 0o444


def test_other_inputs_are_another_image(store: ImageStore) -> None:
    make(store)

    assert store.find("kernel", key_of("kernel", {"content": "kernel", "recipe": "2"})) is None


def test_the_newest_of_one_recipe_is_taken(store: ImageStore) -> None:
    old = make(store)
    newer_packages = (Package("busybox", "2.0", "amd64"),)
    key = old.manifest.key
    with store.draft() as draft:
        (draft / "vmlinuz").write_text("newer")
        manifest = Manifest("kernel", key, hash_of(key, newer_packages), {}, newer_packages)
        new = store.add(draft, manifest, time.monotonic())

    assert new.hash != old.hash
    assert store.find("kernel", key) == new
    assert store.get("kernel", old.hash) == old


def test_an_image_that_is_there_stays_as_it_is(store: ImageStore) -> None:
    first = make(store)
    assert make(store) == first
    assert list(store.images()) == [first]


def test_a_draft_that_fails_leaves_nothing(store: ImageStore) -> None:
    def make_half() -> None:
        with store.draft() as draft:
            (draft / "vmlinuz").write_text("half")
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        make_half()

    assert list((store.root / "work").iterdir()) == []
    assert list(store.images()) == []


def test_what_a_crash_left_is_swept_by_the_next_build(store: ImageStore) -> None:
    left = store.root / "work" / "tmpcrash"
    left.mkdir(parents=True)
    (left / "vmlinuz").write_text("half")

    with store.building():
        assert not left.exists()


def test_a_directory_without_a_manifest_is_no_image(store: ImageStore) -> None:
    image = make(store)
    image.file("manifest.json").unlink()

    assert list(store.images()) == []
    assert store.get("kernel", image.hash) is None


def test_two_builders_exclude_one_another(store: ImageStore) -> None:
    with store.building():
        fd = os.open(store.root / "build.lock", os.O_RDWR)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(fd)


def test_prune_removes_what_nobody_needs(store: ImageStore) -> None:
    current, pinned, loose = (make(store, name) for name in ("current", "pinned", "loose"))
    store.pin(pinned.hash, "template:base")

    removed = store.prune([current.hash])

    assert removed == [loose]
    assert list(store.images()) == sorted((current, pinned), key=lambda image: image.path)
    assert list((store.root / "work").iterdir()) == []


def test_prune_leaves_an_image_that_a_process_has_open(store: ImageStore) -> None:
    image = make(store)
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, image.file("vmlinuz")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert reader.stdout is not None
    with reader:
        assert reader.stdout.readline() == b"open\n"
        assert store.prune([]) == []
        reader.communicate()

    assert store.prune([]) == [image]


def test_a_pin_holds_until_each_holder_has_let_go(store: ImageStore) -> None:
    image = make(store)
    store.pin(image.hash, "template:base")
    store.pin(image.hash, "sandbox:iabc")
    store.pin(image.hash, "sandbox:iabc")
    assert store.pins(image.hash) == {"template:base", "sandbox:iabc"}

    store.unpin(image.hash, "template:base")
    assert store.prune([]) == []

    store.unpin(image.hash, "sandbox:iabc")
    store.unpin(image.hash, "sandbox:iabc")
    assert store.prune([]) == [image]


def test_only_an_image_that_is_there_can_be_pinned(store: ImageStore) -> None:
    with pytest.raises(FileNotFoundError, match=r"no image 0{32}"):
        store.pin("0" * 32, "template:base")


@pytest.mark.parametrize("name", ["", "../x", ".hidden", "a/b", "x" * 201, "a b"])
def test_a_holder_has_a_name_that_is_a_plain_file_name(store: ImageStore, name: str) -> None:
    image = make(store)

    with pytest.raises(ValueError, match="letters, digits"):
        store.pin(image.hash, name)


def test_a_hash_is_never_a_path(store: ImageStore) -> None:
    with pytest.raises(ValueError, match="32 hex digits"):
        store.pin("../../etc", "x")
