"""Serves the bare repositories below a directory over HTTP, to one user alone.

`python git_server.py DIRECTORY USER PASSWORD` prints the port that it listens on, on 127.0.0.1.
It needs nothing but git and the standard library, so that it runs in a sandbox too.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit


class GitHandler(BaseHTTPRequestHandler):
    """Hands requests with the right credentials to `git http-backend`, a CGI program."""

    root: ClassVar[str]
    allowed: ClassVar[str]

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != self.allowed:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._answer(self._run_backend())

    do_POST = do_GET  # noqa: N815 (the name that the base class looks for)

    def _run_backend(self) -> bytes:
        target = urlsplit(self.path)
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": self.root,
            "GIT_HTTP_EXPORT_ALL": "1",
            "REMOTE_USER": "tester",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": target.path,
            "QUERY_STRING": target.query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        ran = subprocess.run(
            ["git", "http-backend"], input=body, env=environment, capture_output=True, check=True
        )
        return ran.stdout

    def _answer(self, output: bytes) -> None:
        head, _, body = output.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


def serve(root: str, user: str, password: str) -> ThreadingHTTPServer:
    """The server, which is to be started with `serve_forever`."""
    credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
    members = {"root": root, "allowed": f"Basic {credentials}"}
    return ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (GitHandler,), members))


if __name__ == "__main__":
    with serve(*sys.argv[1:4]) as server:
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()
