"""Reading what git prints for programs. No I/O.

Formats: git-status(1), "Short Format" and "Porcelain Format Version 1", with `-z` and `-b`;
git-for-each-ref(1).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .git_models import GitBranches, GitFileStatus, GitStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

BRANCH_FORMAT = "%(refname:lstrip=2)%09%(HEAD)"

_COUNT = re.compile(r"(ahead|behind) (\d+)")
_UNBORN = re.compile(r"(?:No commits yet on|Initial commit on) ")

# Both sides added or deleted it, or one side left it unmerged.
_CONFLICTS = frozenset({"DD", "AA", "AU", "UA", "UD", "DU", "UU"})

# The first that occurs in either column names the change.
_CHANGES = {
    "R": "renamed",
    "C": "copied",
    "D": "deleted",
    "A": "added",
    "M": "modified",
    "T": "typechange",
}


def parse_status(output: str) -> GitStatus:
    """From `git status --porcelain=1 -b -z`."""
    records = iter(output.split("\0"))
    header = next(records).removeprefix("## ")
    return GitStatus(**_branch(header), file_status=list(_files(records)))  # type: ignore[arg-type]


def parse_branches(output: str) -> GitBranches:
    """From `git for-each-ref` with BRANCH_FORMAT."""
    lines = [line.partition("\t") for line in output.splitlines() if line]
    current = [name for name, _, mark in lines if mark == "*"]
    return GitBranches([name for name, _, _ in lines], current[0] if current else None)


def _branch(header: str) -> dict[str, object]:
    """`main...origin/main [ahead 1, behind 2]`, of which all but the first may lack."""
    detached = header.startswith("HEAD (")
    names, _, counts = _UNBORN.sub("", header).partition(" ")
    branch, _, upstream = names.partition("...")
    apart = {which: int(number) for which, number in _COUNT.findall(counts)}
    return {
        "current_branch": None if detached else branch or None,
        "upstream": upstream or None,
        "ahead": apart.get("ahead", 0),
        "behind": apart.get("behind", 0),
        "detached": detached,
    }


def _files(records: Iterator[str]) -> Iterator[GitFileStatus]:
    """Two letters, a space and a path; a rename's old path is a record of its own."""
    for record in records:
        if not record:
            continue
        index, tree, name = record[0], record[1], record[3:]
        moved = bool({index, tree} & {"R", "C"})
        yield GitFileStatus(
            name=name,
            status=_describe(index, tree),
            index_status=index,
            working_tree_status=tree,
            staged=index not in " ?",
            renamed_from=next(records) if moved else None,
        )


def _describe(index: str, tree: str) -> str:
    both = index + tree
    if both in _CONFLICTS:
        return "conflict"
    if both == "??":
        return "untracked"
    return next((word for letter, word in _CHANGES.items() if letter in both), "unknown")
