"""Where the servers are and how to talk to them: options, environment, defaults."""

from __future__ import annotations

import functools
import importlib.metadata
import ipaddress
import os
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict
from urllib.parse import urlsplit

from .errors import AuthenticationException, InvalidArgumentException, NotSupportedYetException

if TYPE_CHECKING:
    import logging
    from collections.abc import Mapping
    from typing import Self, Unpack

Username = str

ENVD_PORT = 49983
LOCAL_API_URL = "http://127.0.0.1:3000"
LOCAL_SANDBOX_URL = "http://127.0.0.1:3002"
DEFAULT_REQUEST_TIMEOUT = 60.0
DEFAULT_RETRIES = 3

_ENVIRONMENT = ("API_KEY", "API_URL", "SANDBOX_URL", "DOMAIN")


HttpVersion: TypeAlias = Literal["1.1", "2"]
ProxyTypes: TypeAlias = str
"""URL of an HTTP proxy."""


class ApiParams(TypedDict, total=False):
    """Options that every call takes; those given to `create` hold for the sandbox's calls too.

    What is left out comes from the environment: `EMBERBOX_API_KEY`, `EMBERBOX_API_URL`,
    `EMBERBOX_SANDBOX_URL`, `EMBERBOX_DOMAIN`, each with its `E2B_…` namesake as fallback.
    """

    request_timeout: float | None
    """Limit of one request in seconds, 60 by default; 0 means none."""
    retries: int | None
    """How often a control-plane request that was refused for now is repeated; 3 by default."""
    headers: dict[str, str] | None
    """Additional headers for the control plane."""
    api_headers: dict[str, str] | None
    """Same as `headers`, and wins over it."""
    api_key: str | None
    """The key that `emberbox up` prints."""
    domain: str | None
    """Domain under which sandboxes have names of the form `<port>-<id>.<domain>`."""
    api_url: str | None
    """Control plane; `https://api.<domain>` with a domain, else http://127.0.0.1:3000."""
    sandbox_url: str | None
    """Client proxy, used as it is for every sandbox: no DNS is needed then."""
    proxy: ProxyTypes | None
    """URL of an HTTP proxy on the way to the servers."""
    debug: bool | None
    """Not supported; present because `e2b` has it."""
    validate_api_key: bool | None
    """Ignored, as in `e2b`."""
    http_version: HttpVersion | None
    """Ignored: the SDK speaks HTTP/1.1."""


