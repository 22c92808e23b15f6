"""`sandbox.git`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from emberbox.sdk import git_commands, git_credentials, git_failures
from emberbox.sdk.command_models import CommandExitException
from emberbox.sdk.errors import InvalidArgumentException
from emberbox.sdk.git_parsing import parse_branches, parse_status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emberbox.sdk.command_models import CommandResult
    from emberbox.sdk.config import Username
    from emberbox.sdk.git_credentials import Access
    from emberbox.sdk.git_models import GitBranches, GitResetMode, GitStatus

    from .commands import AsyncCommands


@dataclass(frozen=True)
class _HowToRun:
    """The options that every method takes."""

    envs: dict[str, str] | None
    user: Username | None
    cwd: str | None
    timeout: float | None
    request_timeout: float | None


class AsyncGit:
    """Runs `git` in the sandbox. Nothing is asked there: what is missing makes a call fail.

    Every method takes `envs`, `user` and `cwd` as `commands.run` does, and `timeout`, the seconds
    that the command may take (no limit by default). Each can raise CommandExitException
    when git fails, InvalidArgumentException, and what `commands.run` raises.

    `username` and `password` (or a token) reach the server through the environment of the one
    command, where programs of the same user and `commands.list` can read them while it runs. They
    are stored nowhere and are in no command line, except by what is called `dangerously_…`.
    """

    def __init__(self, commands: AsyncCommands) -> None:
        self._commands = commands

    async def clone(  # noqa: PLR0917 (as in e2b, like all of them)
        self,
        url: str,
        path: str | None = None,
        branch: str | None = None,
        depth: int | None = None,
        username: str | None = None,
        password: str | None = None,
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        request_timeout: float | None = None,
        dangerously_store_credentials: bool = False,
    ) -> CommandResult:
        """Copy a repository into the sandbox.

        Args:
            path: where to; git makes a name from the URL otherwise.
            branch: the only branch to fetch, and the one to check out.
            depth: how many commits to fetch of it; all by default.
            username, password: for an HTTP server. Those in the URL are used in the same way.
            dangerously_store_credentials: leave them in the repository's configuration.

        Raises:
            GitAuthException: the server refused, or wants credentials.
        """
        how = _HowToRun(envs, user, cwd, timeout, request_timeout)
        used = git_credentials.access(url, git_credentials.given(username, password))
        store = dangerously_store_credentials
        source = used.url_with_credentials if store else used.url
        options = [] if store else used.options
        command = git_commands.clone(source, path, branch, depth, options)
        return await self._exchange("clone", command, how, used)

    async def init(  # noqa: PLR0917
        self,
        path: str,
        bare: bool = False,
        initial_branch: str | None = None,
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        request_timeout: float | None = None,
    ) -> CommandResult:
        """Make an empty repository; a `bare` one has no working tree."""
        how = _HowToRun(envs, user, cwd, timeout, request_timeout)
        command = git_commands.init(path, bare=bare, initial_branch=initial_branch)
        return await self._run(command, how)

    async def remote_add(  # noqa: PLR0917
        self,
        path: str,
        name: str,
        url: str,
        fetch: bool = False,
        overwrite: bool = False,
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        request_timeout: float | None = None,
    ) -> CommandResult:
        """Add a remote.

        Args:
            fetch: fetch its branches too.
            overwrite: give the remote this URL if there is one of that name.
        """
        how = _HowToRun(envs, user, cwd, timeout, request_timeout)
        command = git_commands.remote_add(path, name, url, fetch=fetch, overwrite=overwrite)
        return await self._run(command, how)

    async def remote_get(  # noqa: PLR0917
        self,
        path: str,
        name: str,
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        request_timeout: float | None = None,
    ) -> str | None:
        """The URL of a remote; None when there is no such remote."""
        how = _HowToRun(envs, user, cwd, timeout, request_timeout)
        try:
            found = await self._run(git_commands.remote_url(path, name), how)
        except CommandExitException as failure:
            if "no such remote" in failure.stderr.lower():
                return None
            raise
        return found.stdout.strip() or None

    async def status(  # noqa: PLR0917
        self,
        path: str,
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        request_timeout: float | None = None,
    ) -> GitStatus:
        """The branch, how far it is from its upstream, and the files that changed."""
        how = _HowToRun(envs, user, cwd, timeout, request_timeout)
        return parse_status((await self._run(git_commands.status(path), how)).stdout)

    async def branches(  # noqa: PLR0917
        self,
        path: str,
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        request_timeout: float | None = None,
    ) -> GitBranches:
        """The local branches; one without a commit is not among them."""
        how = _HowToRun(envs, user, cwd, timeout, request_timeout)
        return parse_branches((await self._run(git_commands.branches(path), how)).stdout)

    async def create_branch(  # noqa: PLR0917
        self,
        path: str,
        branch: str,
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        request_timeout: float | None = None,
    ) -> CommandResult:
        """Make a branch at HEAD and switch to it."""
        how = _HowToRun(envs, user, cwd, timeout, request_timeout)
        return await self._run(git_commands.checkout(path, branch, create=True), how)

    async def checkout_branch(  # noqa: PLR0917
        self,
        path: str,
        branch: str,
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        request_timeout: float | None = None,
    ) -> CommandResult:
        """Switch to a branch; one that only a remote has is made to follow it."""
        how = _HowToRun(envs, user, cwd, timeout, request_timeout)
        return await self._run(git_commands.checkout(path, branch), how)

    async def delete_branch(  # noqa: PLR0917
        self,
        path: str,
        branch: str,
        force: bool = False,
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        request_timeout: float | None = None,
    ) -> CommandResult:
        """Delete a branch; one that is not merged only with `force`."""
        how = _HowToRun(envs, user, cwd, timeout, request_timeout)
        return await self._run(git_commands.delete_branch(path, branch, force=force), how)

    async def add(  # noqa: PLR0917
        self,
        path: str,
        files: list[str] | None = None,
        all: bool = True,  # noqa: A002 (the name in e2b)
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        request_timeout: float | None = None,
    ) -> CommandResult:
        """Stage files, or all changes when none are named.

        Args:
            path: the repository, or a directory in it.
            all: False stages, when no files are named, what is below `path` alone.
        """
        how = _HowToRun(envs, user, cwd, timeout, request_timeout)
        return await self._run(git_commands.add(path, files, everything=all), how)

    async def commit(  # noqa: PLR0917
        self,
        path: str,
        message: str,
        author_name: str | None = None,
        author_email: str | None = None,
        allow_empty: bool = False,
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        request_timeout: float | None = None,
    ) -> CommandResult:
        """Commit what is staged. The author, who commits too, is the configured one by default."""
        how = _HowToRun(envs, user, cwd, timeout, request_timeout)
        command = git_commands.commit(
            path, message, author_name, author_email, allow_empty=allow_empty
        )
        return await self._run(command, how)

    async def reset(  # noqa: PLR0917
        self,
        path: str,
        mode: GitResetMode | None = None,
        target: str | None = None,
        paths: list[str] | None = None,
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        request_timeout: float | None = None,
    ) -> CommandResult:
        """Move the branch to a commit; with `paths`, take those files out of the index.

        Args:
            mode: what becomes of index and files; git's default is `mixed`.
            target: HEAD by default.
        """
        how = _HowToRun(envs, user, cwd, timeout, request_timeout)
        return await self._run(git_commands.reset(path, mode, target, paths), how)

    async def restore(  # noqa: PLR0917
        self,
        path: str,
        paths: list[str],
        staged: bool | None = None,
        worktree: bool | None = None,
        source: str | None = None,
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        request_timeout: float | None = None,
    ) -> CommandResult:
        """Bring files back to what they were.

        Args:
            paths: which files; `["."]` means all.
            staged: restore the index, and not the files unless `worktree` is True.
            worktree: restore the files; the default unless `staged` is True.
            source: the commit to take them from; the index or HEAD by default.
        """
        how = _HowToRun(envs, user, cwd, timeout, request_timeout)
        return await self._run(git_commands.restore(path, paths, staged, worktree, source), how)

    async def push(  # noqa: PLR0917
        self,
        path: str,
        remote: str | None = None,
        branch: str | None = None,
        set_upstream: bool = True,
        username: str | None = None,
        password: str | None = None,
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        request_timeout: float | None = None,
    ) -> CommandResult:
        """Push a branch: to `remote` if given, else to its upstream.

        Args:
            remote: needed with `branch` if there are several.
            branch: the current one by default.
            set_upstream: let the branch follow the one that is pushed to.
            username, password: for an HTTP server.

        Raises:
            GitAuthException: the server refused, or wants credentials.
            GitUpstreamException: no remote is given and the branch has no upstream.
        """
        how = _HowToRun(envs, user, cwd, timeout, request_timeout)
        if branch and remote is None:
            remote = await self._only_remote(path, how)
        used = await self._access(path, remote, (username, password), how, push=True)
        command = git_commands.push(path, remote, branch, used.options, set_upstream=set_upstream)
        return await self._exchange("push", command, how, used)

    async def pull(  # noqa: PLR0917
        self,
        path: str,
        remote: str | None = None,
        branch: str | None = None,
        username: str | None = None,
        password: str | None = None,
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        request_timeout: float | None = None,
    ) -> CommandResult:
        """Fetch and merge a branch: of `remote` if given, else the branch's upstream.

        Args:
            remote: needed with `branch` if there are several.
            username, password: for an HTTP server.

        Raises:
            GitAuthException: the server refused, or wants credentials.
            GitUpstreamException: no remote is given and the branch has no upstream.
        """
        how = _HowToRun(envs, user, cwd, timeout, request_timeout)
        if branch and remote is None:
            remote = await self._only_remote(path, how)
        used = await self._access(path, remote, (username, password), how)
        command = git_commands.pull(path, remote, branch, used.options)
        return await self._exchange("pull", command, how, used)

    async def set_config(  # noqa: PLR0917
        self,
        key: str,
        value: str,
        scope: str = "global",
        path: str | None = None,
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        request_timeout: float | None = None,
    ) -> CommandResult:
        """Set a value of git's configuration; `path` is the repository for scope `local`."""
        how = _HowToRun(envs, user, cwd, timeout, request_timeout)
        return await self._run(git_commands.set_config(key, value, scope, path), how)

    async def get_config(  # noqa: PLR0917
        self,
        key: str,
        scope: str = "global",
        path: str | None = None,
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        request_timeout: float | None = None,
    ) -> str | None:
        """A value of git's configuration; None when it is not set in this scope."""
        how = _HowToRun(envs, user, cwd, timeout, request_timeout)
        try:
            found = await self._run(git_commands.get_config(key, scope, path), how)
        except CommandExitException as failure:
            if failure.exit_code == 1 and not failure.stderr:  # else the key is no key
                return None
            raise
        return found.stdout.removesuffix("\n")

    async def dangerously_authenticate(  # noqa: PLR0917
        self,
        username: str,
        password: str,
        host: str = "github.com",
        protocol: str = "https",
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        request_timeout: float | None = None,
    ) -> CommandResult:
        """Have git keep credentials for a host in a file, readable to all that the user runs."""
        how = _HowToRun(envs, user, cwd, timeout, request_timeout)
        credentials = git_credentials.given(username, password)
        if credentials is None:
            raise InvalidArgumentException("username and password must not be empty")
        command = git_credentials.authenticate(credentials, host, protocol)
        used = git_credentials.Access("", credentials)
        try:
            return await self._run(command, how, used.environment)
        except CommandExitException as failure:
            raise git_failures.redacted(failure, used) from None

    async def configure_user(  # noqa: PLR0917
        self,
        name: str,
        email: str,
        scope: str = "global",
        path: str | None = None,
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        request_timeout: float | None = None,
    ) -> CommandResult:
        """Say who commits; `path` is the repository for scope `local`."""
        how = _HowToRun(envs, user, cwd, timeout, request_timeout)
        return await self._run(git_commands.configure_user(name, email, scope, path), how)

    async def _only_remote(self, path: str, how: _HowToRun) -> str:
        """The remote that is meant when none is given."""
        remotes = (await self._run(git_commands.remotes(path), how)).stdout.splitlines()
        if len(remotes) != 1:
            found = ", ".join(remotes) or "none"
            raise InvalidArgumentException(
                f"remote must be given, as the repository has not just one: {found}"
            )
        return remotes[0]

    async def _access(
        self,
        path: str,
        remote: str | None,
        credentials: tuple[str | None, str | None],
        how: _HowToRun,
        *,
        push: bool = False,
    ) -> Access:
        """How to reach a remote with a user name and password, where these are given."""
        used = git_credentials.given(*credentials)
        if used is None:
            return git_credentials.Access("")
        chosen = remote or await self._only_remote(path, how)
        url = (await self._run(git_commands.remote_url(path, chosen, push=push), how)).stdout
        return git_credentials.access_to_remote(url.strip(), used)

    async def _exchange(
        self, operation: str, command: str, how: _HowToRun, used: Access
    ) -> CommandResult:
        """Run what talks to another repository."""
        try:
            return await self._run(command, how, used.environment)
        except CommandExitException as failure:
            # The cause would show the text that may hold the password.
            raise git_failures.explain(operation, failure, used) from None

    async def _run(
        self, command: str, how: _HowToRun, more: Mapping[str, str] | None = None
    ) -> CommandResult:
        return await self._commands.run(
            command,
            envs=git_credentials.environment(how.envs, more),
            user=how.user,
            cwd=how.cwd,
            timeout=how.timeout,
            request_timeout=how.request_timeout,
        )
