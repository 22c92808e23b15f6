from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.network.policy import OPEN
from emberbox.orchestrator.processes import ProcessIdentity
from emberbox.orchestrator.sandboxes.records import RECORD_FILE, RunDirectories, SandboxRecord

if TYPE_CHECKING:
    from pathlib import Path

RECORD = SandboxRecord(
    sandbox_id="iabc",
    execution_id="e-1",
    template_id="t",
    build_id="b",
    slot=7,
    vcpu=2,
    ram_mb=512,
    disk_mb=1024,
    egress=OPEN,
    start_time=1.5,
    end_time=2.5,
    metadata={"k": "v"},
)


@pytest.fixture
def directories(tmp_path: Path) -> RunDirectories:
    return RunDirectories(tmp_path / "sandboxes")


def test_a_record_is_read_as_it_was_written(directories: RunDirectories) -> None:
    directories.create(RECORD)
    whole = dataclasses.replace(
        RECORD,
        process=ProcessIdentity(1, 2, "boot"),
        running=True,
        traffic_token="secret",
        ended=("killed", "asked"),
    )
    directories.save(whole)
    assert directories.load_all() == [whole]


def test_run_directories_are_roots_alone(directories: RunDirectories) -> None:
    path = directories.create(RECORD)
    assert path.stat().st_mode & 0o777 == 0o700
    assert (path / RECORD_FILE).stat().st_mode & 0o777 == 0o600


def test_an_id_is_taken_once(directories: RunDirectories) -> None:
    directories.create(RECORD)
    with pytest.raises(FileExistsError):
        directories.create(RECORD)


def test_what_a_crash_left_without_a_record_is_swept(directories: RunDirectories) -> None:
    path = directories.create(RECORD)
    (path / RECORD_FILE).unlink()
    assert directories.load_all() == []
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"sandbox_id": "iabc"}'])
def test_a_record_that_cannot_be_read_is_left_for_a_person(
    directories: RunDirectories, content: bytes
) -> None:
    path = directories.create(RECORD)
    (path / RECORD_FILE).write_bytes(content)
    assert directories.load_all() == []
    assert (path / RECORD_FILE).read_bytes() == content


def test_a_newer_version_may_have_written_more(directories: RunDirectories) -> None:
    path = directories.create(RECORD) / RECORD_FILE
    path.write_text(path.read_text().replace("{", '{"from_the_future": 1, ', 1))
    assert directories.load_all() == [RECORD]


def test_an_older_version_wrote_no_envd_token(directories: RunDirectories) -> None:
    path = directories.create(dataclasses.replace(RECORD, envd_token="secret")) / RECORD_FILE
    assert "secret" not in repr(directories.load_all())
    assert directories.load_all()[0].envd_token == "secret"
    path.write_text(path.read_text().replace('"envd_token": "secret", ', ""))
    assert directories.load_all() == [RECORD]


def test_saving_brings_back_no_directory(directories: RunDirectories) -> None:
    directories.save(RECORD)
    assert directories.load_all() == []


def test_removing_leaves_nothing_and_twice_is_once(directories: RunDirectories) -> None:
    path = directories.create(RECORD)
    directories.remove("iabc")
    directories.remove("iabc")
    assert not path.exists()
