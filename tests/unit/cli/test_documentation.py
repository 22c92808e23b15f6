"""What the pages tell people to type exists."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import click
import pytest

from emberbox.cli.commands import emberbox
from emberbox.cli.servers import COMMANDS
from emberbox.cli.up import up

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(emberbox [^`]+)`")
PROGRAMS: dict[str, click.Command] = {"emberbox": emberbox, **COMMANDS}


def documented() -> list[str]:
    """Every line of a page, in a block or within a sentence, that calls one of our programs."""
    lines = []
    for page in PAGES:
        text = page.read_text()
        lines += [line for block in FENCED.findall(text) for line in block.splitlines()]
        lines += INLINE.findall(FENCED.sub("", text).replace("\n", " "))
    return sorted({line for line in lines if program_of(line) in PROGRAMS})


def program_of(line: str) -> str:
    words = words_of(line)
    return words[0] if words else ""


def words_of(line: str) -> list[str]:
    """The words that the program gets, its name first."""
    words = shlex.split(line, comments=True)
    while words and words[0] == "sudo":
        words.pop(0)
    return [Path(words[0]).name, *words[1:]] if words else []


def test_there_are_such_lines() -> None:
    assert len(documented()) > 10


@pytest.mark.parametrize("line", documented())
def test_a_documented_command_is_understood(line: str) -> None:
    name, *words = words_of(line)
    command = PROGRAMS[name]
    while isinstance(command, click.Group) and words:
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"there is no command {words[0]!r}"
        command, name, words = found, words[0], words[1:]
    if not isinstance(command, click.Group):
        command.make_context(name, words)  # parses and calls nothing; raises UsageError


def variables(program: str) -> set[str]:
    """The environment variables that a program reads."""
    settings = importlib.import_module(f"emberbox.{program.replace('-', '_')}.settings").Settings
    fields = settings.model_fields.items()
    return {field.validation_alias or f"EMBERBOX_{name.upper()}" for name, field in fields}


@pytest.mark.parametrize("program", COMMANDS)
def test_every_setting_is_documented(program: str) -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    missing = {name for name in variables(program) if f"`{name}`" not in text}
    assert not missing


def test_every_documented_variable_is_read_by_something() -> None:
    known = {name for program in COMMANDS for name in variables(program)}
    named = set(re.findall(r"EMBERBOX_[A-Z0-9_]+", (ROOT / "docs" / "operating.md").read_text()))
    assert named <= known


def test_every_flag_of_up_is_documented() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    flags = {flag for option in up.params for flag in option.opts}
    assert {flag for flag in flags if f"`{flag}`" not in text} == set()
