"""Signed URLs, against those that the installed `e2b` package makes."""

from __future__ import annotations

import time
from typing import Any

import e2b
import pytest
from packaging.version import Version

import emberbox
from emberbox import InvalidArgumentException

from .conftest import SANDBOX, Flavour
from .stand_in import StandIn, reply

TOKEN = SANDBOX["envdAccessToken"]
PATHS = ["/a", "relative/b c", "/ü+&=?#%2F:\n", "", "~/x"]
USERS = [None, "", "root", "u s:er"]
NOW = 1_800_000_000.9


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both packages see the same moment."""
    monkeypatch.setattr(time, "time", lambda: NOW)


def theirs(url: str, token: str | None) -> Any:
    """The official sandbox with the id, the address and the token of `sandbox`."""
    return e2b.Sandbox(
        sandbox_id=SANDBOX["sandboxID"],
        sandbox_domain=None,
        envd_version=Version(SANDBOX["envdVersion"]),
        envd_access_token=token,
        traffic_access_token=None,
        connection_config=e2b.ConnectionConfig(api_key="e2b_00", sandbox_url=url),
    )


@pytest.mark.parametrize("method", ["download_url", "upload_url"])
@pytest.mark.parametrize("expiration", [None, 0, 3600])
def test_urls_are_those_of_e2b(
    sandbox: Any, server: StandIn, method: str, expiration: int | None
) -> None:
    other = theirs(server.url, TOKEN)
    for path in PATHS:
        for user in USERS:
            arguments = (path, user, expiration)
            assert getattr(sandbox, method)(*arguments) == getattr(other, method)(*arguments)


@pytest.mark.parametrize("method", ["download_url", "upload_url"])
async def test_without_a_token_nothing_is_signed(
    sdk: Flavour, server: StandIn, method: str
) -> None:
    open_to_all = {name: value for name, value in SANDBOX.items() if name != "envdAccessToken"}
    server.on("POST", "/v2/sandboxes", reply(201, open_to_all))
    sandbox = await sdk.do(sdk.Sandbox.create)
    make, other = getattr(sandbox, method), getattr(theirs(server.url, None), method)
    for path in PATHS:
        assert make(path, "root") == other(path, "root")
    for expiration in (0, 10):
        with pytest.raises(InvalidArgumentException, match="use_signature_expiration"):
            make("/a", use_signature_expiration=expiration)


@pytest.mark.parametrize("operation", ["read", "write"])
@pytest.mark.parametrize("expiration", [None, 0, -5, 60])
def test_signatures_are_those_of_e2b(operation: Any, expiration: int | None) -> None:
    for path in PATHS:
        for user in USERS:
            arguments = (path, operation, user, TOKEN, expiration)
            assert dict(emberbox.get_signature(*arguments)) == e2b.get_signature(*arguments)


def test_a_signature_needs_a_token() -> None:
    with pytest.raises(ValueError, match="token"):
        emberbox.get_signature("/a", "read", None, None)
