"""File work on threads, with the rights of the asking user."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from emberbox.envd.errors import from_os_error
from emberbox.envd.identity import acting_as

if TYPE_CHECKING:
    from collections.abc import Callable

    from emberbox.envd.users import User, Users

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_THREADS = 8


class Workers:
    """The threads, and the users in whose name they act."""

    def __init__(self, users: Users) -> None:
        self.users = users
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="files")

    async def run(
        self,
        function: Callable[_Arguments, _Result],
        *arguments: _Arguments.args,
        **options: _Arguments.kwargs,
    ) -> _Result:
        """On a thread, with envd's own rights: for descriptors that are open already."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: function(*arguments, **options))

    async def run_as(
        self,
        user: User,
        function: Callable[_Arguments, _Result],
        *arguments: _Arguments.args,
        **options: _Arguments.kwargs,
    ) -> _Result:
        """On a thread that has the rights of `user`.

        A failed system call is raised as the EnvdError that names its path.
        """

        def act() -> _Result:
            with acting_as(user):
                return function(*arguments, **options)

        try:
            return await self.run(act)
        except OSError as error:
            path = error.filename if isinstance(error.filename, str) else str(arguments[0])
            raise from_os_error(error, path) from error

    def close_later(self, fd: int) -> None:
        """Closes a file that was read. Closing the last name of a file that is large takes time."""
        with suppress(RuntimeError):  # envd ends, and the kernel closes it
            self._pool.submit(os.close, fd)

    def close(self) -> None:
        """Does not wait for what runs."""
        self._pool.shutdown(wait=False, cancel_futures=True)
