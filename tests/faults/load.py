"""Clients that go on whatever happens to the programs, and remember what they were refused."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Self

from emberbox import Sandbox
from tests.faults.invariants import REFUSALS
from tests.stack import wait_until

if TYPE_CHECKING:
    from types import TracebackType

    from emberbox import CommandHandle
    from tests.stack import Stack

COUNTER = "i=0; while true; do i=$((i+1)); echo $i > next; mv next count; echo $i; sleep 0.5; done"

LIFE_SECONDS = 120
"""Of a sandbox that a fault makes everybody forget."""


class Load:
    """`clients` threads that make sandboxes, use them and kill them, until the block ends."""

    def __init__(self, stack: Stack, clients: int, seed: int) -> None:
        self.refused: list[Exception] = []
        self.done = 0
        """Calls that succeeded."""
        self._stack = stack
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(random.Random(f"{seed} {n}"),))
            for n in range(clients)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self, chance: random.Random) -> None:
        while not self._stop.is_set():
            try:
                self._live_once(chance)
            except Exception as error:  # noqa: BLE001 - judged by the test
                self.refused.append(error)
                self._stop.wait(0.2)

    def _live_once(self, chance: random.Random) -> None:
        # A life that no test outlives: whatever a fault makes us forget ends by itself.
        sandbox = Sandbox.create(timeout=LIFE_SECONDS, **self._stack.sdk)
        self.done += 1
        try:
            for _ in range(chance.randint(1, 4)):
                self._use(sandbox, chance)
                self.done += 1
        finally:
            self._kill(sandbox)

    def _use(self, sandbox: Sandbox, chance: random.Random) -> None:
        text = str(chance.random())
        match chance.randrange(3):
            case 0:
                sandbox.files.write("/home/user/note", text)
                assert sandbox.files.read("/home/user/note") == text
            case 1:
                assert sandbox.commands.run(f"echo {text}").stdout == f"{text}\n"
            case _:
                sandbox.set_timeout(LIFE_SECONDS)

    def _kill(self, sandbox: Sandbox) -> None:
        """Until it is certain that nothing is left."""

        def killed() -> bool:
            try:
                sandbox.kill()
            except REFUSALS as error:
                self.refused.append(error)
                return False
            return True

        wait_until(killed, 120)


class Keeper:
    """A sandbox that must outlive every fault, with a file, a process that counts, and a stream
    of its output."""

    def __init__(self, stack: Stack) -> None:
        self.sandbox = Sandbox.create(timeout=1800, **stack.sdk)
        self.sandbox.files.write("/home/user/kept", self.sandbox.sandbox_id)
        self.last = 0
        self.broken: Exception | None = None
        self._handle: CommandHandle | None = None
        process = self.sandbox.commands.run(COUNTER, background=True, timeout=0)
        self.pid = process.pid
        self._follow(process)

    def assert_kept(self, *, stream: bool) -> None:
        """Its file is whole, its process counts on and, with `stream`, its output still comes.

        Without, the stream crossed what was killed: it is taken up again.
        """

        def answers() -> bool:
            try:
                kept = self.sandbox.files.read("/home/user/kept")
            except REFUSALS:
                return False
            assert kept == self.sandbox.sandbox_id
            return True

        wait_until(answers, 60)
        assert self.pid in [one.pid for one in self.sandbox.commands.list()]
        if not stream:
            self._follow(self.sandbox.commands.connect(self.pid, timeout=0))
        seen = self.last
        wait_until(lambda: self.last > seen or self.broken is not None, 60)
        assert self.broken is None, f"its stream broke: {self.broken!r}"

    def end(self) -> None:
        """Kill it, and let go of its stream."""
        self.sandbox.kill()
        self._thread.join()

    def _follow(self, handle: CommandHandle) -> None:
        self.broken = None
        self._handle = handle

        def read() -> None:
            try:
                handle.wait(on_stdout=self._take)
            except Exception as error:  # noqa: BLE001 - judged by the test
                if self._handle is handle:
                    self.broken = error

        self._thread = threading.Thread(target=read)
        self._thread.start()

    def _take(self, text: str) -> None:
        for line in text.split():
            self.last = max(self.last, int(line))
