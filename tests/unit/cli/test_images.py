"""`emberbox images` on a store that needs no build."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from emberbox.cli.images import images
from emberbox.orchestrator.images import ImageStore
from emberbox.orchestrator.images.errors import BadSettingError
from emberbox.orchestrator.images.manifest import Manifest, hash_of, key_of
from emberbox.shared.home import Home

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    """A store with one image of another version of Emberbox."""
    made = ImageStore(Home(tmp_path).images)
    key = key_of("runtime", {"recipe": "0"})
    with made.draft() as draft:
        (draft / "runtime.ext4").write_text("old")
        made.add(draft, Manifest("runtime", key, hash_of(key, ()), {}), time.monotonic())
    return made


def invoke(home: Path, *arguments: str) -> str:
    result = CliRunner().invoke(
        images, ["--home", str(home), *arguments], catch_exceptions=False, env={}
    )
    assert result.exit_code == 0
    return result.output


def test_list_shows_who_needs_an_image(store: ImageStore, tmp_path: Path) -> None:
    (image,) = store.images()
    store.pin(image.hash, "template:base")

    shown = invoke(tmp_path, "list")

    assert image.hash in shown
    assert "template:base" in shown


def test_prune_removes_and_names_what_nothing_needs(store: ImageStore, tmp_path: Path) -> None:
    (image,) = store.images()

    assert invoke(tmp_path, "prune") == f"removed runtime {image.hash}\n1 images removed\n"
    assert invoke(tmp_path, "prune") == "0 images removed\n"


def test_modules_without_a_kernel_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSettingError, match="needs EMBERBOX_KERNEL: correct"):
        invoke(tmp_path, "--kernel-modules", str(tmp_path), "list")
