"""What `sandbox.git` tells about a repository. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

GitResetMode: TypeAlias = Literal["soft", "mixed", "hard", "merge", "keep"]


@dataclass
class GitFileStatus:
    """A file that differs from the last commit, or that git does not know."""

    name: str
    """Path below the root of the repository; an untracked directory ends in `/`."""
    status: str
    """`added`, `modified`, `deleted`, `renamed`, `copied`, `typechange`, `untracked`,
    `conflict` or `unknown`."""
    index_status: str
    """The letter of git's short format for the index; a space when nothing is staged."""
    working_tree_status: str
    """The letter for the working tree."""
    staged: bool
    """Whether a part of the change is in the index."""
    renamed_from: str | None = None
    """Its path before it was renamed or copied."""


@dataclass
class GitStatus:
    """State of a repository's branch and files."""

    current_branch: str | None
    """None when HEAD is detached."""
    upstream: str | None
    """The branch it follows, such as `origin/main`."""
    ahead: int
    """Commits that the upstream lacks."""
    behind: int
    """Commits of the upstream that the branch lacks."""
    detached: bool
    """Whether HEAD is on no branch."""
    file_status: list[GitFileStatus]

    @property
    def is_clean(self) -> bool:
        """Whether nothing changed since the last commit."""
        return not self.file_status

    @property
    def has_changes(self) -> bool:
        """Whether anything changed since the last commit."""
        return bool(self.file_status)

    @property
    def has_staged(self) -> bool:
        """Whether a file is staged."""
        return self.staged_count > 0

    @property
    def has_untracked(self) -> bool:
        """Whether there is a file that git does not know."""
        return self.untracked_count > 0

    @property
    def has_conflicts(self) -> bool:
        """Whether a merge left conflicts."""
        return self.conflict_count > 0

    @property
    def total_count(self) -> int:
        """Number of files that differ."""
        return len(self.file_status)

    @property
    def staged_count(self) -> int:
        """Number of files of which a part is staged."""
        return sum(file.staged for file in self.file_status)

    @property
    def unstaged_count(self) -> int:
        """Number of files of which nothing is staged, untracked ones included."""
        return self.total_count - self.staged_count

    @property
    def untracked_count(self) -> int:
        """Number of files that git does not know."""
        return self._count("untracked")

    @property
    def conflict_count(self) -> int:
        """Number of files in conflict."""
        return self._count("conflict")

    def _count(self, status: str) -> int:
        return sum(file.status == status for file in self.file_status)


@dataclass
class GitBranches:
    """The local branches of a repository."""

    branches: list[str]
    current_branch: str | None
    """None when HEAD is detached."""
