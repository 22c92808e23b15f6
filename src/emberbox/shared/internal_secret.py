"""The secret that our own programs show one another."""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from typing import TYPE_CHECKING

from emberbox.shared.errors import StartupError

if TYPE_CHECKING:
    from pathlib import Path


def load_or_create(path: Path) -> str:
    """Read the shared secret, or make it when no program has yet (0600, 32 random bytes in hex).

    Programs may start at the same moment, so the file is linked into place whole: one of them
    wins and the others read what it wrote. Raises StartupError when it is readable by others.
    """
    if not path.exists():
        _create(path)
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise StartupError(f"{path} is open to other users (mode {mode:o}): run chmod 600 {path}")
    secret = path.read_text().strip()
    if not secret:
        raise StartupError(f"{path} is empty: delete it and start again")
    return secret


def matches(presented: str | bytes | None, secret: str) -> bool:
    """Compare in constant time; a missing value never matches."""
    if presented is None:
        return False
    given = presented.encode() if isinstance(presented, str) else presented
    return hmac.compare_digest(given, secret.encode())


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(secrets.token_hex(32))
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):
        path.hardlink_to(beside)
    beside.unlink()
