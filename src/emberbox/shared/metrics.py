"""Prometheus metrics over HTTP, for each program on a port of its own."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog
from prometheus_client import start_http_server

from emberbox.shared.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Iterator

log = structlog.get_logger(__name__)

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Seconds: from a step of a pause to a cold boot on a machine without virtualization."""


@contextmanager
def serving(host: str, port: int | None, variable: str) -> Iterator[int | None]:
    """Serve `GET /metrics` from a thread inside the block, without a port nothing; the port.

    Raises StartupError when it cannot listen: `variable` is the setting to change then.
    """
    if port is None:
        yield None
        return
    try:
        server, thread = start_http_server(port, host)
    except OSError as error:
        raise StartupError(
            f"metrics cannot listen on {host}:{port} ({error.strerror}): choose another port "
            f"with {variable}"
        ) from error
    log.info("serving metrics", host=host, port=server.server_port)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
