"""`sandbox.git` in both flavours, with commands that run here instead of in a sandbox."""

from __future__ import annotations

import inspect
import os
import shlex
import subprocess
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import emberbox
from emberbox import (
    CommandExitException,
    CommandResult,
    GitAuthException,
    GitBranches,
    GitUpstreamException,
    InvalidArgumentException,
)
from emberbox.sdk import git_commands
from emberbox.sdk._async.git import AsyncGit
from emberbox.sdk.git_credentials import Credentials, access, access_to_remote
from emberbox.sdk.git_failures import explain
from tests.git_server import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PASSWORD = "p@ss w/ord'\"$x%"
ENCODED = "p%40ss%20w%2Ford%27%22%24x%25"


class Commands:
    """Runs commands with bash on this machine, in a home of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.ran: list[str] = []
        self.options: dict[str, Any] = {}

    def run(self, command: str, **options: Any) -> CommandResult:
        self.ran.append(command)
        self.options = options
        done = subprocess.run(
            ["bash", "-c", command],
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), **options["envs"]},
            cwd=options["cwd"] or self.home,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        if done.returncode:
            raise CommandExitException(done.stderr, done.stdout, done.returncode, None)
        return CommandResult(done.stderr, done.stdout, done.returncode, None)


class AsyncCommands(Commands):
    async def run(self, command: str, **options: Any) -> CommandResult:  # type: ignore[override]
        return super().run(command, **options)


class Git:
    """One flavour of the helper; its methods are awaited in both."""

    def __init__(self, flavour: str, home: Path) -> None:
        self.commands = AsyncCommands(home) if flavour == "async" else Commands(home)
        self._helper: Any = (AsyncGit if flavour == "async" else emberbox.Git)(self.commands)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*args: Any, **options: Any) -> Any:
            answer = getattr(self._helper, name)(*args, **options)
            return await answer if inspect.isawaitable(answer) else answer

        return call

    def shell(self, command: str) -> str:
        """What a command prints that is not part of the test."""
        return str(Commands(self.commands.home).run(command, envs={}, cwd=None).stdout)


@pytest.fixture(params=["async", "sync"])
def git(request: pytest.FixtureRequest, tmp_path: Path) -> Git:
    made = Git(request.param, tmp_path)
    made.shell(
        "git config --global user.name T; git config --global user.email t@example.com;"
        "git config --global init.defaultBranch main"
    )
    return made


@pytest.fixture
async def repository(git: Git, tmp_path: Path) -> Path:
    """A repository with a commit on `main`."""
    path = tmp_path / "a repository"
    await git.init(str(path), initial_branch="main")
    (path / "file").write_text("one\n")
    await git.add(str(path))
    await git.commit(str(path), "first")
    return path


class Remote(NamedTuple):
    """A bare repository behind HTTP, open to `tester` with PASSWORD."""

    url: str
    path: Path


@pytest.fixture
def remote(git: Git, repository: Path, tmp_path: Path) -> Iterator[Remote]:
    bare = tmp_path / "served" / "project.git"
    git.shell(f"git clone -q --bare '{repository}' {bare}; git -C {bare} config http.receivepack 1")
    with serve(str(bare.parent), "tester", PASSWORD) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Remote(f"http://127.0.0.1:{server.server_port}/project.git", bare)
        server.shutdown()
        thread.join()


def kept(directory: Path) -> str:
    """All that git keeps in text below a directory: configuration, logs, heads."""
    files = [
        path for path in directory.rglob("*") if path.is_file() and "objects" not in path.parts
    ]
    return "\n".join(path.read_bytes().decode(errors="replace").lower() for path in files)


async def test_init(git: Git, tmp_path: Path) -> None:
    await git.init("plain", initial_branch="trunk")
    assert (await git.status("plain")).current_branch == "trunk"
    await git.init("-x y", bare=True)
    assert (tmp_path / "-x y/HEAD").exists()


async def test_files_through_their_states(git: Git, repository: Path) -> None:
    path = str(repository)
    assert (await git.status(path)).is_clean
    (repository / "file").write_text("two\n")
    odd = "ü 'quoted' -> \"name\"\t.txt"
    (repository / odd).write_text("")
    found = {file.name: file.status for file in (await git.status(path)).file_status}
    assert found == {"file": "modified", odd: "untracked"}

    await git.add(path, [odd])
    assert (await git.status(path)).staged_count == 1
    await git.reset(path, paths=[odd])
    assert not (await git.status(path)).has_staged
    await git.add(path, all=False)
    assert (await git.status(path)).staged_count == 2
    await git.restore(path, ["."], staged=True)
    await git.restore(path, ["file"])
    assert (repository / "file").read_text() == "one\n"


async def test_a_restore_of_both_from_a_commit(git: Git, repository: Path) -> None:
    path = str(repository)
    (repository / "file").write_text("two\n")
    await git.add(path)
    await git.commit(path, "second")
    await git.restore(path, ["file"], staged=True, worktree=True, source="HEAD~1")
    (file,) = (await git.status(path)).file_status
    assert (file.index_status, (repository / "file").read_text()) == ("M", "one\n")


async def test_commit(git: Git, repository: Path) -> None:
    message = '-it\'s "quoted" $HOME `id`\n\nmore'
    await git.commit(str(repository), message, "A B", "a@b", allow_empty=True)
    logged = git.shell(f"git -C '{repository}' log -1 --format='%an %ae%n%B'")
    assert logged.strip() == f"A B a@b\n{message}"
    with pytest.raises(CommandExitException, match="code 1"):
        await git.commit(str(repository), "nothing changed")


async def test_branches(git: Git, repository: Path) -> None:
    path = str(repository)
    (repository / "feature").write_text("a file with the name of the branch")
    await git.create_branch(path, "feature")
    assert await git.branches(path) == GitBranches(["feature", "main"], "feature")
    await git.checkout_branch(path, "main")
    await git.checkout_branch(path, "feature")
    await git.commit(path, "on feature", allow_empty=True)
    await git.checkout_branch(path, "main")
    with pytest.raises(CommandExitException, match="not fully merged"):
        await git.delete_branch(path, "feature")
    await git.delete_branch(path, "feature", force=True)
    git.shell(f"git -C '{repository}' checkout -q --detach")
    assert await git.branches(path) == GitBranches(["main"], None)


async def test_reset(git: Git, repository: Path) -> None:
    path = str(repository)
    (repository / "file").write_text("two\n")
    await git.add(path)
    await git.commit(path, "second")
    await git.reset(path, "soft", "HEAD~1")
    assert (await git.status(path)).has_staged
    await git.reset(path, mode="hard")
    assert (repository / "file").read_text() == "one\n"


async def test_configuration(git: Git, repository: Path) -> None:
    path = str(repository)
    await git.set_config("my.key", "- a value ")
    assert await git.get_config("my.key") == "- a value "
    await git.set_config("my.key", "local", scope="local", path=path)
    assert await git.get_config("my.key", scope="local", path=path) == "local"
    assert await git.get_config("no.such") is None
    await git.configure_user("Full Name", "f@n", scope="local", path=path)
    assert await git.get_config("user.email", "local", path) == "f@n"
    with pytest.raises(CommandExitException):
        await git.get_config("no dot")


async def test_remotes(git: Git, repository: Path) -> None:
    path = str(repository)
    assert await git.remote_get(path, "origin") is None
    await git.remote_add(path, "origin", "/nowhere")
    with pytest.raises(CommandExitException, match="already exists"):
        await git.remote_add(path, "origin", "/elsewhere")
    await git.remote_add(path, "origin", path, overwrite=True, fetch=True)
    assert await git.remote_get(path, "origin") == path
    assert "origin/main" in git.shell(f"git -C '{path}' branch -r")
    with pytest.raises(CommandExitException, match="not a git repository"):
        await git.remote_get("/", "origin")


async def test_a_copy_with_one_branch_and_one_commit(git: Git, repository: Path) -> None:
    await git.commit(str(repository), "second", allow_empty=True)
    await git.create_branch(str(repository), "other")
    await git.clone(f"file://{repository}", "copy", branch="other", depth=1)
    assert git.shell("git -C copy log --oneline | wc -l").strip() == "1"
    assert await git.branches("copy") == GitBranches(["other"], "other")


async def test_an_upstream_that_is_missing(git: Git, repository: Path) -> None:
    path = str(repository)
    git.shell(f"git clone -q --bare '{path}' bare.git")
    with pytest.raises(InvalidArgumentException, match=r"remote must be given.*none"):
        await git.push(path, branch="main")
    await git.remote_add(path, "origin", str(git.commands.home / "bare.git"))
    with pytest.raises(GitUpstreamException, match="set_upstream"):
        await git.push(path)
    with pytest.raises(GitUpstreamException, match="remote and branch"):
        await git.pull(path)
    await git.push(path, "origin")
    assert (await git.status(path)).upstream == "origin/main"
    await git.pull(path)
    await git.push(path, branch="main", set_upstream=False)
    await git.remote_add(path, "second", "/nowhere")
    with pytest.raises(InvalidArgumentException, match="origin, second"):
        await git.push(path, branch="main")


async def test_credentials_are_used_and_kept_nowhere(
    git: Git, remote: Remote, tmp_path: Path
) -> None:
    options = {"username": "tester", "password": PASSWORD}
    await git.clone(remote.url, "private", **options)
    assert await git.remote_get("private", "origin") == remote.url
    await git.commit("private", "mine", allow_empty=True)
    await git.push("private", **options)
    await git.commit("private", "more", allow_empty=True)
    await git.push("private", "origin", "main", **options)
    await git.clone(remote.url, "second", **options)
    await git.commit("private", "again", allow_empty=True)
    await git.push("private", **options)
    await git.pull("second", **options)
    assert "again" in git.shell("git -C second log -1")
    for secret in (PASSWORD, ENCODED, shlex.quote(PASSWORD)):
        assert secret.lower() not in kept(tmp_path)
        assert not any(secret in command for command in git.commands.ran)


async def test_credentials_in_the_url_are_used_and_kept_nowhere(
    git: Git, remote: Remote, tmp_path: Path
) -> None:
    url = remote.url.replace("//", f"//tester:{ENCODED}@")
    await git.clone(url, "private")
    assert await git.remote_get("private", "origin") == remote.url
    assert ENCODED.lower() not in kept(tmp_path)


async def test_credentials_are_kept_where_that_is_asked_for(
    git: Git, remote: Remote, tmp_path: Path
) -> None:
    options = {"username": "tester", "password": PASSWORD}
    await git.clone(remote.url, "private", **options, dangerously_store_credentials=True)
    assert f"tester:{ENCODED}@" in (tmp_path / "private/.git/config").read_text()
    await git.commit("private", "mine", allow_empty=True)
    await git.push("private")


async def test_given_credentials_win_over_those_of_the_remote(git: Git, remote: Remote) -> None:
    git.shell("git init -q private")
    stale = remote.url.replace("//", "//tester:stale@")
    await git.remote_add("private", "origin", stale)
    await git.pull("private", "origin", "main", username="tester", password=PASSWORD)
    await git.push("private", "origin", username="tester", password=PASSWORD)
    assert await git.remote_get("private", "origin") == stale


async def test_a_helper_of_the_user_is_not_told(git: Git, remote: Remote, tmp_path: Path) -> None:
    git.shell("git config --global credential.helper store")
    await git.clone(remote.url, "private", username="tester", password=PASSWORD)
    assert not (tmp_path / ".git-credentials").exists()


async def test_credentials_are_for_one_host_alone(git: Git, remote: Remote) -> None:
    used = access("http://other.example/x.git", Credentials("tester", PASSWORD))
    command = git_commands.git(*used.options, "ls-remote", remote.url)
    envs = {**used.environment, "GIT_TERMINAL_PROMPT": "0"}
    with pytest.raises(CommandExitException, match="could not read Username"):
        Commands(git.commands.home).run(command, envs=envs, cwd=None)


@pytest.mark.parametrize("password", ["wrong-one", None])
async def test_a_refusal(git: Git, remote: Remote, password: str | None) -> None:
    wanted = "check username" if password else "pass username"
    with pytest.raises(GitAuthException, match=wanted) as refused:
        await git.clone(remote.url, "private", username="tester", password=password)
    assert isinstance(refused.value, emberbox.AuthenticationException)
    assert "wrong-one" not in str(refused.value)
    await git.clone(remote.url, "good", username="tester", password=PASSWORD)
    with pytest.raises(GitAuthException, match="git push"):
        await git.push("good")
    with pytest.raises(GitAuthException, match="git pull"):
        await git.pull("good")


@pytest.mark.parametrize(
    "said",
    [
        "fatal: unable to access 'https://h/x/': The requested URL returned error: 403",
        "remote: You are not authorized to push here.",
    ],
)
def test_a_refusal_in_other_words(said: str) -> None:
    failure = CommandExitException(said, "", 128, None)
    raised = explain("push", failure, access("https://h/x", Credentials("tester", PASSWORD)))
    assert isinstance(raised, GitAuthException)


async def test_a_branch_that_only_a_remote_has(git: Git, repository: Path) -> None:
    await git.create_branch(str(repository), "feature")
    await git.checkout_branch(str(repository), "main")
    await git.clone(str(repository), "copy")
    await git.checkout_branch("copy", "feature")
    status = await git.status("copy")
    assert (status.current_branch, status.upstream) == ("feature", "origin/feature")


async def test_a_failure_does_not_show_the_password(git: Git) -> None:
    url = f"http://tester:{ENCODED}@127.0.0.1:1/x.git"
    with pytest.raises(CommandExitException) as failed:
        await git.clone(url, dangerously_store_credentials=True)
    assert failed.value.__cause__ is None
    assert failed.value.__suppress_context__
    assert ENCODED not in str(failed.value)


def test_redaction_covers_every_way_to_write_a_password() -> None:
    used = access(f"https://tester:{ENCODED}@h/x", None)
    said = CommandExitException(
        f"at https://tester:{ENCODED.lower()}@h/x", f"is {PASSWORD}", 128, PASSWORD
    )
    shown = explain("clone", said, used)
    assert isinstance(shown, CommandExitException)
    assert (shown.stderr, shown.stdout, shown.error) == (
        "at https://tester:***@h/x",
        "is ***",
        "***",
    )
    assert PASSWORD not in repr(used)


def test_a_password_that_is_not_used_is_not_shown_either() -> None:
    url = "https://tester:stale%40@h/x"
    used = access_to_remote(url, Credentials("tester", PASSWORD))
    said = CommandExitException(f"at {url}", "is stale@", 128, None)
    shown = explain("push", said, used)
    assert isinstance(shown, CommandExitException)
    assert (shown.stderr, shown.stdout) == ("at https://tester:***@h/x", "is ***")
    assert "stale" not in repr(used)


async def test_git_keeps_credentials_for_a_host(git: Git, remote: Remote, tmp_path: Path) -> None:
    host = remote.url.split("/")[2]
    await git.dangerously_authenticate("tester", PASSWORD, host=host, protocol="http")
    assert ENCODED.lower() in (tmp_path / ".git-credentials").read_text()
    await git.clone(remote.url, "private")
    assert not any(PASSWORD in command for command in git.commands.ran)


@pytest.mark.parametrize(
    ("method", "arguments", "field"),
    [
        ("clone", {"url": ""}, "url"),
        ("clone", {"url": "https://u:p@[h/x"}, "url"),
        ("clone", {"url": "https://h/x", "password": "p"}, "username"),
        ("clone", {"url": "git@h:x", "username": "u", "password": "p"}, "http"),
        ("clone", {"url": "https://h/x", "username": "u", "password": "p\nq"}, "password"),
        ("clone", {"url": "x", "branch": "--upload-pack=id"}, "branch"),
        ("init", {"path": ""}, "path"),
        ("init", {"path": "x", "initial_branch": "-b"}, "initial_branch"),
        ("add", {"path": "x", "files": ["a\0b"]}, "NUL"),
        ("create_branch", {"path": "x", "branch": ""}, "branch"),
        ("checkout_branch", {"path": "x", "branch": "-f"}, "branch"),
        ("delete_branch", {"path": "x", "branch": "--all"}, "branch"),
        ("reset", {"path": "x", "mode": "medium"}, "mode"),
        ("reset", {"path": "x", "target": "--hard"}, "target"),
        ("restore", {"path": "x", "paths": []}, "paths"),
        ("restore", {"path": "x", "paths": ["a"], "worktree": False}, "staged"),
        ("remote_add", {"path": "x", "name": "", "url": "u"}, "name"),
        ("remote_add", {"path": "x", "name": "n", "url": ""}, "url"),
        ("remote_get", {"path": "x", "name": "-n"}, "name"),
        ("push", {"path": "x", "remote": "--exec=id"}, "remote"),
        ("push", {"path": "x", "password": "p"}, "username"),
        ("pull", {"path": "x", "remote": "r", "branch": "-f"}, "branch"),
        ("set_config", {"key": "", "value": "v"}, "key"),
        ("set_config", {"key": "k", "value": "v", "scope": "mine"}, "scope"),
        ("get_config", {"key": "k", "scope": "local"}, "path"),
        ("configure_user", {"name": "", "email": "e"}, "name"),
        ("dangerously_authenticate", {"username": "", "password": ""}, "username"),
        ("dangerously_authenticate", {"username": "u", "password": "p", "host": "h\nx"}, "host"),
        ("dangerously_authenticate", {"username": "u", "password": "p", "host": ""}, "host"),
    ],
)
async def test_what_is_refused_before_git_runs(
    git: Git, method: str, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidArgumentException, match=field):
        await getattr(git, method)(**arguments)
    assert git.commands.ran == []


async def test_options_of_a_command_reach_it(git: Git, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    envs = {"GIT_DEFAULT_HASH": "sha256"}
    options = {"cwd": str(tmp_path / "below"), "user": "root", "timeout": 7, "request_timeout": 8}
    await git.init("here", **options, envs=envs)
    assert "sha256" in (tmp_path / "below/here/.git/config").read_text()
    assert options.items() <= git.commands.options.items()
