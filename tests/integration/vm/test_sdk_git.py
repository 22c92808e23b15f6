"""`sandbox.git` in a real sandbox: its git, its users, servers in the guest."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emberbox import (
    AsyncSandbox,
    CommandExitException,
    GitAuthException,
    GitUpstreamException,
)
from tests.integration.test_programs import run
from tests.stack import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from emberbox import Sandbox
    from tests.stack import Stack

SERVER = Path(__file__).parents[2] / "git_server.py"
PASSWORD = "s3cret/with odd+ch%rs"

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]


@pytest.mark.exhaustive
def test_work_goes_to_a_server_and_back(create: Callable[..., Sandbox]) -> None:
    sandbox = create(timeout=600)
    git = sandbox.git
    git.configure_user("Tester", "tester@example.com")
    git.clone(serve_anonymously(sandbox), "work")
    git.commit("work", "first", allow_empty=True)
    sandbox.files.write("work/a file.txt", "one\n")
    (new,) = git.status("work").file_status
    assert (new.name, new.status) == ("a file.txt", "untracked")
    git.add("work")
    git.commit("work", 'it\'s "quoted" $HOME')
    git.push("work", "origin", "main")

    git.reset("work", "hard", "HEAD~1")
    assert git.status("work").behind == 1
    git.pull("work")
    assert sandbox.files.read("work/a file.txt") == "one\n"

    git.create_branch("work", "feature")
    assert git.branches("work").current_branch == "feature"
    with pytest.raises(GitUpstreamException):
        git.pull("work")


def serve_anonymously(sandbox: Sandbox) -> str:
    """The URL of an empty bare repository behind `git daemon`, in the sandbox."""
    sandbox.git.init("/home/user/served/project.git", bare=True, initial_branch="main")
    sandbox.commands.run(
        "git daemon --base-path=/home/user/served --export-all --enable=receive-pack"
        " --listen=127.0.0.1",
        background=True,
        timeout=0,
    )
    url = "git://127.0.0.1/project.git"

    def answers() -> bool:
        try:
            sandbox.commands.run(f"git ls-remote {url}")
        except CommandExitException:
            return False
        return True

    wait_until(answers, 60)
    return url


@pytest.mark.exhaustive
async def test_a_private_repository(stack: Stack) -> None:
    async with await AsyncSandbox.create(timeout=600, **stack.sdk) as sandbox:
        git = sandbox.git
        url = await serve_privately(sandbox)
        with pytest.raises(GitAuthException, match="pass username"):
            await git.clone(url, "private")
        with pytest.raises(GitAuthException, match="check username") as refused:
            await git.clone(url, "private", username="tester", password="not-the-one")
        assert "not-the-one" not in str(refused.value)

        await git.clone(url, "private", username="tester", password=PASSWORD)
        await git.configure_user("Tester", "tester@example.com", "local", "private")
        await git.commit("private", "mine", allow_empty=True)
        await git.push("private", "origin", "main", username="tester", password=PASSWORD)
        assert (await git.status("private")).upstream == "origin/main"
        assert await git.remote_get("private", "origin") == url
        leftovers = await sandbox.commands.run("grep -rliE 's3cret' private .git* || true")
        assert leftovers.stdout == ""

        host = url.split("/")[2]
        await git.dangerously_authenticate("tester", PASSWORD, host=host, protocol="http")
        await git.pull("private")


async def serve_privately(sandbox: AsyncSandbox) -> str:
    """The URL of a bare repository behind HTTP that wants `tester` and PASSWORD."""
    await sandbox.files.write("git_server.py", SERVER.read_text())
    await sandbox.git.init("served/project.git", bare=True, initial_branch="main")
    await sandbox.git.set_config(
        "http.receivepack", "true", scope="local", path="served/project.git"
    )
    port: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    await sandbox.commands.run(
        'python3 git_server.py /home/user/served tester "$PASSWORD"',
        background=True,
        envs={"PASSWORD": PASSWORD},
        on_stdout=port.set_result,
        timeout=0,
    )
    number = int(await asyncio.wait_for(port, 60))
    return f"http://127.0.0.1:{number}/project.git"


@pytest.mark.exhaustive
def test_the_example(stack: Stack) -> None:
    lines = run(stack, "examples/git_and_files.py").splitlines()
    assert lines[:4] == [
        "new files: ['README.md']",
        "branches: ['feature', 'main']",
        "files: ['.git', 'README.md', 'hello.py']",
        "output: hello from a branch",
    ]
    assert "signature=…" in lines[4]
