"""In place of the API server and the client proxy: answers /health.

standin_web.py PORT HOME NAME; a file `HOME/broken-NAME` makes it die with a message at once.
"""

from __future__ import annotations

import http.server
import sys
from pathlib import Path


class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()


def main(port: str, home: str, name: str) -> None:
    if Path(home, f"broken-{name}").exists():
        sys.exit(f"emberbox: {name} is broken on purpose")
    if name == "api-server":
        Path(home, "api_key").write_text("e2b_" + "0" * 40)
    http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Healthy).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
