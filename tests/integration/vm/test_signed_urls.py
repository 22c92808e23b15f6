"""Signed file URLs where all sandboxes share one address: the URL names none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import e2b
import httpx2
import pytest

from tests.stack import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from emberbox import Sandbox
    from tests.stack import Stack

pytestmark = [pytest.mark.vm, pytest.mark.timeout(180)]

EXPIRED = {"code": 401, "message": "signature is already expired"}
INVALID = {"code": 401, "message": "invalid signature"}


@pytest.fixture
def official(stack: Stack, create: Callable[..., Sandbox]) -> Callable[[], e2b.Sandbox]:
    """Makes sandboxes and takes them up with the official SDK."""
    return lambda: e2b.Sandbox.connect(create().sandbox_id, **stack.sdk)


@pytest.fixture
def plain() -> Iterator[httpx2.Client]:
    """A client that knows nothing but URLs."""
    with httpx2.Client(timeout=30) as client:
        yield client


def test_download_url_names_no_sandbox_and_finds_it(
    stack: Stack, official: Callable[[], e2b.Sandbox], plain: httpx2.Client
) -> None:
    sandboxes = [official(), official()]
    for sandbox in sandboxes:
        sandbox.files.write("/home/user/my file", sandbox.sandbox_id)
    for sandbox in sandboxes:
        url = sandbox.download_url("/home/user/my file")
        assert url.startswith(f"{stack.facts['sandbox_url']}/files?")
        assert sandbox.sandbox_id not in url
        assert set(parse_qs(urlsplit(url).query)) == {"path", "signature"}
        answer = plain.get(url)
        assert (answer.status_code, answer.text) == (200, sandbox.sandbox_id)


def test_upload_url_takes_a_file(official: Callable[[], e2b.Sandbox], plain: httpx2.Client) -> None:
    sandbox, _other = official(), official()
    url = sandbox.upload_url("/home/user/up/loaded")
    answer = plain.post(url, files={"file": ("name", b"content")})
    assert answer.status_code == 200
    assert answer.json()[0]["path"] == "/home/user/up/loaded"
    assert sandbox.files.read("/home/user/up/loaded") == "content"
    anywhere = plain.post(sandbox.upload_url(""), files={"file": ("by-name", b"again")})
    assert anywhere.status_code == 200
    assert sandbox.files.read("/home/user/by-name") == "again"


def test_expiry_and_user_are_envds_to_judge(
    official: Callable[[], e2b.Sandbox], plain: httpx2.Client
) -> None:
    sandbox = official()
    sandbox.files.write("/root/secret", "roots", user="root")
    url = sandbox.download_url("/root/secret", user="root", use_signature_expiration=60)
    assert plain.get(url).text == "roots"
    assert plain.get(sandbox.download_url("/root/secret")).status_code >= 400
    late = sandbox.download_url("/root/secret", user="root", use_signature_expiration=-60)
    answer = plain.get(late)
    assert (answer.status_code, answer.json()) == (401, EXPIRED)
    missing = plain.get(sandbox.download_url("/no/such"))
    assert missing.json() == {"code": 404, "message": "path '/no/such' does not exist"}


def test_a_url_signs_one_operation_on_one_path_of_a_running_sandbox(
    official: Callable[[], e2b.Sandbox], plain: httpx2.Client
) -> None:
    sandbox = official()
    url = sandbox.download_url("/etc/hostname")
    assert plain.get(url).status_code == 200
    for method, changed in [
        ("GET", url.replace("hostname", "passwd")),
        ("POST", url),
        ("GET", url + "&username=root"),
    ]:
        answer = plain.request(method, changed)
        assert (answer.status_code, answer.json()) == (401, INVALID), changed
    assert sandbox.kill()
    answer = plain.get(url)
    assert (answer.status_code, answer.json()) == (401, INVALID)


@pytest.mark.exhaustive
def test_urls_outlive_the_orchestrator(
    stack: Stack, official: Callable[[], e2b.Sandbox], plain: httpx2.Client
) -> None:
    sandbox = official()
    url = sandbox.download_url("/etc/hostname")
    stack.kill_program("orchestrator")
    assert plain.get(url).status_code == 200, "the data proxy has its table"
    wait_until(stack.template_ready, 60)
    assert plain.get(url).status_code == 200, "and the next orchestrator has the token"
