"""Your terminal in a sandbox: a shell until you leave it with `exit` or Ctrl-D.

Needs a running Emberbox (`emberbox up`) and the variables that it prints. Input may come from a
pipe too: `echo 'uname -a' | python examples/terminal.py`. The exit code is that of the shell.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import termios
import threading
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING

from emberbox import AsyncSandbox, CommandExitException, PtySize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emberbox import AsyncCommandHandle, AsyncCommandInputHandle

KEYBOARD = sys.stdin.fileno()
END_OF_INPUT = b"\x04"  # what Ctrl-D sends


async def main() -> int:
    async with await AsyncSandbox.create(timeout=3600) as sandbox:
        shell = await sandbox.pty.create(size_of_this_terminal(), show, timeout=0)
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as resizing:
            loop.add_signal_handler(
                signal.SIGWINCH,
                lambda: resizing.create_task(
                    sandbox.pty.resize(shell.pid, size_of_this_terminal())
                ),
            )
            with raw_keyboard():
                typed = sandbox.pty.stream_input(shell.pid, timeout=0)
                # A thread, since a read from a terminal cannot be cancelled when the shell ends.
                threading.Thread(target=forward_keys, args=(typed, loop), daemon=True).start()
                return await exit_code(shell)


def size_of_this_terminal() -> PtySize:
    columns, lines = shutil.get_terminal_size()
    return PtySize(rows=lines, cols=columns)


def show(output: bytes) -> None:
    sys.stdout.buffer.write(output)
    sys.stdout.buffer.flush()


def forward_keys(typed: AsyncCommandInputHandle, loop: asyncio.AbstractEventLoop) -> None:
    keys = b"-"
    while keys:
        keys = os.read(KEYBOARD, 4096)
        asyncio.run_coroutine_threadsafe(typed.send(keys or END_OF_INPUT), loop).result()


async def exit_code(shell: AsyncCommandHandle) -> int:
    try:
        await shell.wait()
    except CommandExitException as error:
        return error.exit_code
    return 0


@contextmanager
def raw_keyboard() -> Iterator[None]:
    """Every key goes to the sandbox, Ctrl-C too; this terminal neither echoes nor edits."""
    if not os.isatty(KEYBOARD):
        yield
        return
    before = termios.tcgetattr(KEYBOARD)
    tty.setraw(KEYBOARD)
    try:
        yield
    finally:
        termios.tcsetattr(KEYBOARD, termios.TCSADRAIN, before)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
