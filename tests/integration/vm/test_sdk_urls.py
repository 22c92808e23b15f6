"""Signed URLs of files: the sandbox's daemon takes what the SDK signs, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2
import pytest

from emberbox.sdk.config import ENVD_PORT

if TYPE_CHECKING:
    from collections.abc import Callable

    from emberbox import Sandbox

pytestmark = [pytest.mark.vm, pytest.mark.timeout(180)]


def target(url: str) -> str:
    """Path and query of a URL; the client leads to the sandbox."""
    return url[url.index("/files") :]


def test_signed_urls(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    anyone = sandbox.http(ENVD_PORT)  # sends no token
    upload = sandbox.upload_url("a b+ü.txt", user="root", use_signature_expiration=300)
    assert anyone.post(target(upload), files={"file": b"content"}).status_code == 200

    url = target(sandbox.download_url("/root/a b+ü.txt", "root", 300))
    assert anyone.get(url).text == "content"
    assert anyone.get(target(sandbox.download_url("/root/a b+ü.txt", "root"))).status_code == 200

    assert anyone.get(url.replace("a%20b", "other")).status_code == 401
    assert anyone.get(url.replace("username=root", "username=user")).status_code == 401
    assert anyone.post(url, files={"file": b"changed"}).status_code == 401
    assert anyone.get("/files?path=/root/x&username=root").status_code == 401
    expired = target(sandbox.download_url("/root/a b+ü.txt", "root", -10))
    assert anyone.get(expired).json() == {"code": 401, "message": "signature is already expired"}


def test_a_signed_url_works_as_it_is(create: Callable[..., Sandbox]) -> None:
    sandbox, other = create(), create()
    for each in (sandbox, other):
        each.files.write("/home/user/mine", each.sandbox_id)
    for each in (sandbox, other):
        fetched = httpx2.get(each.download_url("/home/user/mine"), trust_env=False, timeout=30)
        assert fetched.text == each.sandbox_id
