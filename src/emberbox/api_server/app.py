"""The ASGI application."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import FastAPI

from emberbox.api_server import error_answers
from emberbox.api_server.asgi import BodyLimit, Correlated, Observed, RawPath
from emberbox.api_server.routes import (
    create,
    events,
    health,
    listings,
    logs,
    metrics,
    not_yet,
    pausing,
    sandbox,
    snapshots,
)

if TYPE_CHECKING:
    from emberbox.api_server.services import Services


def build_app(services: Services) -> FastAPI:
    """The REST API over these services."""
    app = FastAPI(
        title="Emberbox",
        description="Self-hosted microVM sandboxes that speak the E2B protocol.",
        version=version("emberbox"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        strict_content_type=False,
    )
    app.state.services = services
    error_answers.install(app)
    app.add_middleware(BodyLimit, most=services.settings.max_body_bytes)
    app.add_middleware(RawPath)
    app.add_middleware(Observed)
    app.add_middleware(Correlated)
    app.router.routes.extend(not_yet.routes)
    for router in (
        health.router,
        create.router,
        listings.router,
        metrics.router,  # before those of one sandbox: "metrics" is not an id
        logs.router,
        sandbox.router,
        pausing.router,
        snapshots.router,
        events.router,
    ):
        app.include_router(router)
    return app
