"""What the control plane does with one sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from emberbox.sdk.config import ConnectionConfig, merge_options
from emberbox.sdk.instance_or_class import InstanceOrClass
from emberbox.sdk.snapshot_models import pause_body, snapshot_body

from .control_plane import AsyncControlPlane
from .paginator import AsyncSnapshotPaginator

if TYPE_CHECKING:
    import logging
    from datetime import datetime
    from typing import Unpack

    from emberbox.sdk.config import ApiParams
    from emberbox.sdk.metrics_models import SandboxMetrics
    from emberbox.sdk.sandbox_models import SandboxAccess, SandboxInfo
    from emberbox.sdk.snapshot_models import SnapshotInfo, SnapshotMode


async def _kill_by_id(
    cls: type[AsyncSandboxControl], sandbox_id: str, **opts: Unpack[ApiParams]
) -> bool:
    """End a sandbox by its id; False when there is none."""
    return await cls._api_of(opts).kill(sandbox_id)


async def _set_timeout_by_id(
    cls: type[AsyncSandboxControl], sandbox_id: str, timeout: int, **opts: Unpack[ApiParams]
) -> None:
    """Let a sandbox end in `timeout` seconds. Raises SandboxNotFoundException."""
    await cls._api_of(opts).set_timeout(sandbox_id, timeout)


async def _get_info_by_id(
    cls: type[AsyncSandboxControl], sandbox_id: str, **opts: Unpack[ApiParams]
) -> SandboxInfo:
    """Details of a sandbox by its id. Raises SandboxNotFoundException."""
    return await cls._api_of(opts).info(sandbox_id)


async def _get_metrics_by_id(
    cls: type[AsyncSandboxControl],
    sandbox_id: str,
    start: datetime | None = None,
    end: datetime | None = None,
    **opts: Unpack[ApiParams],
) -> list[SandboxMetrics]:
    """What a sandbox used, by its id, from `start` to `end`. Raises SandboxNotFoundException."""
    return await cls._api_of(opts).metrics(sandbox_id, start, end)


async def _pause_by_id(
    cls: type[AsyncSandboxControl],
    sandbox_id: str,
    keep_memory: bool | None = None,
    *,
    mode: SnapshotMode | None = None,
    strict: bool = False,
    **opts: Unpack[ApiParams],
) -> bool:
    """Pause a sandbox by its id; as a sandbox's `pause`."""
    return await cls._api_of(opts).pause(sandbox_id, pause_body(keep_memory, mode, strict))


async def _create_snapshot_by_id(
    cls: type[AsyncSandboxControl],
    sandbox_id: str,
    name: str | None = None,
    *,
    mode: SnapshotMode | None = None,
    **opts: Unpack[ApiParams],
) -> SnapshotInfo:
    """Keep a sandbox as it is now, by its id; as a sandbox's `create_snapshot`."""
    return await cls._api_of(opts).create_snapshot(sandbox_id, snapshot_body(name, mode))


def _list_snapshots_by_id(
    cls: type[AsyncSandboxControl],
    sandbox_id: str | None = None,
    limit: int | None = None,
    next_token: str | None = None,
    name: str | None = None,
    **opts: Unpack[ApiParams],
) -> AsyncSnapshotPaginator:
    """Page through the snapshots of a sandbox, or of all; as a sandbox's `list_snapshots`."""
    merged = merge_options(cls._defaults, opts)
    return AsyncSnapshotPaginator(sandbox_id, limit, next_token, name, **merged)


