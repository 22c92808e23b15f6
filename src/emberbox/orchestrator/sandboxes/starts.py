"""Who may start next.

So many starts go on at once: more would only make each of them slower. Those that wait are taken
from one group after the other, so that whoever asks for a hundred does not hold up who asks for
one. Who would wait too long is refused at once and told when to come again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from emberbox.orchestrator.errors import AdmissionRefused

if TYPE_CHECKING:
    from types import TracebackType

_FIRST_GUESS = 0.5
"""Seconds that a start is thought to take before one was measured."""

_WEIGHT_OF_NEW = 0.2

_FIRST_USE_SECONDS = 0.5
"""After a start its sandbox is used for the first time: somebody waits for a command then."""

_PROCESSORS = 2
"""What the first use of one sandbox may keep busy: its own processor, and what serves it."""


class Turn:
    """A place in the queue: `async with` waits for it, and the block is the start."""

    def __init__(self, queue: StartQueue, group: str) -> None:
        self.group = group
        self.given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue = queue
        self._began = 0.0

    async def __aenter__(self) -> None:
        """Raises AdmissionRefused when it does not come in time."""
        try:
            await self._queue.wait_for(self)
        except BaseException:
            self._queue.leave(self)
            raise
        self._began = time.monotonic()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _at: TracebackType | None,
    ) -> None:
        self._queue.leave(self, time.monotonic() - self._began if kind is None else None)


class StartQueue:
    """`at_once` starts go on at a time; nobody waits longer than `longest_wait` seconds.

    first_use: seconds after a start in which it is disturbed by what is done ahead
    """

    def __init__(
        self, at_once: int, longest_wait: float, first_use: float = _FIRST_USE_SECONDS
    ) -> None:
        self._at_once = at_once
        self._longest_wait = longest_wait
        self._first_use = first_use
        self._first_used = 0
        self._free = at_once
        self._waiting: OrderedDict[str, deque[Turn]] = OrderedDict()
        self._stepped_in = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._seconds = _FIRST_GUESS

    def join(self, group: str = "") -> Turn:
        """Take a place at the end of the group's own queue; for one `async with`.

        Raises AdmissionRefused when its turn would come too late.
        """
        wait = self.expected_wait(group)
        if wait > self._longest_wait:
            raise self._refusal(f"this one would have to wait {wait:.3g} s", wait)
        turn = Turn(self, group)
        self._waiting.setdefault(group, deque()).append(turn)
        self._proceed()
        return turn

    def expected_wait(self, group: str = "") -> float:
        """Seconds until another start of the group would begin, as starts took lately."""
        own = len(self._waiting.get(group, ()))
        others = (len(turns) for name, turns in self._waiting.items() if name != group)
        # Each other group has one turn between two of this one's.
        before = own + sum(min(waiting, own + 1) for waiting in others)
        return max(0, before + 1 - self._free) * self._seconds / self._at_once

    def step_in(self) -> contextlib.ExitStack:
        """Start without a turn what is over in a moment; closed when it is over.

        Nobody waits for it but what is done ahead.
        """
        self._stepped_in += 1
        self._proceed()
        over = contextlib.ExitStack()
        over.callback(self._step_out)
        return over

    async def idle(self) -> None:
        """Return when nothing that is done ahead would disturb a start, or who has just got one."""
        await self._idle.wait()

    async def wait_for(self, turn: Turn) -> None:
        """Return when it is the turn's time. Raises AdmissionRefused."""
        try:
            async with asyncio.timeout(self._longest_wait):
                await turn.given
        except TimeoutError:
            said = f"this one has waited {self._longest_wait:g} s"
            raise self._refusal(said, self.expected_wait(turn.group)) from None

    def leave(self, turn: Turn, took: float | None = None) -> None:
        """The turn is over, after so many seconds when it succeeded, or never came."""
        if took is not None:
            self._seconds += _WEIGHT_OF_NEW * (took - self._seconds)
            self._begin_first_use()
        if turn.given.done() and not turn.given.cancelled():
            self._free += 1
        else:
            self._remove(turn)
        self._proceed()

    def _proceed(self) -> None:
        while self._free and self._waiting:
            group, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._waiting[group] = turns  # behind the others
            if not turn.given.done():  # cancelled, and about to leave
                turn.given.set_result(None)
                self._free -= 1
        used = _PROCESSORS * self._first_used >= self._at_once
        if self._free and not (self._waiting or self._stepped_in or used):
            self._idle.set()
        else:
            self._idle.clear()

    def _step_out(self) -> None:
        self._stepped_in -= 1
        self._begin_first_use()
        self._proceed()

    def _begin_first_use(self) -> None:
        self._first_used += 1
        asyncio.get_running_loop().call_later(self._first_use, self._end_first_use)

    def _end_first_use(self) -> None:
        self._first_used -= 1
        self._proceed()

    def _remove(self, turn: Turn) -> None:
        turns = self._waiting.get(turn.group)
        if turns is not None and turn in turns:
            turns.remove(turn)
            if not turns:
                del self._waiting[turn.group]

    def _refusal(self, why: str, wait: float) -> AdmissionRefused:
        return AdmissionRefused(
            f"the host starts {self._at_once} sandboxes at once and {why}"
            f" (EMBERBOX_CONCURRENT_STARTS={self._at_once},"
            f" EMBERBOX_START_WAIT={self._longest_wait:g})",
            retry_after=max(1.0, wait - self._longest_wait),
        )
