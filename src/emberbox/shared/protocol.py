"""Constants of the E2B protocol and of the calls between our own programs."""

from __future__ import annotations

ENVD_PORT = 49983
"""Port of envd inside every sandbox."""

ENVD_VERSION = "0.6.13"
"""The envd version reported to clients: they gate features on it, so it is E2B's numbering."""

CLIENT_ID = "6532622b"
"""The `clientID` of every answer; old clients append it to sandbox ids."""

HEADER_TRAFFIC_TOKEN = "e2b-traffic-access-token"  # noqa: S105 - the name of a header
HEADER_ACCESS_TOKEN = "X-Access-Token"  # noqa: S105 - the name of a header
HEADER_INTERNAL_SECRET = "X-Emberbox-Internal-Secret"  # noqa: S105 - the name of a header
HEADER_NOT_HERE = "X-Emberbox-Not-Here"
"""A data proxy's word in an answer of its own: this host does not run the sandbox."""

MASKED_PORT = "${PORT}"
"""In `maskRequestHost`: the port that a request is for."""

GRPC_SECRET_KEY = "x-emberbox-secret"  # noqa: S105 - the name of a metadata key
"""gRPC metadata key that carries the secret shared by the programs."""
GRPC_RETRY_AFTER_KEY = "retry-after"
"""gRPC trailing metadata: seconds after which a call that was refused may succeed."""

HEADER_REQUEST_ID = "X-Request-Id"
GRPC_REQUEST_ID_KEY = "x-request-id"
"""Name one request in the logs of every program that it passes through."""

API_PORT = 3000
API_INTERNAL_PORT = 3001
CLIENT_PROXY_PORT = 3002
CLIENT_PROXY_HEALTH_PORT = 3003
ORCHESTRATOR_PORT = 8080
DATA_PROXY_PORT = 5007
DATA_PROXY_METRICS_PORT = 5008
