"""The host's apt sources, read from files of the forms that apt knows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.images.errors import ImageError
from emberbox.orchestrator.images.sources import read_sources

if TYPE_CHECKING:
    from pathlib import Path

KEY = "/usr/share/keyrings/example.gpg"


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host whose apt reads its sources from here alone."""
    directory = tmp_path / "parts"
    directory.mkdir()
    configuration = tmp_path / "apt.conf"
    configuration.write_text(
        f'Dir::Etc::sourcelist "/dev/null";\nDir::Etc::sourceparts "{directory}";\n'
        f'Dir::State::lists "{tmp_path}/lists";\n'
    )
    monkeypatch.setitem(os.environ, "APT_CONFIG", str(configuration))
    return directory


def test_stanzas_with_their_own_keys(parts: Path) -> None:
    (parts / "a.sources").write_text(
        "Types: deb\n# a comment\nURIs: http://mirror.invalid/debian\n"
        "Suites: bookworm bookworm-updates\nComponents: main\n\n"
        "Types: deb deb-src\nURIs: http://security.invalid/\nSuites: bookworm-security\n"
        f"Components: main\nSigned-By: {KEY}\n"
    )

    found = [(each.uri, each.suite, each.signed_by) for each in read_sources("bookworm")]

    assert found == [
        ("http://mirror.invalid/debian/", "bookworm", None),
        ("http://mirror.invalid/debian/", "bookworm-updates", None),
        ("http://security.invalid/", "bookworm-security", KEY),
    ]


def test_one_line_entries(parts: Path) -> None:
    (parts / "a.list").write_text(
        f"# the mirror\ndeb [signed-by={KEY}] http://mirror.invalid/debian bookworm main contrib\n"
    )

    found = read_sources("bookworm")

    assert [(each.component, each.signed_by) for each in found] == [("main", KEY), ("contrib", KEY)]


def test_a_key_within_the_stanza_is_kept_whole(parts: Path) -> None:
    key = " -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc=\n -----END PGP PUBLIC KEY BLOCK-----"
    (parts / "a.sources").write_text(
        "Types: deb\nURIs: http://mirror.invalid/debian\nSuites: bookworm\n"
        f"Components: main\nSigned-By:\n{key}\nArchitectures: amd64\n"
    )

    (source,) = read_sources("bookworm")

    assert source.to_deb822().endswith(f"Signed-By: \n{key}\n")


def test_third_parties_stay_out(parts: Path) -> None:
    (parts / "a.list").write_text(
        "deb http://mirror.invalid/debian bookworm main\n"
        "deb http://third.invalid/ nodistro main\n"
        "deb http://third.invalid/ bookworm-backports main\n"
    )

    assert [each.suite for each in read_sources("bookworm")] == ["bookworm"]


def test_no_source_is_one_clear_error(parts: Path) -> None:
    assert list(parts.iterdir()) == []

    with pytest.raises(ImageError, match="apt has no source of bookworm: add bookworm's main"):
        read_sources("bookworm")
