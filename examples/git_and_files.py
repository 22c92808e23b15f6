"""Git in a sandbox: a repository, a branch, a push, and what came of it read back as files.

Needs a running Emberbox (`emberbox up`) and the variables that it prints.
"""

from __future__ import annotations

from emberbox import Sandbox

PROJECT = "/home/user/project"
SHARED = "/home/user/shared.git"
COPY = "/home/user/copy"


def main() -> None:
    with Sandbox.create(timeout=600) as sandbox:
        make_project(sandbox)
        work_on_a_branch(sandbox)
        look_at_the_copy(sandbox)


def make_project(sandbox: Sandbox) -> None:
    """A repository with one commit, pushed to a bare one."""
    git = sandbox.git
    git.configure_user("Example", "example@example.com")
    git.init(PROJECT, initial_branch="main")
    sandbox.files.write(f"{PROJECT}/README.md", "# A project\n")
    print("new files:", [file.name for file in git.status(PROJECT).file_status])
    git.add(PROJECT)
    git.commit(PROJECT, "Begin")
    git.init(SHARED, bare=True, initial_branch="main")
    git.remote_add(PROJECT, "origin", SHARED)
    git.push(PROJECT, "origin", "main")


def work_on_a_branch(sandbox: Sandbox) -> None:
    git = sandbox.git
    git.create_branch(PROJECT, "feature")
    sandbox.files.write(f"{PROJECT}/hello.py", "print('hello from a branch')\n")
    git.add(PROJECT, ["hello.py"])
    git.commit(PROJECT, "Say hello")
    print("branches:", git.branches(PROJECT).branches)
    git.push(PROJECT, "origin", "feature")


def look_at_the_copy(sandbox: Sandbox) -> None:
    """A clone of the branch: its files, a program in it, a link to it."""
    sandbox.git.clone(SHARED, COPY, branch="feature")
    print("files:", sorted(entry.name for entry in sandbox.files.list(COPY)))
    print("output:", sandbox.commands.run("python3 hello.py", cwd=COPY).stdout.strip())
    url = sandbox.download_url(f"{COPY}/hello.py", use_signature_expiration=60)
    print("a link for a minute:", url.split("signature=")[0] + "signature=…")


if __name__ == "__main__":
    main()