class ConnectionConfig:
    """The resolved configuration of one sandbox or one call.

    Raises:
        InvalidArgumentException: an option's value makes no sense.
    """

    def __init__(
        self,
        *,
        logger: logging.Logger | None = None,
        environment: Mapping[str, str] | None = None,
        **options: Unpack[ApiParams],
    ) -> None:
        if options.get("debug"):
            raise NotSupportedYetException("debug=True")
        self.logger = logger
        self._options = options
        self._environment = _read_environment() if environment is None else environment
        self.api_key = options.get("api_key") or self._environment.get("API_KEY")
        self.domain = options.get("domain") or self._environment.get("DOMAIN")
        self.api_url = self._choose_api_url(options.get("api_url"))
        self.sandbox_url = self._choose_sandbox_url(options.get("sandbox_url"))
        self.proxy = options.get("proxy")
        self.request_timeout = _limit(options.get("request_timeout"), DEFAULT_REQUEST_TIMEOUT)
        self.retries = _check_retries(options.get("retries"))
        self.headers = {
            "User-Agent": user_agent(),
            **(options.get("headers") or {}),
            **(options.get("api_headers") or {}),
        }

    def with_options(self, **options: Unpack[ApiParams]) -> Self:
        """This configuration with some options replaced; those that are None stay as they are."""
        merged = self.merged_options(**options)
        return type(self)(logger=self.logger, environment=self._environment, **merged)

    def merged_options(self, **options: Unpack[ApiParams]) -> ApiParams:
        """The options it was made with, some of them replaced."""
        return merge_options(self._options, options)

    def timeout(self, request_timeout: float | None = None) -> float | None:
        """Seconds that a call with this `request_timeout` may take; None when not limited."""
        return _limit(request_timeout, self.request_timeout)

    def require_api_key(self) -> str:
        """The API key. Raises AuthenticationException when none is set."""
        if not self.api_key:
            raise AuthenticationException(
                "no API key: set EMBERBOX_API_KEY (or pass api_key=) to the key that"
                " `emberbox up` prints"
            )
        return self.api_key

    def base_url(self, sandbox_id: str, port: int, sandbox_domain: str | None = None) -> str:
        """URL of a port in a sandbox. Raises InvalidArgumentException when none is known."""
        if self.sandbox_url:
            return self.sandbox_url.rstrip("/")
        return f"https://{self.host(sandbox_id, port, sandbox_domain)}"

    def host(self, sandbox_id: str, port: int, sandbox_domain: str | None = None) -> str:
        """Host name of a port in a sandbox. Raises InvalidArgumentException without a domain."""
        domain = sandbox_domain or self.domain or self._local_domain()
        if not domain:
            raise InvalidArgumentException(
                "no sandbox address: set EMBERBOX_SANDBOX_URL to the client proxy's URL, or"
                " EMBERBOX_DOMAIN to the domain that sandboxes have names under"
            )
        return f"{port}-{sandbox_id}.{domain}"

    def log(self, message: str, *details: object) -> None:
        """Log a request or an answer, if the caller gave a logger."""
        if self.logger is not None:
            self.logger.info(message, *details)

    def _choose_api_url(self, option: str | None) -> str:
        named = option or self._environment.get("API_URL")
        if not named:
            return f"https://api.{self.domain}" if self.domain else LOCAL_API_URL
        return named.rstrip("/")

    def _choose_sandbox_url(self, option: str | None) -> str | None:
        named = option or self._environment.get("SANDBOX_URL")
        if named:
            return named
        return LOCAL_SANDBOX_URL if not self.domain and is_loopback(self.api_url) else None

    def _local_domain(self) -> str | None:
        """Names below `localhost` reach a proxy on this machine from browsers and curl."""
        if not self.sandbox_url or not is_loopback(self.sandbox_url):
            return None
        port = urlsplit(self.sandbox_url).port
        return f"localhost:{port}" if port else "localhost"


def merge_options(options: ApiParams, changes: ApiParams) -> ApiParams:
    """The options with those of `changes` that are not None; headers of both are sent."""
    merged = ApiParams(**options)
    # A TypedDict cannot be filtered by value and keep its type.
    merged.update({k: v for k, v in changes.items() if v is not None})  # type: ignore[typeddict-item]
    merged["api_headers"] = {
        **(options.get("headers") or {}),
        **(options.get("api_headers") or {}),
        **(changes.get("headers") or {}),
        **(changes.get("api_headers") or {}),
    }
    return merged


def routing_headers(
    sandbox_id: str, port: int, traffic_access_token: str | None = None
) -> dict[str, str]:
    """The headers by which a client proxy finds a port of a sandbox without DNS."""
    headers = {"E2b-Sandbox-Id": sandbox_id, "E2b-Sandbox-Port": str(port)}
    if traffic_access_token:
        headers["e2b-traffic-access-token"] = traffic_access_token
    return headers


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@functools.cache
def user_agent() -> str:
    """The `User-Agent` of every request."""
    try:
        return f"emberbox-python/{importlib.metadata.version('emberbox')}"
    except importlib.metadata.PackageNotFoundError:
        return "emberbox-python"


def _read_environment() -> dict[str, str]:
    return {
        name: value
        for name in _ENVIRONMENT
        if (value := os.environ.get(f"EMBERBOX_{name}") or os.environ.get(f"E2B_{name}"))
    }


def _limit(given: float | None, default: float | None) -> float | None:
    """Seconds; 0 stands for no limit, and None for the default."""
    if given is None:
        return default
    if given < 0:
        raise InvalidArgumentException(f"request_timeout must not be negative, got {given!r}")
    return given or None


def _check_retries(retries: int | None) -> int:
    if retries is None:
        return DEFAULT_RETRIES
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise InvalidArgumentException(f"retries must be a whole number >= 0, got {retries!r}")
    return retries
