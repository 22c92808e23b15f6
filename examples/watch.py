"""Watch a directory in a sandbox while a command works in it.

Needs a running Emberbox (`emberbox up`) and the variables that it prints.
"""

from __future__ import annotations

import asyncio

from emberbox import AsyncSandbox, FilesystemEvent

DIRECTORY = "/home/user/work"
WORK = "mkdir notes; echo draft > letter; chmod 600 letter; mv letter sent; rm sent; touch finished"


async def main() -> None:
    finished = asyncio.Event()

    def show(event: FilesystemEvent) -> None:
        size = f", now {event.entry.size} bytes" if event.entry else ""
        print(f"{event.type.value:7} {event.name}{size}", flush=True)
        if event.name == "finished":
            finished.set()

    async with await AsyncSandbox.create() as sandbox:
        await sandbox.files.make_dir(DIRECTORY)
        watch = await sandbox.files.watch_dir(
            DIRECTORY, show, recursive=True, include_entry=True, timeout=0
        )
        await sandbox.commands.run(WORK, cwd=DIRECTORY)
        await asyncio.wait_for(finished.wait(), 60)
        await watch.stop()


if __name__ == "__main__":
    asyncio.run(main())
