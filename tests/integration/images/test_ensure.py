"""A second build finds everything: no tool, no network, no new file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.images import current_hashes, ensure_images, find_images

if TYPE_CHECKING:
    from pathlib import Path

    from emberbox.orchestrator.images import ImageSet, ImageStore

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]


def test_a_second_build_needs_nothing(
    images: ImageSet, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listing() -> list[tuple[Path, int]]:
        return [(path, path.stat().st_mtime_ns) for path in sorted(store.root.rglob("*"))]

    before = listing()
    # Neither apt nor pip nor mkfs can be found.
    monkeypatch.setenv("PATH", "/nonexistent")

    assert ensure_images(store) == images
    assert find_images(store) == images
    assert listing() == before


def test_manifests_tell_what_the_images_were_made_from(images: ImageSet, store: ImageStore) -> None:
    root = store.get("root", images.hashes["root"])
    kernel = store.get("kernel", images.hashes["kernel"])
    assert root is not None
    assert kernel is not None

    versions = {package.name: package.version for package in root.manifest.packages}
    assert {"bash", "nodejs", "npm", "git", "sudo", "libc6"} <= versions.keys()
    assert root.manifest.files["root.ext4"].size == images.root.stat().st_size
    assert kernel.manifest.facts["version"] == images.kernel_version
    assert current_hashes(store) == set(images.hashes.values())
