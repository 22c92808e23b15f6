"""The commands of single servers: flags are other names of environment variables."""

from __future__ import annotations

import importlib

import pytest
from click.testing import CliRunner
from pydantic_settings import BaseSettings, SettingsConfigDict

from emberbox.cli import servers
from emberbox.shared.errors import StartupError


class Small(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="EMBERBOX_")
    slot_pool: int = 4


def variables(settings: type[BaseSettings]) -> set[str]:
    aliases = {field.validation_alias for field in settings.model_fields.values()}
    named = {f"EMBERBOX_{name.upper()}" for name in settings.model_fields}
    return named | {alias for alias in aliases if isinstance(alias, str)}


@pytest.mark.parametrize("program", servers.FLAGS)
def test_every_flag_sets_a_variable_that_the_program_reads(program: str) -> None:
    module = importlib.import_module(f"emberbox.{program.replace('-', '_')}.settings")
    assert {flag.variable for flag in servers.FLAGS[program]} <= variables(module.Settings)


def test_a_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBERBOX_API_PORT", "4000")
    seen: list[int] = []
    # The settings are read for real; only what would listen is replaced.
    monkeypatch.setattr("emberbox.api_server.main.run", lambda settings: seen.append(settings.port))
    monkeypatch.setattr(servers, "name_process", lambda program: None)
    for arguments in ([], ["--port", "5000"]):
        result = CliRunner().invoke(servers.api_server, arguments, catch_exceptions=False)
        assert result.exit_code == 0
    assert seen == [4000, 5000]


def test_a_wrong_setting_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EMBERBOX_SLOT_POOL", "many")
    with pytest.raises(StartupError, match=r"^EMBERBOX_SLOT_POOL: Input should be a valid integer"):
        servers.load_settings(Small)
