"""Holds every answer that the tests get against the OpenAPI document that the server gives."""

from __future__ import annotations

import functools
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from jsonschema import Draft202012Validator

from emberbox.api_server.app import build_app

if TYPE_CHECKING:
    import httpx

    from emberbox.api_server.services import Services

_PARAMETER = re.compile(r"\{[^/{}]+\}")


@functools.cache
def contract() -> Contract:
    """The one of the application: it takes a tenth of a second and is the same for every test."""
    services = SimpleNamespace(settings=SimpleNamespace(max_body_bytes=0))
    return Contract(build_app(cast("Services", services)).openapi())


class Contract:
    """A document, as a hook of an httpx client."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        # Plain segments before parameters: `/sandboxes/metrics` is no id.
        paths = sorted(self._document["paths"], key=lambda path: path.count("{"))
        self._paths = [(_pattern(path), path) for path in paths]

    async def check(self, response: httpx.Response) -> None:
        """Fails when the answer has a status, header or body that the document does not have.

        What is no operation of the document (yet) is an error in its general form.
        """
        if response.request.url.path == "/openapi.json":
            return
        await response.aread()
        operation = self._operation(response.request)
        if operation is None:
            assert response.status_code >= 400, f"{response.request.url} is not documented"
            self._matches(response, {"$ref": "#/components/schemas/ErrorBody"})
            return
        documented = self._documented(operation, response.status_code)
        self._has_headers(response, documented.get("headers", {}))
        content = documented.get("content", {}).get("application/json")
        if content is None:
            assert response.status_code == 204 or "json" not in response.headers["content-type"]
        else:
            self._matches(response, content["schema"])

    def _operation(self, request: httpx.Request) -> dict[str, Any] | None:
        raw = request.url.raw_path.partition(b"?")[0].decode()
        for pattern, path in self._paths:
            if pattern.fullmatch(raw):
                found: dict[str, Any] | None = self._document["paths"][path].get(
                    request.method.lower()
                )
                return found
        return None

    def _documented(self, operation: dict[str, Any], status: int) -> dict[str, Any]:
        responses: dict[str, dict[str, Any]] = operation["responses"]
        found = responses.get(str(status)) or (responses["default"] if status >= 400 else None)
        assert found is not None, f"{operation['operationId']} answers {status}"
        return found

    def _has_headers(self, response: httpx.Response, documented: dict[str, Any]) -> None:
        names = {name.lower() for name in documented}
        ours = {"x-next-token", "should-retry", "retry-after", "server-timing"}
        sent = ours & set(response.headers)
        assert sent <= names, f"{sent} of a {response.status_code} are not documented"

    def _matches(self, response: httpx.Response, schema: dict[str, Any]) -> None:
        rooted = {**schema, "components": self._document["components"]}
        errors = [
            f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
            for error in Draft202012Validator(rooted).iter_errors(response.json())
        ]
        assert not errors, f"{response.request.method} {response.request.url}: {errors}"


def _pattern(path: str) -> re.Pattern[str]:
    literal = _PARAMETER.split(path)
    return re.compile("[^/]+".join(map(re.escape, literal)))
