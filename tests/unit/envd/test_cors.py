"""Pages in browsers: preflights and readable answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.envd.conftest import START, Client, Running, start_request

if TYPE_CHECKING:
    from pathlib import Path

PAGE = {"origin": "https://page.example"}


def test_a_preflight_needs_no_token(running: Running) -> None:
    running.init(accessToken="secret")
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-access-token",
    }
    answer = running.client.options(f"/{START}", headers=PAGE | asked)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == asked["access-control-request-headers"]


def test_answers_to_a_page_are_readable(client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    found = client.get("/files", params={"path": f"{tmp_path}/file"}, headers=PAGE)
    missing = client.get("/files", params={"path": f"{tmp_path}/none"}, headers=PAGE)
    for answer, status in ((found, 200), (missing, 404)):
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-expose-headers"] == "*"


def test_streams_to_a_page_are_readable(client: Client) -> None:
    with client.open_stream(START, start_request("/bin/true"), **PAGE) as stream:
        assert stream.response.headers["access-control-allow-origin"] == "*"
        stream.rest()


def test_other_clients_get_no_such_headers(client: Client) -> None:
    answer = client.get("/health")
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_options_without_an_origin_is_no_preflight(client: Client) -> None:
    assert client.options("/files").status_code == 404
