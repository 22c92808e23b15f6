"""Where the time of a request went, told in its answer (`Server-Timing`) and in the log."""

from __future__ import annotations

from typing import Annotated

import structlog
from fastapi import Depends, Request, Response

from emberbox.shared.steps import Steps

log = structlog.get_logger(__name__)


class Timing:
    """The steps of one request, from the moment it was routed."""

    def __init__(self, request: Request, response: Response) -> None:
        self.steps: Steps = request.state.steps
        self._response = response

    def finish(self, sandbox_id: str) -> None:
        """The answer is about to go out."""
        self._response.headers["Server-Timing"] = self.steps.server_timing()
        log.info(
            "sandbox created",
            sandbox_id=sandbox_id,
            milliseconds=round(self.steps.total, 1),
            steps=self.steps.rounded(),
        )


Timed = Annotated[Timing, Depends(Timing)]
