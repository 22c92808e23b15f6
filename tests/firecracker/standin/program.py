"""The program: arguments, the socket with the API, and one by which a test plays the guest."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from tests.firecracker.standin.guest import act
from tests.firecracker.standin.schema import RefusedError
from tests.firecracker.standin.vmm import NOT_STARTED, RUNNING, SNAPSHOT_FORMAT, Vmm

LARGEST_BODY = 51_200
GUEST_SOCKET = "guest.sock"
"""Beside the API's. A test writes a JSON object and a newline, and reads the answer."""


def load_faults(path: str) -> dict[str, Any]:
    """What a test wants to go wrong, and the version that is stood in for."""
    faults: dict[str, Any] = json.loads(Path(path).read_text())
    return faults


def run(faults: dict[str, Any], arguments: list[str]) -> NoReturn:
    """Be Firecracker."""
    version = faults.get("version", "1.16.1")
    if arguments == ["--version"]:
        sys.stdout.write(f"Firecracker v{version}\n\nA stand-in for tests, no VMM.\n")
        sys.exit(0)
    if arguments == ["--snapshot-version"]:
        sys.stdout.write(f"v{SNAPSHOT_FORMAT}\n")
        sys.exit(0)
    options = _options(arguments)
    if "dies_at_start" in faults:
        sys.exit("Error: it was told to die")
    os.set_blocking(1, False)
    Program(Vmm(options["--id"], version, faults), options["--api-sock"]).serve()


def _options(arguments: list[str]) -> dict[str, str]:
    names, values = arguments[::2], arguments[1::2]
    options = dict(zip(names, values, strict=True))
    if unknown := set(options) - {"--id", "--api-sock", "--log-path", "--metrics-path"}:
        sys.exit(f"Arguments parsing error: found argument {unknown} which wasn't expected")
    return options


class Program:
    """Serves one client of the API and any number of guests' orders, in one thread."""

    def __init__(self, vmm: Vmm, path: str) -> None:
        self._vmm = vmm
        self._selector = selectors.DefaultSelector()
        self._calls: list[str] = []
        if vmm.faults.get("silent"):
            time.sleep(3600)
        if vmm.faults.get("no_socket"):
            Path(path).write_text("no socket")
        self._listen(path, self._answer_api)
        self._listen(str(Path(path).with_name(GUEST_SOCKET)), self._answer_guest)

    def _listen(self, path: str, answer: Any) -> None:
        listener = socket.socket(socket.AF_UNIX)
        if not self._vmm.faults.get("no_socket"):
            listener.bind(path)
            listener.listen()

        def accept() -> None:
            connection, _ = listener.accept()
            buffer = bytearray()
            self._selector.register(
                connection, selectors.EVENT_READ, lambda: self._read(connection, buffer, answer)
            )

        self._selector.register(listener, selectors.EVENT_READ, accept)

    def serve(self) -> NoReturn:
        """Until the guest ends."""
        while True:
            for key, _ in self._selector.select():
                key.data()

    def _read(self, connection: socket.socket, buffer: bytearray, answer: Any) -> None:
        try:
            new = connection.recv(65536)
        except ConnectionError:
            new = b""
        buffer += new
        with contextlib.suppress(BrokenPipeError):
            while new and answer(connection, buffer):
                pass
        if not new:
            self._selector.unregister(connection)
            connection.close()

    # The API

    def _answer_api(self, connection: socket.socket, buffer: bytearray) -> bool:
        """Take one whole request from the buffer; whether there was one."""
        head, found, rest = bytes(buffer).partition(b"\r\n\r\n")
        if not found:
            return False
        request_line, *lines = head.decode().split("\r\n")
        method, path, protocol = request_line.split(" ")
        headers = {
            name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
        }
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return False
        del buffer[: len(head) + 4 + length]
        assert protocol == "HTTP/1.1"
        self._serve_call(connection, method, path, rest[:length])
        return True

    def _serve_call(self, connection: socket.socket, method: str, path: str, body: bytes) -> None:
        name = f"{method} {path}"
        self._calls.append(name)
        faults = self._vmm.faults
        if faults.get("die_at") == name:
            self._vmm.tell(f"told to die at {name}")
            os._exit(1)
        if faults.get("hang_at") == name:
            time.sleep(3600)
        if faults.get("garbage_at") == name:
            connection.sendall(faults["garbage"].encode())
            return
        if len(body) > LARGEST_BODY:
            self._answer(
                connection, 400, {"error": f"Request payload with size {len(body)} is too large."}
            )
            return
        try:
            answer = self._vmm.call(method, path, body)
        except (RefusedError, OSError, ValueError) as error:
            self._vmm.tell(f"[ERROR] {name}: {error}")
            self._answer(connection, 400, {"fault_message": str(error)})
        else:
            if faults.get("die_after") == name:
                os._exit(1)
            self._answer(connection, 204 if answer is None else 200, answer)
        if self._vmm.must_exit:
            os._exit(148)

    def _answer(self, connection: socket.socket, status: int, body: object) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        head = f"HTTP/1.1 {status} \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n"
        if status != 204:
            head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        connection.sendall(head.encode() + b"\r\n" + content)

    # The guest

    def _answer_guest(self, connection: socket.socket, buffer: bytearray) -> bool:
        line, found, _ = bytes(buffer).partition(b"\n")
        if not found:
            return False
        del buffer[: len(line) + 1]
        try:
            answer = self._obey(json.loads(line))
        except (ValueError, AssertionError) as error:
            answer = {"error": str(error)}
        connection.sendall(json.dumps(answer).encode() + b"\n")
        return True

    def _obey(self, order: dict[str, Any]) -> object:
        vmm = self._vmm
        match order:
            case {"calls": _}:
                return self._calls
            case {"config": _}:
                return vmm.config
            case {"faults": faults}:
                vmm.faults.update(faults)
            case {"flush": _}:
                vmm.flush()
            case {"log": text}:
                vmm.tell(text)
            case {"print": text}:
                with contextlib.suppress(BlockingIOError):
                    os.write(1, text.encode())
            case {"open_for_writing": path}:
                return _try_to_write(path)
            case {"end": status}:
                os._exit(status)
            case _ if vmm.memory is None or vmm.state == NOT_STARTED:
                raise ValueError("there is no guest")
            case {"write": _} | {"fill": _} if vmm.state != RUNNING:
                raise ValueError("the guest stands still")
            case _:
                return act(vmm.memory, order)
        return None


def _try_to_write(path: str) -> str:
    """What somebody who has taken the VMM over would try."""
    try:
        os.close(os.open(path, os.O_RDWR))
    except OSError as error:
        return str(error.strerror)
    return "opened"
