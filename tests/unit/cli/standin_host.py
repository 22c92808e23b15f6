"""In place of the orchestrator: busy twice, then ready; writes down what Shutdown was asked.

standin_host.py PORT HOME HANG; with HANG=1 Shutdown never answers.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc

SANDBOXES = 2


class Info(pb_grpc.InfoServiceServicer):
    asked = 0

    def ServiceInfo(  # noqa: N802 - the name in the interface
        self, request: pb.ServiceInfoRequest, context: grpc.ServicerContext
    ) -> pb.ServiceInfoResponse:
        self.asked += 1
        status = f"building images, step {self.asked}"
        return pb.ServiceInfoResponse(
            ready=self.asked > 2, status=status, sandboxes_running=SANDBOXES
        )


class Host(pb_grpc.HostServiceServicer):
    def __init__(self, home: Path, *, hang: bool) -> None:
        self.home = home
        self.hang = hang

    def Shutdown(  # noqa: N802 - the name in the interface
        self, request: pb.ShutdownRequest, context: grpc.ServicerContext
    ) -> pb.ShutdownResponse:
        beside = self.home / ".shutdown.json"
        beside.write_text(json.dumps({"keep": request.keep_sandboxes}))
        beside.rename(self.home / "shutdown.json")
        if self.hang:
            threading.Event().wait()
        return pb.ShutdownResponse(sandboxes_ended=SANDBOXES)


def main(port: str, home: str, hang: str) -> None:
    server = grpc.server(ThreadPoolExecutor(4))
    pb_grpc.add_InfoServiceServicer_to_server(Info(), server)
    pb_grpc.add_HostServiceServicer_to_server(Host(Path(home), hang=hang == "1"), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    while True:
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
