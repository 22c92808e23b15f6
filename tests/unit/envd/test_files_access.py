"""Who may use /files: the token, or a signature made with it."""

from __future__ import annotations

import base64
import hashlib
import itertools
import time
from typing import TYPE_CHECKING

import pytest

from emberbox.envd.files.access import sign
from tests.unit.envd.file_calls import OCTETS, error_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.envd.conftest import Running


@pytest.fixture
def secured(running: Running) -> Running:
    assert running.init(accessToken="secret").status_code == 204
    return running


def test_token_opens_files(secured: Running, tmp_path: Path) -> None:
    client, params = secured.client, {"path": f"{tmp_path}/f"}
    right, wrong = {"x-access-token": "secret"}, {"x-access-token": "wrong"}
    assert client.post("/files", params=params, headers=OCTETS | right).status_code == 200
    assert client.get("/files", params=params, headers=right).status_code == 200
    refused = (401, "access token present in header but does not match")
    assert error_of(client.get("/files", params=params, headers=wrong)) == refused
    assert error_of(client.post("/files", params=params, headers=OCTETS | wrong)) == refused


def test_signature_in_place_of_the_token(secured: Running, tmp_path: Path) -> None:
    client, later = secured.client, str(int(time.time()) + 60)
    # One whose signature has a "+", which is a blank when nobody encodes it.
    names = (f"{tmp_path}/f{number}" for number in itertools.count())
    path = next(name for name in names if "+" in sign(name, "read", "", "secret", None))

    def query(operation: str, expiration: str | None, **more: str) -> dict[str, str]:
        signed = sign(path, operation, more.get("username", ""), "secret", expiration)
        limit = {"signature_expiration": expiration} if expiration else {}
        return {"path": path, "signature": signed, **limit, **more}

    for expiration in (None, later):
        written = client.post("/files", params=query("write", expiration), headers=OCTETS)
        assert written.status_code == 200
        assert client.get("/files", params=query("read", expiration)).status_code == 200
    assert client.get("/files", params=query("read", None, username="root")).status_code == 200
    sloppy = query("read", None)
    sloppy["signature"] = sloppy["signature"].replace("+", " ")
    assert client.get("/files", params=sloppy).status_code == 200

    def refused(params: dict[str, str]) -> tuple[int, str]:
        return error_of(client.get("/files", params=params))

    assert refused({"path": path}) == (401, "missing signature query parameter")
    assert refused(query("write", None)) == (401, "invalid signature")
    assert refused(query("read", later) | {"signature_expiration": "9" * 12}) == (
        401,
        "invalid signature",
    )
    assert refused(query("read", None) | {"username": "root"}) == (401, "invalid signature")
    for nonsense in ("soon", "9" * 5000):
        assert refused(query("read", nonsense)) == (401, "invalid signature")
    past = str(int(time.time()) - 1)
    assert refused(query("read", past)) == (401, "signature is already expired")


def test_signature_is_the_one_that_clients_make() -> None:
    digest = hashlib.sha256(b"/a:read:user:token:99").digest()
    expected = "v1_" + base64.b64encode(digest).decode().rstrip("=")
    assert sign("/a", "read", "user", "token", "99") == expected
