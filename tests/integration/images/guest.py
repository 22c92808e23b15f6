"""A guest booted straight by QEMU, without the orchestrator: what the images alone must do."""

from __future__ import annotations

import base64
import http.client
import json
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from emberbox.orchestrator.images.clock import software_clock_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from emberbox.orchestrator.images import ImageSet

MACHINE = "microvm,x-option-roms=off,rtc=on,pit=on,pic=on,isa-serial=on"
CPU = "IvyBridge"
"""A named model that TCG knows and that has RDRAND, so that nothing waits for entropy."""

COMMAND_LINE = "console=ttyS0 quiet panic=-1 reboot=t random.trust_cpu=on"

NETWORK = "user,id=net,net=169.254.0.0/24,host=169.254.0.22"
"""QEMU's own network, wide enough for its servers beside the guest's /30."""

BOOT_LIMIT = 90.0


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command in the guest ended."""

    status: str
    output: str

    @property
    def succeeded(self) -> bool:
        """Whether it ended with 0."""
        return self.status == "exit status 0"


@dataclass(frozen=True, slots=True)
class Disk:
    """A drive: its serial and its file."""

    serial: str
    path: Path
    read_only: bool


def disks_of(images: ImageSet, scratch: Path) -> list[Disk]:
    """The three disks of a guest, in the order of the contract."""
    return [
        Disk("root", images.root, read_only=True),
        Disk("runtime", images.runtime, read_only=True),
        Disk("scratch", scratch, read_only=False),
    ]


class Guest:
    """A running guest; leaving the context kills it."""

    def __init__(
        self,
        images: ImageSet,
        disks: Sequence[Disk],
        port: int,
        console: Path,
        options: str = "",
        command_line: str = COMMAND_LINE,
    ) -> None:
        self._port = port
        self._console = console
        arguments = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot",
            "-display", "none", "-M", MACHINE, "-accel", "tcg", "-cpu", CPU,
            "-m", "512", "-smp", "2",
            "-kernel", str(images.kernel), "-initrd", str(images.initrd),
            "-append", f"{command_line} {software_clock_options()} {options}",
            "-chardev", f"file,id=console,path={console}", "-serial", "chardev:console",
            "-netdev", f"{NETWORK},hostfwd=tcp:127.0.0.1:{port}-169.254.0.21:49983",
            "-device", "virtio-net-device,netdev=net,mac=02:FC:00:00:00:05",
        ]  # fmt: skip
        for disk in disks:
            access = "readonly=on" if disk.read_only else "discard=unmap"
            arguments += [
                "-drive",
                f"if=none,format=raw,id={disk.serial},file={disk.path},{access}",
                "-device",
                f"virtio-blk-device,drive={disk.serial},serial={disk.serial}",
            ]
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def console(self) -> str:
        """What the guest has written to its console."""
        return self._console.read_text(errors="replace")

    def wait_for_envd(self) -> None:
        """Return when envd answers. Raises AssertionError with the console when it does not."""
        deadline = time.monotonic() + BOOT_LIMIT
        while time.monotonic() < deadline:
            assert self._process.poll() is None, f"the guest ended:\n{self.console}"
            if self._healthy():
                return
            time.sleep(0.05)
        raise AssertionError(f"envd does not answer:\n{self.console}")

    def wait_for_end(self) -> int:
        """Wait until the guest has ended by itself; QEMU's exit code."""
        return self._process.wait(BOOT_LIMIT)

    def run(self, script: str, user: str = "root") -> Finished:
        """Run a script by bash in the guest through envd, both outputs together."""
        return run_by_envd(
            http.client.HTTPConnection("127.0.0.1", self._port, timeout=BOOT_LIMIT), script, user
        )

    def _healthy(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=2)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 204
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def run_by_envd(
    connection: http.client.HTTPConnection,
    script: str,
    user: str,
    headers: Mapping[str, str] | None = None,
) -> Finished:
    """Run a script by bash over a connection to envd, which is closed; both outputs together."""
    request = {"process": {"cmd": "/bin/bash", "args": ["-c", f"exec 2>&1; {script}"]}}
    body = json.dumps(request).encode()
    try:
        connection.request(
            "POST",
            "/process.Process/Start",
            b"\0" + len(body).to_bytes(4, "big") + body,
            {
                "Content-Type": "application/connect+json",
                "Authorization": f"Basic {base64.b64encode(f'{user}:'.encode()).decode()}",
                **(headers or {}),
            },
        )
        return _finished(connection.getresponse().read())
    finally:
        connection.close()


def _finished(stream: bytes) -> Finished:
    output, status = b"", "no end event"
    while stream:
        length = int.from_bytes(stream[1:5], "big")
        message = json.loads(stream[5 : 5 + length] or b"{}")
        stream = stream[5 + length :]
        assert "error" not in message, message
        event = message.get("event", {})
        output += base64.b64decode(event.get("data", {}).get("stdout", ""))
        status = event.get("end", {}).get("status", status)
    return Finished(status, output.decode())
