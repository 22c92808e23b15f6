"""Helper processes: recorded, found again, told apart from those of another version."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator import helpers
from emberbox.orchestrator.helpers import Helper
from emberbox.orchestrator.processes import kill_and_wait

if TYPE_CHECKING:
    from pathlib import Path


def helper(directory: Path, *arguments: str) -> Helper:
    # Something of the standard library that runs until it is killed.
    words = ("--bind", "127.0.0.1", *arguments, "0")
    return Helper("http.server", words, directory / "record.json", directory / "log")


async def test_a_helper_is_found_again(tmp_path: Path) -> None:
    identity = helper(tmp_path).start()
    try:
        found = helper(tmp_path).recorded()
        other = helper(tmp_path, "--protocol", "HTTP/1.1").recorded()
    finally:
        await kill_and_wait(identity)
    assert found == helpers.Recorded(identity, fits=True)
    assert other == helpers.Recorded(identity, fits=False)
    assert helper(tmp_path).recorded() is None
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


async def test_a_helper_of_another_version_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = helper(tmp_path).start()
    try:
        monkeypatch.setattr(helpers, "version", lambda name: f"newer {name}")
        assert helper(tmp_path).recorded() == helpers.Recorded(identity, fits=False)
    finally:
        await kill_and_wait(identity)


@pytest.mark.parametrize("record", ["", "[]", "{}", json.dumps({"process": {"pid": 1}}), "\udcff"])
def test_a_damaged_record_is_like_none(tmp_path: Path, record: str) -> None:
    made = helper(tmp_path)
    assert made.recorded() is None
    made.record.write_bytes(record.encode(errors="surrogateescape"))
    assert made.recorded() is None
    made.forget()
    made.forget()
