"""Guest images: kernel, initrd, runtime image and base root image, and the store of them.

`ensure_images` is the way in; `disks` makes the scratch disk of a sandbox.
"""

from __future__ import annotations

from emberbox.orchestrator.images.ensure import (
    ImageSet,
    current_hashes,
    ensure_images,
    ensure_kernel,
    find_images,
)
from emberbox.orchestrator.images.errors import ImageError
from emberbox.orchestrator.images.kernel import OwnKernel
from emberbox.orchestrator.images.progress import Progress, Silent
from emberbox.orchestrator.images.store import Image, ImageStore

__all__ = [
    "Image",
    "ImageError",
    "ImageSet",
    "ImageStore",
    "OwnKernel",
    "Progress",
    "Silent",
    "current_hashes",
    "ensure_images",
    "ensure_kernel",
    "find_images",
]
