"""What git prints for programs, as records."""

from __future__ import annotations

import pytest

from emberbox import GitBranches, GitFileStatus, GitStatus
from emberbox.sdk.git_parsing import parse_branches, parse_status


@pytest.mark.parametrize(
    ("header", "branch", "upstream", "ahead", "behind"),
    [
        ("main", "main", None, 0, 0),
        ("main...origin/main", "main", "origin/main", 0, 0),
        ("a.b...o/a.b [ahead 3]", "a.b", "o/a.b", 3, 0),
        ("main...origin/main [behind 12]", "main", "origin/main", 0, 12),
        ("main...origin/main [ahead 1, behind 2]", "main", "origin/main", 1, 2),
        ("main...origin/main [gone]", "main", "origin/main", 0, 0),
        ("No commits yet on main", "main", None, 0, 0),
        ("Initial commit on main", "main", None, 0, 0),
        ("No commits yet on main...origin/main [gone]", "main", "origin/main", 0, 0),
    ],
)
def test_the_branch(
    header: str, branch: str, upstream: str | None, ahead: int, behind: int
) -> None:
    status = parse_status(f"## {header}\0")
    assert status == GitStatus(branch, upstream, ahead, behind, detached=False, file_status=[])
    assert status.is_clean


def test_a_detached_head() -> None:
    status = parse_status("## HEAD (no branch)\0")
    assert (status.detached, status.current_branch) == (True, None)


@pytest.mark.parametrize(
    ("letters", "status", "staged"),
    [
        (" M", "modified", False),
        ("M ", "modified", True),
        ("MM", "modified", True),
        ("A ", "added", True),
        ("AM", "added", True),
        (" A", "added", False),
        ("D ", "deleted", True),
        ("MD", "deleted", True),
        (" D", "deleted", False),
        ("T ", "typechange", True),
        ("??", "untracked", False),
        ("UU", "conflict", True),
        ("AA", "conflict", True),
        ("DD", "conflict", True),
        ("DU", "conflict", True),
        ("X ", "unknown", True),
    ],
)
def test_a_change(letters: str, status: str, staged: bool) -> None:
    (file,) = parse_status(f"## main\0{letters} some file\0").file_status
    assert file == GitFileStatus("some file", status, letters[0], letters[1], staged)


@pytest.mark.parametrize("letters", ["R ", "RM", " R"])
def test_a_rename_is_followed_by_the_old_path(letters: str) -> None:
    renamed, other = parse_status(f"## main\0{letters} new -> x\0old\ttab\0?? c\0").file_status
    assert (renamed.name, renamed.renamed_from) == ("new -> x", "old\ttab")
    assert renamed.status == "renamed"
    assert (other.name, other.renamed_from) == ("c", None)


def test_a_copy() -> None:
    (file,) = parse_status("## main\0C  b\0a\0").file_status
    assert (file.status, file.name, file.renamed_from) == ("copied", "b", "a")


def test_counts() -> None:
    status = parse_status("## m\0 M a\0M  b\0MM c\0?? d\0UU e\0A  f\0")
    assert (status.total_count, status.staged_count, status.unstaged_count) == (6, 4, 2)
    assert (status.untracked_count, status.conflict_count) == (1, 1)
    assert status.has_changes
    assert status.has_staged
    assert status.has_untracked
    assert status.has_conflicts
    assert not status.is_clean


def test_branches() -> None:
    assert parse_branches("a\t \nmain\t*\nb c\t \n") == GitBranches(["a", "main", "b c"], "main")
    assert parse_branches("main\t \n") == GitBranches(["main"], None)
    assert parse_branches("") == GitBranches([], None)
