"""A sandbox from end to end: run Python, move a file, reach servers in it, kill it.

Needs a running Emberbox (`emberbox up`) and the variables that it prints. With
EMBERBOX_QUICKSTART_SDK=e2b the same program uses the official package instead. With `up --tls` and
EMBERBOX_QUICKSTART_CA, the file that it names, it opens a link by https, too. Ends with exit code 0
only if every step gave what it should.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import ssl
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import websockets.exceptions
import websockets.sync.client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

if os.environ.get("EMBERBOX_QUICKSTART_SDK", "emberbox") == "e2b":
    from e2b import Sandbox
else:
    from emberbox import Sandbox

HERE = Path(__file__).parent
FILE_MIB = 50
PATIENCE = 120  # seconds for a server in the sandbox to come up; an emulated CPU is slow

PROGRAM = """
import platform, sys
print("hello from Python", platform.python_version(), "on", platform.machine())
print("the first squares are", [n * n for n in range(5)])
"""


def main() -> None:
    with step("create a sandbox"):
        sandbox = Sandbox.create(timeout=900)
        print(f"  {sandbox.sandbox_id}")
    try:
        run_python(sandbox)
        compare_kernels(sandbox)
        move_a_file(sandbox)
        fetch_a_page(sandbox)
        open_a_link(sandbox)
        talk_to_a_websocket(sandbox)
    except BaseException:
        sandbox.kill()
        raise
    with step("kill the sandbox"):
        check(sandbox.kill(), "the sandbox was there to be killed")
        check(not sandbox.is_running(), "the sandbox no longer runs")


def run_python(sandbox: Sandbox) -> None:
    with step("run Python in it"):
        sandbox.files.write("/home/user/hello.py", PROGRAM)
        output = sandbox.commands.run("python3 /home/user/hello.py", timeout=PATIENCE).stdout
        print("  " + output.strip().replace("\n", "\n  "))
        check("[0, 1, 4, 9, 16]" in output, "the program printed the squares")


def compare_kernels(sandbox: Sandbox) -> None:
    with step("compare the kernels"):
        inside = sandbox.commands.run("uname -r", timeout=PATIENCE).stdout.strip()
        outside = os.uname().release
        print(f"  inside {inside}, outside {outside}")
        check(inside != outside, "the sandbox has a kernel of its own")


def move_a_file(sandbox: Sandbox) -> None:
    content = secrets.token_bytes(FILE_MIB << 20)
    with step(f"write {FILE_MIB} MiB"):
        sandbox.files.write("/home/user/blob", content, request_timeout=600)
    with step(f"read {FILE_MIB} MiB"):
        back = sandbox.files.read("/home/user/blob", format="bytes", request_timeout=600)
    sums = [hashlib.sha256(data).hexdigest() for data in (content, back)]
    print(f"  sha256 {sums[0][:16]}… written, {sums[1][:16]}… read")
    check(sums[0] == sums[1], "the file came back as it was written")


def fetch_a_page(sandbox: Sandbox) -> None:
    with step("fetch a page from a server that listens on 127.0.0.1:8000 in it"):
        sandbox.files.write("/home/user/site/index.html", "<h1>hello from the sandbox</h1>")
        server = "python3 -m http.server 8000 --bind 127.0.0.1 --directory /home/user/site"
        sandbox.commands.run(server, background=True, timeout=0)

        def fetch() -> str:
            with open_http(sandbox, 8000) as client:
                return client.get("/").raise_for_status().text

        page = wait_for(fetch)
        print(f"  {page}")
        check("hello from the sandbox" in page, "the page is the one that was written")


def open_a_link(sandbox: Sandbox) -> None:
    """Where `emberbox up --tls` runs: EMBERBOX_QUICKSTART_CA names the authority to trust."""
    authority = os.environ.get("EMBERBOX_QUICKSTART_CA")
    if authority is None:
        return
    link = f"https://{sandbox.get_host(8000)}/"
    with step(f"open {link} with curl, and with Python"):
        curl = ["curl", "--silent", "--show-error", "--fail", "--cacert", authority, link]
        by_curl = subprocess.run(curl, stdout=subprocess.PIPE, text=True, check=True).stdout
        context = ssl.create_default_context(cafile=authority)
        with urllib.request.urlopen(link, timeout=30, context=context) as answer:
            by_python = answer.read().decode()
        check("hello from the sandbox" in by_curl, "curl got the page")
        check(by_curl == by_python, "Python got the same")


def talk_to_a_websocket(sandbox: Sandbox) -> None:
    with step("talk to a WebSocket server in it"):
        sandbox.files.write("/home/user/echo.py", (HERE / "websocket_echo.py").read_text())
        sandbox.commands.run("python3 /home/user/echo.py 8765", background=True, timeout=0)

        def talk() -> str:
            with open_websocket(sandbox, 8765) as connection:
                connection.send("are you there?")
                return str(connection.recv(timeout=30))

        answer = wait_for(talk)
        print(f"  {answer}")
        check(answer == "are you there?", "the echo is what was sent")


def open_http(sandbox: Sandbox, port: int) -> httpx2.Client:
    """An HTTP client for a port in the sandbox; the official SDK leaves that to its user."""
    if hasattr(sandbox, "http"):
        return sandbox.http(port)
    return httpx2.Client(base_url=proxy_url(), headers=routing(sandbox, port), timeout=30)


def open_websocket(sandbox: Sandbox, port: int) -> websockets.sync.client.ClientConnection:
    """A WebSocket to a port in the sandbox; the official SDK leaves that to its user."""
    if hasattr(sandbox, "websocket"):
        return sandbox.websocket(port, open_timeout=30)
    url = proxy_url().replace("http", "ws", 1)
    return websockets.sync.client.connect(
        url, additional_headers=routing(sandbox, port), open_timeout=30, proxy=None, legacy=True
    )


def proxy_url() -> str:
    """The client proxy, which finds the sandbox and the port by two headers."""
    return os.environ.get("E2B_SANDBOX_URL", "http://127.0.0.1:3002")


def routing(sandbox: Sandbox, port: int) -> dict[str, str]:
    return {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": str(port)}


def wait_for(attempt: Callable[[], str]) -> str:
    """What `attempt` gives, once the server in the sandbox has come up."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return attempt()
        except (httpx2.HTTPError, websockets.exceptions.WebSocketException, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print what is done and how long it took."""
    print(f"{title} …", flush=True)
    start = time.monotonic()
    yield
    print(f"  done in {time.monotonic() - start:.2f} s", flush=True)


def check(holds: bool, claim: str) -> None:
    if not holds:
        sys.exit(f"quickstart: it is not true that {claim}")


if __name__ == "__main__":
    main()
