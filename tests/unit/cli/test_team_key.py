"""`emberbox team` and `emberbox key` on a real database file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from emberbox.cli.key import key
from emberbox.cli.team import team

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import click

    Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command that succeeds; its stdout."""
    monkeypatch.setenv("EMBERBOX_HOME", str(tmp_path))
    monkeypatch.delenv("EMBERBOX_DATABASE_URL", raising=False)

    def call(group: click.Group, *arguments: str, fails: bool = False) -> str:
        result = CliRunner().invoke(group, arguments)
        assert (result.exit_code != 0) == fails, result.output
        return result.stderr if fails else result.stdout

    return call


def test_the_first_key_brings_the_default_team(run: Run) -> None:
    made = run(key, "create").strip()
    assert made.startswith("e2b_")
    assert len(made) == 44
    assert [one["name"] for one in json.loads(run(team, "list", "--json"))] == ["default"]


def test_life_of_a_key(run: Run) -> None:
    team_id = run(team, "create", "blue").strip()
    made = json.loads(run(key, "create", "--team", "blue", "--name", "ci", "--json"))
    (listed,) = json.loads(run(key, "list", "--team", team_id, "--json"))
    assert listed["key_id"] == made["key_id"]
    assert listed["mask"] == f"e2b_{made['key'][4:6]}…{made['key'][-4:]}"
    assert listed["revoked_at"] is None
    assert made["key"] not in run(key, "list", "--json") + run(key, "list")
    run(key, "revoke", made["key_id"])
    assert "no valid key" in run(key, "revoke", made["key_id"], fails=True)
    (listed,) = json.loads(run(key, "list", "--json"))
    assert listed["revoked_at"] is not None


def test_limits(run: Run) -> None:
    made = json.loads(run(team, "create", "blue", "--concurrent-sandboxes", "3", "--json"))
    assert made["limits"]["concurrent_sandboxes"] == 3
    assert made["limits"]["max_vcpu"] is None
    text = run(team, "limits", "blue", "--max-vcpu", "8", "--concurrent-sandboxes", "-1")
    assert text == "max_vcpu=8\n"
    assert "max_vcpu=8" in run(team, "list")
    assert run(team, "limits", "blue", "--max-vcpu", "-1") == "unlimited\n"


def test_deleting_a_team_takes_its_keys_along(run: Run) -> None:
    run(team, "create", "blue")
    run(key, "create", "--team", "blue")
    run(team, "delete", "blue")
    assert json.loads(run(team, "list", "--json")) == []
    assert json.loads(run(key, "list", "--json")) == []


@pytest.mark.parametrize(
    ("group", "arguments", "message"),
    [
        (team, ["limits", "nobody"], "no team 'nobody'"),
        (team, ["delete", "nobody"], "no team 'nobody'"),
        (team, ["create", ""], "1 to 64 characters"),
        (key, ["create", "--team", "nobody"], "no team 'nobody'"),
        (key, ["list", "--team", "nobody"], "no team 'nobody'"),
        (key, ["revoke", "nothing"], "no valid key has the id 'nothing'"),
    ],
)
def test_mistakes_are_one_line(
    run: Run, group: click.Group, arguments: list[str], message: str
) -> None:
    output = run(group, *arguments, fails=True)
    assert message in output
    assert output.count("\n") == 1


def test_a_name_is_given_once(run: Run) -> None:
    run(team, "create", "blue")
    assert "already" in run(team, "create", "blue", fails=True)
