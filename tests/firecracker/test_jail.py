"""cgroups that jailers leave behind."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from emberbox.orchestrator.errors import MachineGone
from emberbox.orchestrator.machines.firecracker import jail
from emberbox.orchestrator.machines.firecracker.facts import Facts


@pytest.fixture
def cgroup(tmp_path: Path) -> Path:
    made = tmp_path / jail.PARENT_CGROUP / "emberbox-n-i1"
    made.mkdir(parents=True)
    return made


def busy(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """The kernel needs so many tries until the processes of a cgroup are gone."""
    real, left = Path.rmdir, [times]

    def rmdir(self: Path) -> None:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EBUSY, "Device or resource busy")
        real(self)

    monkeypatch.setattr(Path, "rmdir", rmdir)
    monkeypatch.setattr(jail, "_CGROUP_WAIT", 0)


async def test_it_is_waited_for(
    cgroup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy(monkeypatch, 3)
    await jail.remove_cgroup(tmp_path, cgroup.name)
    assert not any(cgroup.parent.iterdir())
    await jail.remove_cgroup(tmp_path, cgroup.name)


async def test_one_that_stays_is_told(
    cgroup: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (cgroup / "child").mkdir()
    await jail.remove_cgroup(tmp_path, cgroup.name)
    assert "Directory not empty" in capsys.readouterr().out
    busy(monkeypatch, 1000)
    await jail.remove_cgroup(tmp_path, cgroup.name)
    assert "it is in use" in capsys.readouterr().out


def test_facts_of_another_version(tmp_path: Path) -> None:
    facts = Facts("name", "made with", "1.16.1", 512, loaded=True)
    facts.write(tmp_path)
    file = tmp_path / "vmm.json"
    file.write_text(file.read_text().replace("{", '{"later": 1, ', 1))
    assert Facts.read(tmp_path) == facts
    file.write_text("[]")
    with pytest.raises(MachineGone):
        Facts.read(tmp_path)
