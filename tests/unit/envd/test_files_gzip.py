"""GET /files, compressed for those who ask."""

from __future__ import annotations

import gzip
import os
from typing import TYPE_CHECKING

import pytest

from emberbox.envd.errors import UnacceptableError
from emberbox.envd.files.encoding import accepted

if TYPE_CHECKING:
    from pathlib import Path

    import httpx2

    from tests.unit.envd.conftest import Client

TEXT = b"some text, again and again\n" * 50_000


def get(client: Client, path: Path, **headers: str) -> tuple[httpx2.Response, bytes]:
    """The answer, and its body as it came."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    with client.stream("GET", "/files", params={"path": str(path)}, headers=given) as answer:
        return answer, b"".join(answer.iter_raw())


@pytest.mark.parametrize(
    ("header", "packed"),
    [
        ("gzip", True),
        ("gzip, deflate, br, zstd", True),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", True),
        ("x-gzip", True),
        ("GZIP;Q=0.5", True),
        ("identity;q=0, *", True),
        ("identity;q=0.5, gzip;q=0.5", True),
        ("gzip;q=0.5, identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000, deflate", False),
        ("br", False),
        ("*", False),
        ("identity", False),
        ("", False),
        ("gzip;q=high", False),
    ],
)
def test_encoding_is_the_clients_choice(
    client: Client, tmp_path: Path, header: str, packed: bool
) -> None:
    (tmp_path / "f").write_bytes(TEXT)
    answer, body = get(client, tmp_path / "f", accept_encoding=header)
    assert answer.status_code == 200
    assert answer.headers.get("content-encoding") == ("gzip" if packed else None)
    assert (gzip.decompress(body) if packed else body) == TEXT
    assert ("content-length" in answer.headers) == (not packed)
    assert answer.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize(
    "header", ["identity;q=0", "*;q=0", "gzip;q=0, identity;q=0", "br, *;q=0.0"]
)
def test_nothing_acceptable(client: Client, tmp_path: Path, header: str) -> None:
    (tmp_path / "f").write_bytes(TEXT)
    answer = client.get(
        "/files", params={"path": f"{tmp_path}/f"}, headers={"accept-encoding": header}
    )
    assert (answer.status_code, answer.json()["code"]) == (406, 406)
    with pytest.raises(UnacceptableError):
        accepted(header)


def test_what_does_not_shrink_is_sent_as_it_is(client: Client, tmp_path: Path) -> None:
    data = os.urandom(400_000)
    (tmp_path / "f").write_bytes(data)
    answer, body = get(client, tmp_path / "f", accept_encoding="gzip, deflate")
    assert "content-encoding" not in answer.headers
    assert body == data
    answer, body = get(client, tmp_path / "f", accept_encoding="gzip")
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(body) == data


def test_files_without_a_size(client: Client, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    _, body = get(client, tmp_path / "empty", accept_encoding="gzip")
    assert gzip.decompress(body) == b""
    assert client.get("/files", params={"path": "/proc/self/status"}).text.startswith("Name:")


def test_a_range_is_never_compressed(client: Client, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(TEXT)
    answer, body = get(client, tmp_path / "f", accept_encoding="gzip", range="bytes=5-8")
    assert (answer.status_code, body) == (206, TEXT[5:9])
    assert "content-encoding" not in answer.headers
    answer, body = get(
        client, tmp_path / "f", accept_encoding="gzip, identity;q=0", range="bytes=5-8"
    )
    assert (answer.status_code, gzip.decompress(body)) == (200, TEXT)
