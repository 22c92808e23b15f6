"""The shell commands of `sandbox.git`. No I/O.

Every argument is quoted for the shell. Names that git would read as an option, because they
begin with a hyphen, are refused; texts that may begin so (messages, paths, URLs) stand behind `--`
or as the value of an option.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, get_args

from .errors import InvalidArgumentException
from .git_models import GitResetMode
from .git_parsing import BRANCH_FORMAT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_CONFIG_SCOPES = ("global", "local", "system")


def git(*words: str, repository: str | None = None) -> str:
    """`git` with these arguments, in a repository. Raises InvalidArgumentException."""
    place = [] if repository is None else ["-C", _given("path", repository)]
    command = ["git", *place, *words]
    if any("\0" in word for word in command):
        raise InvalidArgumentException("arguments of git cannot hold a NUL character")
    return shlex.join(command)


def init(path: str, *, bare: bool, initial_branch: str | None) -> str:
    """Make a repository."""
    first = [f"--initial-branch={name('initial_branch', initial_branch)}"] if initial_branch else []
    return git("init", *first, *["--bare"] * bare, "--", _given("path", path))


def clone(
    url: str,
    path: str | None,
    branch: str | None,
    depth: int | None,
    options: Iterable[str] = (),
) -> str:
    """Copy a repository; `options` are git's own, before the subcommand."""
    chosen = [f"--branch={name('branch', branch)}", "--single-branch"] if branch else []
    shallow = [f"--depth={depth}"] if depth else []
    target = [path] if path else []
    return git(*options, "clone", *chosen, *shallow, "--", _given("url", url), *target)


def add(path: str, files: Sequence[str] | None, *, everything: bool) -> str:
    """Stage files; without any, everything in the repository or only what is below `path`."""
    default = ["-A"] if everything else ["."]
    return git("add", *(["--", *files] if files else default), repository=path)


def commit(
    path: str,
    message: str,
    author_name: str | None,
    author_email: str | None,
    *,
    allow_empty: bool,
) -> str:
    """Commit what is staged. The author is the committer too."""
    author = [
        *(["-c", f"user.name={author_name}"] if author_name else []),
        *(["-c", f"user.email={author_email}"] if author_email else []),
    ]
    empty = ["--allow-empty"] * allow_empty
    return git(*author, "commit", "-m", message, *empty, repository=path)


def status(path: str) -> str:
    """What `git_parsing.parse_status` reads."""
    return git("status", "--porcelain=1", "-b", "-z", repository=path)


def branches(path: str) -> str:
    """What `git_parsing.parse_branches` reads."""
    return git("for-each-ref", f"--format={BRANCH_FORMAT}", "refs/heads", repository=path)


def checkout(path: str, branch: str, *, create: bool = False) -> str:
    """Switch to a branch; behind `--` would stand files, so that no file is meant by the name."""
    new = ["-b"] * create
    return git("checkout", *new, name("branch", branch), "--", repository=path)


def delete_branch(path: str, branch: str, *, force: bool) -> str:
    """Delete a branch; only `force` deletes one that is not merged."""
    return git("branch", "-D" if force else "-d", "--", name("branch", branch), repository=path)


def reset(
    path: str, mode: GitResetMode | None, target: str | None, paths: Sequence[str] | None
) -> str:
    """Move the branch, or take files out of the index."""
    if mode is not None and mode not in get_args(GitResetMode):
        raise InvalidArgumentException(
            f"mode must be one of {', '.join(get_args(GitResetMode))}, got {mode!r}"
        )
    return git(
        "reset",
        *([f"--{mode}"] if mode else []),
        *([name("target", target)] if target else []),
        *(["--", *paths] if paths else []),
        repository=path,
    )


