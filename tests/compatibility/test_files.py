"""`sandbox.files`: what files hold, with the official Python package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from e2b import FileNotFoundException

from tests.compatibility.covering import covers, covers_error

if TYPE_CHECKING:
    from tests.compatibility.flavours import Awaited

pytestmark = [pytest.mark.vm, pytest.mark.timeout(120)]


@covers("Filesystem.write", "Filesystem.read")
async def test_what_is_written_is_read(box: Any) -> None:
    written = await box.files.write("a.txt", "content")
    assert written.path == "/home/user/a.txt"
    assert await box.files.read("/home/user/a.txt") == "content"
    assert await box.files.read("a.txt", format="bytes") == b"content"


@covers_error(FileNotFoundException, "Filesystem.read")
async def test_a_file_that_is_not_there(box: Awaited) -> None:
    with pytest.raises(FileNotFoundException, match="/home/user/none"):
        await box.files.read("/home/user/none")
