"""Servers of a user inside a sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from websockets.exceptions import InvalidStatus

from tests.stack import wait_until

if TYPE_CHECKING:
    from emberbox import Sandbox

ECHO = Path(__file__).parents[3] / "examples" / "websocket_echo.py"
PAGES, MESSAGES = 8000, 8765
"""Ports inside: a web server that listens on 127.0.0.1, and a WebSocket that echoes."""


def serve_pages(sandbox: Sandbox) -> None:
    """Serve `/page`; returns when it answers."""
    sandbox.files.write("/home/user/site/page", "from inside")
    server = f"python3 -m http.server {PAGES} --bind 127.0.0.1 --directory /home/user/site"
    sandbox.commands.run(server, background=True, timeout=0)
    with sandbox.http(PAGES) as client:
        wait_until(lambda: client.get("/page").status_code == 200, 60)


def serve_messages(sandbox: Sandbox) -> None:
    """Send each message back; returns when it does."""
    sandbox.files.write("/home/user/echo.py", ECHO.read_text())
    sandbox.commands.run(f"python3 /home/user/echo.py {MESSAGES}", background=True, timeout=0)
    wait_until(lambda: echoes(sandbox), 60)


def echoes(sandbox: Sandbox) -> bool:
    """Whether a new WebSocket sends a message back."""
    try:
        with sandbox.websocket(MESSAGES, open_timeout=60) as connection:
            connection.send("now")
            return connection.recv(timeout=10) == "now"
    except InvalidStatus:  # 502: it does not listen yet
        return False
