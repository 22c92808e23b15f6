"""`AsyncSandbox`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import httpx2

from emberbox.sdk.config import ENVD_PORT, ConnectionConfig, merge_options, routing_headers
from emberbox.sdk.create_options import lifecycle_body, network_body
from emberbox.sdk.instance_or_class import InstanceOrClass
from emberbox.sdk.not_yet import NotYet, refuse_options
from emberbox.sdk.sandbox_models import create_body
from emberbox.sdk.signatures import file_query
from emberbox.sdk.snapshot_models import fork_body
from emberbox.sdk.transport_options import choose_proxy

from .commands import AsyncCommands
from .control_plane import AsyncControlPlane
from .envd import AsyncEnvd
from .filesystem import AsyncFilesystem
from .flavour import open_websocket
from .git import AsyncGit
from .paginator import AsyncSandboxPaginator
from .pty import AsyncPty
from .sandbox_control import AsyncSandboxControl
from .transport import PooledTransport

if TYPE_CHECKING:
    import builtins
    import logging
    from collections.abc import Mapping, Sequence
    from typing import Self, Unpack

    from emberbox.sdk.config import ApiParams, Username
    from emberbox.sdk.create_options import McpServer, SandboxIamOpts, SandboxLifecycle
    from emberbox.sdk.network_models import SandboxNetworkOpts
    from emberbox.sdk.sandbox_models import (
        SandboxAccess,
        SandboxListOrder,
        SandboxOnResume,
        SandboxQuery,
    )

    from .flavour import WebSocket


async def _connect_by_id(
    cls: type[AsyncSandbox],
    sandbox_id: str,
    timeout: int | None = None,
    logger: logging.Logger | None = None,
    *,
    on_resume: SandboxOnResume = "restore",
    **opts: Unpack[ApiParams],
) -> AsyncSandbox:
    """Connect to a sandbox by its id, from anywhere; a paused one is resumed.

    Args:
        timeout: seconds until it ends; a running sandbox's time is never shortened.
        logger: gets a line for each request and answer.
        on_resume: `reboot` starts a paused sandbox from its disk, without its memory.

    Raises:
        SandboxNotFoundException: there is no such sandbox.
    """
    config = cls._configure(logger, opts)
    access = await AsyncControlPlane(config).connect(sandbox_id, timeout, on_resume)
    return cls(access, config)


async def _fork_by_id(
    cls: type[AsyncSandbox],
    sandbox_id: str,
    timeout: int | None = None,
    count: int | None = None,
    logger: logging.Logger | None = None,
    **opts: Unpack[ApiParams],
) -> list[AsyncSandbox | Exception]:
    """Start sandboxes that go on from where another is, by its id.

    The arguments but for `logger`, and the answer, are those of a sandbox's `fork`.
    """
    body = fork_body(timeout, count)
    config = cls._configure(logger, opts)
    results = await AsyncControlPlane(config).fork(sandbox_id, body)
    return [one if isinstance(one, Exception) else cls(one, config) for one in results]


class AsyncSandbox(AsyncSandboxControl):
    """A computer of its own for a program: `await AsyncSandbox.create()` makes one.

    As a context manager it is killed at the end of the block. Options (`**opts`, ApiParams)
    given to `create` or `connect` hold for all its requests; those given to a method, for that
    call. Calls to the control plane can raise AuthenticationException, RateLimitException,
    ServiceBusyException, TimeoutException, ApiUnreachableException and SandboxException.
    """

    default_template = "base"
    default_sandbox_timeout = 300
    """Seconds that the server gives a sandbox when `timeout` is left out."""
    default_mcp_template = "mcp-gateway"
    """Template of a sandbox with MCP servers."""
    mcp_port = 50005
    """Port of the MCP gateway in such a sandbox."""

    update_network = NotYet()
    get_mcp_url = NotYet()
    get_mcp_token = NotYet()

    def __init__(self, access: SandboxAccess, config: ConnectionConfig) -> None:
        """Made by `create` and `connect`."""
        super().__init__(access, config)
        tokens = {"X-Access-Token": access.envd_access_token} if access.envd_access_token else {}
        headers = {**routing_headers(access.sandbox_id, ENVD_PORT), **tokens}
        self._envd = AsyncEnvd(config, self._base_url(ENVD_PORT), headers)
        self._commands = AsyncCommands(self._envd)
        self._pty = AsyncPty(self._envd)
        self._git = AsyncGit(self._commands)
        self._files = AsyncFilesystem(self._envd)

    @property
    def sandbox_domain(self) -> str | None:
        """Domain below which the sandbox's ports have names; None when there is none."""
        return self._access.sandbox_domain or self._config.domain

    @property
    def traffic_access_token(self) -> str | None:
        """What a request to a port must carry when the sandbox is not open to all."""
        return self._access.traffic_access_token

    @property
    def connection_config(self) -> ConnectionConfig:
        """The configuration of its requests."""
        return self._config

    @property
    def commands(self) -> AsyncCommands:
        """Commands in the sandbox."""
        return self._commands

    @property
    def pty(self) -> AsyncPty:
        """Terminals in the sandbox."""
        return self._pty

    @property
    def files(self) -> AsyncFilesystem:
        """Files in the sandbox."""
        return self._files

    @property
    def git(self) -> AsyncGit:
        """Repositories in the sandbox."""
        return self._git

    @property
    def envd_api_url(self) -> str:
        """Where the SDK reaches the sandbox's daemon."""
        return self._base_url(ENVD_PORT)

    @property
    def envd_direct_url(self) -> str:
        """Where URLs of files begin; the same address."""
        return self._base_url(ENVD_PORT)

    @classmethod
    async def create(  # noqa: PLR0917 (as in e2b)
        cls,
        template: str | None = None,
        timeout: int | None = None,
        metadata: dict[str, str] | None = None,
        envs: dict[str, str] | None = None,
        secure: bool | None = None,
        allow_internet_access: bool | None = None,
        mcp: McpServer | None = None,
        network: SandboxNetworkOpts | None = None,
        iam: SandboxIamOpts | None = None,
        lifecycle: SandboxLifecycle | None = None,
        volume_mounts: Mapping[str, object] | None = None,
        logger: logging.Logger | None = None,
        idempotency_key: str | None = None,
        **opts: Unpack[ApiParams],
    ) -> Self:
        """Create a sandbox and return when it runs.

        Args:
            template: name or id of what it is made from; `base` by default.
            timeout: seconds until it ends; the server decides (300) by default.
            metadata: kept with the sandbox, `list` can filter by it.
            envs: environment variables of its commands.
            secure: ignored, as in `e2b`: access to the daemon is always secured.
            allow_internet_access: False closes the internet to it.
            network: `{"allow_public_traffic": False}` closes its ports to those who do not
                send `traffic_access_token`; the other fields are not supported yet.
            lifecycle: what happens at the end: `{"on_timeout": "kill"}`, the default;
                `{"on_timeout": "pause"}`, with `"auto_resume": True` to go on when it is used;
                or `{"on_timeout": {"action": "pause", "mode": "filesystem"}}` to keep the files
                alone, from which it boots when it is connected to.
            mcp, iam, volume_mounts: not supported yet.
            logger: gets a line for each request and answer.
            idempotency_key: 1-255 of `a-z0-9-`; calls with the same key make one sandbox.
                Without it each call has a key of its own, so that its repeats make one.

        Raises:
            SandboxException: the template is unknown, or an option is out of range.
            RateLimitException: the quota is used up.
            ServiceBusyException: there is no room for it now.
            InvalidArgumentException: the lifecycle contradicts itself.
            NotSupportedYetException: an option that is not supported yet was given.
        """
        name = f"{cls.__name__}.create"
        refuse_options(name, {"mcp": mcp, "iam": iam, "volume_mounts": volume_mounts})
        body = {
            **create_body(
                template or cls.default_template, timeout, metadata, envs, allow_internet_access
            ),
            **lifecycle_body(lifecycle),
            **network_body(name, network),
        }
        config = cls._configure(logger, opts)
        return cls(await AsyncControlPlane(config).create(body, idempotency_key), config)

    @classmethod
    def list(
        cls,
        query: SandboxQuery | None = None,
        limit: int | None = None,
        next_token: str | None = None,
        order: SandboxListOrder | None = None,
        **opts: Unpack[ApiParams],
    ) -> AsyncSandboxPaginator:
        """Page through the sandboxes, running and paused unless `query` says otherwise.

        Args:
            limit: sandboxes on a page; at most, and by default, 100.
            order: by start time, newest first by default.
        """
        merged = merge_options(cls._defaults, opts)
        return AsyncSandboxPaginator(query, limit, next_token, order, **merged)

    async def _connect(
        self,
        timeout: int | None = None,
        *,
        on_resume: SandboxOnResume = "restore",
        **opts: Unpack[ApiParams],
    ) -> Self:
        """Connect again, resuming the sandbox if it was paused.

        With a sandbox id, `connect(sandbox_id, …)` on the class connects to any sandbox.

        Args:
            timeout: seconds until it ends; a running sandbox's time is never shortened.
            on_resume: `reboot` starts a paused sandbox from its disk, without its memory.

        Raises:
            SandboxNotFoundException: the sandbox is no more.
        """
        api = AsyncControlPlane(self._config.with_options(**opts))
        await api.connect(self.sandbox_id, timeout, on_resume)
        return self

    connect = InstanceOrClass(_connect, _connect_by_id)

    async def _fork(
        self, timeout: int | None = None, count: int | None = None, **opts: Unpack[ApiParams]
    ) -> builtins.list[Self | Exception]:
        """Start sandboxes that go on from where this one is, with its memory; it runs on.

        With a sandbox id, `fork(sandbox_id, …)` on the class forks any sandbox.

        Args:
            timeout: seconds until they end; the server decides (15) by default.
            count: how many, 1 to 100; one by default.

        Returns:
            For each either a sandbox with an id and tokens of its own, or the error that kept
            it from starting.

        Raises:
            SandboxNotFoundException: the sandbox is no more.
            SandboxException: it is paused.
            ServiceBusyException: its host cannot write it to disk now.
        """
        body = fork_body(timeout, count)
        config = self._config.with_options(**opts)
        results = await AsyncControlPlane(config).fork(self.sandbox_id, body)
        return [one if isinstance(one, Exception) else type(self)(one, config) for one in results]

    fork = InstanceOrClass(_fork, _fork_by_id)

    async def is_running(self, request_timeout: float | None = None) -> bool:
        """Whether the sandbox answers; False once it is killed, paused or past its timeout.

        Raises AuthenticationException, and TimeoutException when nobody answers in time.
        """
        return await self._envd.is_healthy(request_timeout)

    def get_host(self, port: int) -> str:
        """Host name of a port in the sandbox, for those who can resolve it.

        Raises InvalidArgumentException when no domain is known; `http` needs none.
        """
        return self._config.host(self.sandbox_id, port, self._access.sandbox_domain)

    def download_url(
        self, path: str, user: Username | None = None, use_signature_expiration: int | None = None
    ) -> str:
        """URL to GET a file from. Whoever has it needs no token, as the URL is signed.

        Args:
            user: whose home relative paths start at, and whose rights count.
            use_signature_expiration: seconds from now until the URL stops working; without it,
                it works as long as the sandbox lives.

        Raises InvalidArgumentException for an expiration in a sandbox that is not secured.
        """
        return self._file_url(path, "read", user, use_signature_expiration)

    def upload_url(
        self, path: str, user: Username | None = None, use_signature_expiration: int | None = None
    ) -> str:
        """URL to POST a file to, as `multipart/form-data` with the part `file`.

        The arguments are those of `download_url`. With an empty path, the name of the part is
        the path.
        """
        return self._file_url(path, "write", user, use_signature_expiration)

    def http(self, port: int) -> httpx2.AsyncClient:
        """An HTTP client whose relative URLs lead to a port in the sandbox; no DNS is needed.

        Ports that listen on 127.0.0.1 in the sandbox are reached too. The client shares the
        SDK's connections, so it need not be closed. Its timeout is the request timeout.
        """
        return httpx2.AsyncClient(
            base_url=self._base_url(port),
            headers=self._port_headers(port),
            timeout=self._config.request_timeout,
            transport=PooledTransport(self._config.proxy),
        )

    def websocket(
        self,
        port: int,
        path: str = "/",
        *,
        additional_headers: Mapping[str, str] | None = None,
        subprotocols: Sequence[str] | None = None,
        open_timeout: float | None = 10,
        max_size: int | None = 1 << 20,
    ) -> WebSocket:
        """A WebSocket to a port in the sandbox: `async with sandbox.websocket(8765) as ws`.

        Args:
            path: path and query of the WebSocket.
            open_timeout: seconds that opening may take; None for no limit.
            max_size: longest message to accept, in bytes; None for no limit.

        Raises what `websockets` raises: InvalidStatus when the port does not take it.
        """
        url = f"{self._base_url(port)}/{path.removeprefix('/')}"
        return open_websocket(
            url.replace("http", "ws", 1),
            {**self._port_headers(port), **(additional_headers or {})},
            proxy=choose_proxy(url, self._config.proxy),
            subprotocols=subprotocols,
            open_timeout=open_timeout,
            max_size=max_size,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.kill()

    def _file_url(
        self,
        path: str,
        operation: Literal["read", "write"],
        user: Username | None,
        expiration: int | None,
    ) -> str:
        token = self._access.envd_access_token
        query = file_query(path, operation, user, token, expiration)
        return f"{self.envd_direct_url}/files{query}"

    def _base_url(self, port: int) -> str:
        return self._config.base_url(self.sandbox_id, port, self._access.sandbox_domain)

    def _port_headers(self, port: int) -> dict[str, str]:
        return routing_headers(self.sandbox_id, port, self.traffic_access_token)
