"""`sandbox.git` with the official Python package: git of the base template."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from e2b import (
    CommandExitException,
    GitAuthException,
    GitUpstreamException,
    InvalidArgumentException,
)

from tests.compatibility.covering import covers, covers_error
from tests.compatibility.flavours import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

HOME = "/home/user"
REPOSITORY = f"{HOME}/work"
REMOTE = f"{HOME}/remote.git"
GUARDED = "http://127.0.0.1:8099/guarded.git"

PREPARE = f"""set -e
git config --global user.name Tester
git config --global user.email tester@example.com
git init -q --bare -b main {REMOTE}
git init -q -b main {REPOSITORY}
cd {REPOSITORY}
echo one >first
git add first
git commit -q -m first
git remote add origin {REMOTE}
git push -q -u origin main
"""
"""In one command: each costs a login shell in the guest."""

GUARD = """
from http.server import BaseHTTPRequestHandler, HTTPServer

class Guard(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(401)
        self.send_header("WWW-Authenticate", "Basic")
        self.end_headers()

HTTPServer(("127.0.0.1", 8099), Guard).serve_forever()
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def git(box: Any) -> Any:
    """The helper; `work` has a commit on `main` and follows `remote.git`."""
    await box.commands.run(PREPARE)
    return box.git


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(box: Any) -> str:
    """The URL of a repository that nobody may read."""
    await box.files.write("guard.py", GUARD)
    await box.commands.run("python3 guard.py", background=True, timeout=0)

    async def listens() -> bool:
        tried = await box.commands.run(f"curl -s -o /dev/null {GUARDED}; echo $?")
        return bool(tried.stdout == "0\n")

    await eventually(listens)
    return GUARDED


@covers("Git.init", "Git.add", "Git.commit", "Git.status")
async def test_a_repository(box: Any, git: Any) -> None:
    path = f"{HOME}/fresh"
    await git.init(path, initial_branch="trunk")
    await box.files.write(f"{path}/a", "1")
    await box.files.write(f"{path}/b", "2")
    await git.add(path, files=["a"])
    status = await git.status(path)
    assert status.current_branch == "trunk"
    assert {(file.name, file.status) for file in status.file_status} == {
        ("a", "added"),
        ("b", "untracked"),
    }
    done = await git.commit(path, "only a", author_name="Other", author_email="o@example.com")
    assert "only a" in done.stdout
    assert [file.name for file in (await git.status(path)).file_status] == ["b"]


@covers("Git.branches", "Git.create_branch", "Git.checkout_branch", "Git.delete_branch")
async def test_branches(git: Any) -> None:
    await git.create_branch(REPOSITORY, "side")
    both = await git.branches(REPOSITORY)
    assert (both.current_branch, sorted(both.branches)) == ("side", ["main", "side"])
    await git.checkout_branch(REPOSITORY, "main")
    await git.delete_branch(REPOSITORY, "side", force=True)
    assert (await git.branches(REPOSITORY)).branches == ["main"]


@covers("Git.reset", "Git.restore")
async def test_undoing(box: Any, git: Any) -> None:
    await box.files.write(f"{REPOSITORY}/first", "changed\n")
    await git.add(REPOSITORY)
    await git.reset(REPOSITORY, mode="mixed", target="HEAD")
    assert not (await git.status(REPOSITORY)).has_staged
    await git.restore(REPOSITORY, ["first"])
    assert (await git.status(REPOSITORY)).is_clean
    assert await box.files.read(f"{REPOSITORY}/first") == "one\n"


@covers("Git.remote_add", "Git.remote_get", "Git.clone", "Git.push", "Git.pull")
async def test_remotes(box: Any, git: Any) -> None:
    copy = f"{HOME}/copy"
    await git.clone(REMOTE, path=copy, branch="main", depth=1)
    assert await box.files.read(f"{copy}/first") == "one\n"
    assert await git.remote_get(copy, "origin") == REMOTE
    assert await git.remote_get(copy, "none") is None
    await git.remote_add(copy, "origin", f"file://{REMOTE}", fetch=True, overwrite=True)
    assert await git.remote_get(copy, "origin") == f"file://{REMOTE}"
    await git.commit(copy, "second", allow_empty=True)
    await git.push(copy)
    await git.pull(REPOSITORY)
    log = await box.commands.run("git log --format=%s", cwd=REPOSITORY)
    assert log.stdout.splitlines() == ["second", "first"]


@covers("Git.set_config", "Git.get_config", "Git.configure_user")
async def test_configuration(git: Any) -> None:
    await git.set_config("pull.rebase", "true")
    assert await git.get_config("pull.rebase") == "true"
    assert await git.get_config("no.such") is None
    local = {"scope": "local", "path": REPOSITORY}
    await git.configure_user("Local", "local@example.com", **local)
    assert await git.get_config("user.name", **local) == "Local"
    assert await git.get_config("user.name") == "Tester"


@covers("Git.dangerously_authenticate")
async def test_stored_credentials(box: Any, git: Any) -> None:
    await git.dangerously_authenticate("me", "token", host="git.example.com")
    stored = await box.files.read(f"{HOME}/.git-credentials")
    assert stored == "https://me:token@git.example.com\n"


@covers_error(GitAuthException, "Git.clone", "Git.push", "Git.pull")
async def test_a_repository_of_others(git: Any, guarded: str) -> None:
    with pytest.raises(GitAuthException, match="requires credentials"):
        await git.clone(guarded, path=f"{HOME}/never")
    with pytest.raises(GitAuthException, match="requires a password"):
        await git.clone(guarded, path=f"{HOME}/never", username="me")
    await git.remote_add(REPOSITORY, "guarded", guarded)
    with pytest.raises(GitAuthException):
        await git.push(REPOSITORY, "guarded", "main")
    with pytest.raises(GitAuthException):
        await git.pull(REPOSITORY, "guarded", "main")


@covers_error(GitUpstreamException, "Git.push", "Git.pull")
async def test_a_branch_that_follows_nothing(git: Any) -> None:
    path = f"{HOME}/alone"
    await git.init(path, initial_branch="main")
    await git.commit(path, "alone", allow_empty=True)
    await git.remote_add(path, "origin", REMOTE)
    with pytest.raises(GitUpstreamException):
        await git.pull(path)
    with pytest.raises(GitUpstreamException):
        await git.push(path, set_upstream=False)


FAILING: dict[str, Callable[[Any], Any]] = {
    "Git.add": lambda git: git.add(REPOSITORY, files=["none"]),
    "Git.branches": lambda git: git.branches("/tmp"),
    "Git.checkout_branch": lambda git: git.checkout_branch(REPOSITORY, "none"),
    "Git.clone": lambda git: git.clone(f"{HOME}/none.git", path=f"{HOME}/never"),
    "Git.commit": lambda git: git.commit(REPOSITORY, "nothing to commit"),
    "Git.create_branch": lambda git: git.create_branch(REPOSITORY, "main"),
    "Git.delete_branch": lambda git: git.delete_branch(REPOSITORY, "none"),
    "Git.init": lambda git: git.init("/proc/none"),
    "Git.pull": lambda git: git.pull(REPOSITORY, "none", "main"),
    "Git.push": lambda git: git.push(REPOSITORY, "none", "main"),
    "Git.remote_add": lambda git: git.remote_add(REPOSITORY, "origin", REMOTE),
    "Git.reset": lambda git: git.reset(REPOSITORY, mode="hard", target="none"),
    "Git.restore": lambda git: git.restore(REPOSITORY, ["none"]),
    "Git.set_config": lambda git: git.set_config("no-section", "x"),
    "Git.configure_user": lambda git: git.configure_user("a", "b", scope="system"),
    "Git.status": lambda git: git.status("/tmp"),
}


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(call, marks=covers_error(CommandExitException, name), id=name)
        for name, call in FAILING.items()
    ],
)
async def test_what_git_refuses(git: Any, call: Callable[[Any], Any]) -> None:
    with pytest.raises(CommandExitException):
        await call(git)


REFUSED: dict[str, Callable[[Any], Any]] = {
    "Git.clone": lambda git: git.clone(GUARDED, password="x"),
    "Git.push": lambda git: git.push(REPOSITORY, password="x"),
    "Git.pull": lambda git: git.pull(REPOSITORY, password="x"),
    "Git.remote_get": lambda git: git.remote_get(REPOSITORY, ""),
    "Git.reset": lambda git: git.reset(REPOSITORY, mode="sideways"),
    "Git.restore": lambda git: git.restore(REPOSITORY, []),
    "Git.set_config": lambda git: git.set_config("", "x"),
    "Git.get_config": lambda git: git.get_config("a.b", scope="local"),
    "Git.configure_user": lambda git: git.configure_user("", ""),
    "Git.dangerously_authenticate": lambda git: git.dangerously_authenticate("", ""),
    "Git.remote_add": lambda git: git.remote_add(REPOSITORY, "", ""),
}


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(call, marks=covers_error(InvalidArgumentException, name), id=name)
        for name, call in REFUSED.items()
    ],
)
async def test_what_the_package_refuses(git: Any, call: Callable[[Any], Any]) -> None:
    with pytest.raises(InvalidArgumentException):
        await call(git)
