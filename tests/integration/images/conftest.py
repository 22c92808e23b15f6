from __future__ import annotations

import os

import pytest

from emberbox.orchestrator.images import ImageSet, ImageStore, ensure_images
from emberbox.shared.home import Home, default_home


@pytest.fixture(scope="session")
def store() -> ImageStore:
    """The store of this machine: images are made once and shared by all runs."""
    return ImageStore(Home(default_home()).images)


@pytest.fixture(scope="session")
def images(store: ImageStore) -> ImageSet:
    """The images of this checkout."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it builds images")
    return ensure_images(store)
