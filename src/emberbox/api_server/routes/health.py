"""Readiness."""

from __future__ import annotations

from fastapi import APIRouter, Response

router = APIRouter(tags=["health"])


@router.get("/health", operation_id="getHealth", response_class=Response)
async def get_health() -> Response:
    """Answered while the server serves; says nothing about the hosts."""
    return Response("OK", media_type="text/plain")