class AsyncSandboxControl:
    """A sandbox as the control plane has it: what can be done whether it runs or is paused."""

    _defaults: ClassVar[ApiParams] = {}
    """Options of every call that is given none; an `E2B` client binds its own."""

    def __init__(self, access: SandboxAccess, config: ConnectionConfig) -> None:
        self._access = access
        self._config = config

    @property
    def sandbox_id(self) -> str:
        """The sandbox's id."""
        return self._access.sandbox_id

    async def _kill(self, **opts: Unpack[ApiParams]) -> bool:
        """End the sandbox; False when it had ended. `kill(sandbox_id)` on the class ends any."""
        return await self._api(opts).kill(self.sandbox_id)

    kill = InstanceOrClass(_kill, _kill_by_id)

    async def _set_timeout(self, timeout: int, **opts: Unpack[ApiParams]) -> None:
        """Let the sandbox end in `timeout` seconds, be that later or sooner than before.

        `set_timeout(sandbox_id, timeout)` on the class does it to any.
        Raises SandboxNotFoundException.
        """
        api = self._api(opts)
        await api.set_timeout(self.sandbox_id, timeout)

    set_timeout = InstanceOrClass(_set_timeout, _set_timeout_by_id)

    async def _get_info(self, **opts: Unpack[ApiParams]) -> SandboxInfo:
        """The sandbox's details; `get_info(sandbox_id)` on the class gives any sandbox's.

        Raises SandboxNotFoundException.
        """
        return await self._api(opts).info(self.sandbox_id)

    get_info = InstanceOrClass(_get_info, _get_info_by_id)

    async def _get_metrics(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        **opts: Unpack[ApiParams],
    ) -> list[SandboxMetrics]:
        """What the sandbox used, oldest first; `get_metrics(sandbox_id)` on the class for any.

        Args:
            start: begin of the time asked for; the sandbox's start by default.
            end: its end; now by default. Naive times are taken as local.

        Raises SandboxNotFoundException.
        """
        api = self._api(opts)
        return await api.metrics(self.sandbox_id, start, end)

    get_metrics = InstanceOrClass(_get_metrics, _get_metrics_by_id)

    async def _pause(
        self,
        keep_memory: bool | None = None,
        *,
        mode: SnapshotMode | None = None,
        strict: bool = False,
        **opts: Unpack[ApiParams],
    ) -> bool:
        """Write the sandbox to disk and end its VM; it stays until it is connected to or killed.

        With a sandbox id, `pause(sandbox_id, …)` on the class pauses any sandbox.

        Args:
            keep_memory: an older name: False is `mode="filesystem"`, True `mode="full"`.
            mode: `full` keeps memory and files: processes go on when it is resumed. With
                `filesystem` it boots from its files then.
            strict: refuse when the sandbox's daemon does not answer.

        Returns:
            False when it was paused already.

        Raises:
            SandboxNotFoundException: the sandbox is no more.
            ServiceBusyException: its host cannot do it now; it runs on.
        """
        return await self._api(opts).pause(self.sandbox_id, pause_body(keep_memory, mode, strict))

    pause = InstanceOrClass(_pause, _pause_by_id)

    async def _beta_pause(
        self,
        keep_memory: bool | None = None,
        *,
        mode: SnapshotMode | None = None,
        **opts: Unpack[ApiParams],
    ) -> bool:
        """An older name of `pause`."""
        return await self._pause(keep_memory, mode=mode, **opts)

    beta_pause = InstanceOrClass(_beta_pause, _pause_by_id)

    async def _create_snapshot(
        self,
        name: str | None = None,
        *,
        mode: SnapshotMode | None = None,
        **opts: Unpack[ApiParams],
    ) -> SnapshotInfo:
        """Keep the sandbox as it is now; it runs on. `create(snapshot_id)` makes others of it.

        With a sandbox id, `create_snapshot(sandbox_id, …)` on the class does it to any sandbox.

        Args:
            name: makes `<team>/<name>`, with `:tag` behind it if there is to be one. The same
                name again replaces what it stands for.
            mode: `full` keeps memory and files, `filesystem` the files alone.

        Raises:
            SandboxNotFoundException: the sandbox is no more, or is paused.
            ServiceBusyException: its host cannot do it now.
        """
        return await self._api(opts).create_snapshot(self.sandbox_id, snapshot_body(name, mode))

    create_snapshot = InstanceOrClass(_create_snapshot, _create_snapshot_by_id)

    def _list_snapshots(
        self,
        limit: int | None = None,
        next_token: str | None = None,
        name: str | None = None,
        **opts: Unpack[ApiParams],
    ) -> AsyncSnapshotPaginator:
        """Page through the snapshots of the sandbox, newest first; on the class, through all.

        Args:
            limit: snapshots on a page; at most, and by default, 100.
            name: name or id, with a tag or without.
        """
        merged = self._config.merged_options(**opts)
        return AsyncSnapshotPaginator(self.sandbox_id, limit, next_token, name, **merged)

    list_snapshots = InstanceOrClass(_list_snapshots, _list_snapshots_by_id)

    @classmethod
    async def delete_snapshot(cls, snapshot_id: str, **opts: Unpack[ApiParams]) -> bool:
        """Delete a snapshot; False when there is none.

        Raises SandboxException while sandboxes that were made of it are there.
        """
        return await cls._api_of(opts).delete_snapshot(snapshot_id)

    @classmethod
    def _configure(cls, logger: logging.Logger | None, opts: ApiParams) -> ConnectionConfig:
        return ConnectionConfig(logger=logger, **merge_options(cls._defaults, opts))

    @classmethod
    def _api_of(cls, opts: ApiParams) -> AsyncControlPlane:
        return AsyncControlPlane(cls._configure(None, opts))

    def _api(self, opts: ApiParams) -> AsyncControlPlane:
        return AsyncControlPlane(self._config.with_options(**opts))