def restore(
    path: str,
    paths: Sequence[str],
    staged: bool | None,
    worktree: bool | None,
    source: str | None,
) -> str:
    """Bring files back, in the working tree unless only `staged` is said."""
    if not paths:
        raise InvalidArgumentException('paths must name at least one path; ["."] means all')
    in_tree = worktree if worktree is not None else staged is not True
    if not (staged or in_tree):
        raise InvalidArgumentException("staged or worktree must be True: nothing is to be restored")
    return git(
        "restore",
        *["--worktree"] * in_tree,
        *["--staged"] * bool(staged),
        *([f"--source={name('source', source)}"] if source else []),
        "--",
        *paths,
        repository=path,
    )


def remote_add(path: str, remote: str, url: str, *, fetch: bool, overwrite: bool) -> str:
    """Add a remote; `overwrite` changes the URL of one that exists."""
    words = ["--", name("name", remote), _given("url", url)]
    command = git("remote", "add", *words, repository=path)
    if overwrite:
        exists = git("remote", "get-url", *words[:2], repository=path)
        change = git("remote", "set-url", *words, repository=path)
        command = f"if {exists} >/dev/null 2>&1; then {change}; else {command}; fi"
    return f"{command} && {git('fetch', '--', remote, repository=path)}" if fetch else command


def remote_url(path: str, remote: str, *, push: bool = False) -> str:
    """Print the URL of a remote, the one to push to if that is wanted."""
    option = ["--push"] * push
    return git("remote", "get-url", *option, "--", name("name", remote), repository=path)


def remotes(path: str) -> str:
    """Print the remotes, one on each line."""
    return git("remote", repository=path)


def push(
    path: str,
    remote: str | None,
    branch: str | None,
    options: Iterable[str] = (),
    *,
    set_upstream: bool,
) -> str:
    """Push to a remote; without one, to where the branch's upstream is.

    To set an upstream git wants a branch, so that HEAD stands for the current one.
    """
    if remote is None:
        return git(*options, "push", repository=path)
    what = name("branch", branch) if branch else "HEAD" if set_upstream else None
    upstream = ["--set-upstream"] * set_upstream
    where = [name("remote", remote), *([what] if what else [])]
    return git(*options, "push", *upstream, "--", *where, repository=path)


def pull(path: str, remote: str | None, branch: str | None, options: Iterable[str] = ()) -> str:
    """Pull from a remote; without one, from the branch's upstream."""
    if remote is None:
        return git(*options, "pull", repository=path)
    where = [name("remote", remote), *([name("branch", branch)] if branch else [])]
    return git(*options, "pull", "--", *where, repository=path)


def set_config(key: str, value: str, scope: str, path: str | None) -> str:
    """Set one value."""
    return _config(scope, path, "--", name("key", key), value)


def get_config(key: str, scope: str, path: str | None) -> str:
    """Print one value; the exit code is 1, and nothing is said, when it is not set."""
    return _config(scope, path, "--get", "--", name("key", key))


def configure_user(full_name: str, email: str, scope: str, path: str | None) -> str:
    """Set who commits."""
    values = {"user.name": _given("name", full_name), "user.email": _given("email", email)}
    return " && ".join(set_config(key, value, scope, path) for key, value in values.items())


def name(field: str, value: str | None) -> str:
    """The value as a name of a branch, remote, key…: not empty, and no option."""
    given = _given(field, value)
    if given.startswith("-"):
        raise InvalidArgumentException(f"{field} must not begin with a hyphen, got {value!r}")
    return given


def _given(field: str, value: str | None) -> str:
    if not value:
        raise InvalidArgumentException(f"{field} must not be empty")
    return value


def _config(scope: str, path: str | None, *words: str) -> str:
    if scope not in _CONFIG_SCOPES:
        raise InvalidArgumentException(
            f"scope must be one of {', '.join(_CONFIG_SCOPES)}, got {scope!r}"
        )
    if scope == "local" and not path:
        raise InvalidArgumentException("path must name the repository when scope is local")
    repository = path if scope == "local" else None
    return git("config", f"--{scope}", *words, repository=repository)
