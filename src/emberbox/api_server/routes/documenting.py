"""What the OpenAPI document says of answers besides their bodies."""

from __future__ import annotations

from typing import Any

from emberbox.api_server.models import ErrorBody

Responses = dict[int | str, dict[str, Any]]

SERVER_TIMING: Responses = {
    201: {
        "headers": {
            "Server-Timing": {
                "description": "the steps of the request in milliseconds; those that begin with"
                " `host.` are parts of `host`",
                "schema": {"type": "string"},
            }
        }
    }
}
"""The answer of a create."""

_RETRY_AFTER = {
    "Retry-After": {
        "description": "seconds after which there may be room",
        "schema": {"type": "integer", "minimum": 1},
    }
}

_NO_BLIND_RETRY = frozenset({500, 503, 504})
_SHOULD_RETRY = {
    "Should-Retry": {
        "description": "false: asking again may do it twice, or would not help",
        "schema": {"type": "string", "enum": ["false"]},
    }
}

NEXT_TOKEN: Responses = {
    200: {
        "headers": {
            "x-next-token": {
                "description": "give it as `nextToken` for the next page; absent on the last one",
                "schema": {"type": "string"},
            }
        }
    }
}
"""The answer of a list that has pages."""


def error_answers(*statuses: int) -> Responses:
    """These statuses with the error body, and the header that some of them have."""
    return {status: _error(status) for status in statuses}


def _error(status: int) -> dict[str, Any]:
    answer: dict[str, Any] = {"model": ErrorBody}
    if status in _NO_BLIND_RETRY:
        answer["headers"] = _SHOULD_RETRY
    if status == 503:
        answer["headers"] = _SHOULD_RETRY | _RETRY_AFTER
    return answer
