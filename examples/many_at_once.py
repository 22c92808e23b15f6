"""Three sandboxes at once with the asynchronous SDK; output is printed as it comes.

Needs a running Emberbox (`emberbox up`) and the variables that it prints.
"""

from __future__ import annotations

import asyncio

from emberbox import AsyncSandbox

COUNT = "for i in 1 2 3; do echo $i; sleep 1; done"


async def count(name: str) -> int:
    """Count to three in a sandbox of its own; the exit code."""
    async with await AsyncSandbox.create(metadata={"name": name}) as sandbox:
        result = await sandbox.commands.run(
            COUNT, on_stdout=lambda piece: print(f"{name}: {piece.strip()}", flush=True)
        )
        return result.exit_code


async def main() -> None:
    codes = await asyncio.gather(*(count(name) for name in ("ash", "beech", "cedar")))
    print("exit codes:", codes)


if __name__ == "__main__":
    asyncio.run(main())
