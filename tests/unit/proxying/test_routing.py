"""Which sandbox a request is for."""

from __future__ import annotations

import pytest

from emberbox.proxying.errors import BadRouteError
from emberbox.proxying.heads import RequestHead, parse_request_head
from emberbox.proxying.routing import SandboxAddress, address_of, cleaned_path, is_control_route

CONTROL = [
    "/init",
    "/freeze",
    "/unfreeze",
    "/collapse",
    "/fsfreeze",
    "/fsthaw",
    "/upgrade",
    "/bridge",
    "/telemetry",
]


def head(host: str, sandbox_id: str | None = None, port: str | None = None) -> RequestHead:
    lines = ["GET / HTTP/1.1", f"Host: {host}"]
    if sandbox_id is not None:
        lines.append(f"E2b-Sandbox-Id: {sandbox_id}")
    if port is not None:
        lines.append(f"E2B-SANDBOX-PORT: {port}")
    return parse_request_head("\r\n".join([*lines, "", ""]).encode())


@pytest.mark.parametrize(
    ("host", "sandbox_id", "port", "expected"),
    [
        ("8000-iabc.example.com", None, None, ("iabc", 8000)),
        ("8000-iabc.example.com:8443", None, None, ("iabc", 8000)),
        ("8000-iabc-6532622b.example.com", None, None, ("iabc", 8000)),
        ("8000-iabc-6532622b-x_y.example.com", None, None, ("iabc", 8000)),
        ("8000-IABC.Example.COM", None, None, ("iabc", 8000)),
        ("49983-iabc.localhost:3002", None, None, ("iabc", 49983)),
        ("8000-iabc.example.com", "iother", "9000", ("iabc", 8000)),
        ("localhost:3002", "iabc", "8000", ("iabc", 8000)),
        ("127.0.0.1:3002", "iabc", "8000", ("iabc", 8000)),
        ("[::1]:3002", "iabc", "8000", ("iabc", 8000)),
        ("sandbox.e2b.app", "iabc", "8000", ("iabc", 8000)),
        ("myhost:3002", "iabc", "8000", ("iabc", 8000)),
        ("proxy.internal", "iabc", "8000", ("iabc", 8000)),
        ("my-host.internal", "iabc", "8000", ("iabc", 8000)),
        ("localhost", "iabc-6532622b", "1", ("iabc", 1)),
        ("", "iabc", "65535", ("iabc", 65535)),
    ],
)
def test_route(
    host: str, sandbox_id: str | None, port: str | None, expected: tuple[str, int]
) -> None:
    assert address_of(*head(host, sandbox_id, port).fields.routing) == SandboxAddress(*expected)


@pytest.mark.parametrize(
    ("host", "sandbox_id", "port", "text"),
    [
        ("localhost:3002", None, None, "Invalid host"),
        ("127.0.0.1:3002", None, None, "Invalid host"),
        ("sandbox.e2b.app", None, None, "Invalid host"),
        ("example.com", None, None, "Invalid host"),
        ("8000-iabc", None, None, "Invalid host"),
        ("8000-iabc:3002", "iabc", "8000", "Invalid host"),
        ("", None, None, "Invalid host"),
        ("localhost", "iabc", None, "missing header"),
        ("localhost", None, "8000", "missing header"),
        ("my-host.internal", None, None, "Invalid sandbox port"),
        ("0-iabc.example.com", None, None, "Invalid sandbox port"),
        ("65536-iabc.example.com", None, None, "Invalid sandbox port"),
        ("99999999999-iabc.example.com", None, None, "Invalid sandbox port"),
        ("localhost", "iabc", "0", "Invalid sandbox port"),
        ("localhost", "iabc", "http", "Invalid sandbox port"),
        ("localhost", "iabc", "+80", "Invalid sandbox port"),
        ("localhost", "iabc", "", "Invalid sandbox port"),
        ("8000-.example.com", None, None, "Invalid sandbox ID"),
        ("8000-i_bc.example.com", None, None, "Invalid sandbox ID"),
        ("localhost", "IABC", "80", "Invalid sandbox ID"),
        ("localhost", "../x", "80", "Invalid sandbox ID"),
        ("localhost", "", "80", "Invalid sandbox ID"),
        ("localhost", "iabc, idef", "80", "Invalid sandbox ID"),
    ],
)
def test_no_route(host: str, sandbox_id: str | None, port: str | None, text: str) -> None:
    with pytest.raises(BadRouteError) as caught:
        address_of(*head(host, sandbox_id, port).fields.routing)
    assert caught.value.text == text


@pytest.mark.parametrize("path", CONTROL)
@pytest.mark.parametrize(
    "spelling",
    [
        "{}",
        "{}/",
        "{}?x=1",
        "/{}",
        "//{}//",
        "/.{}",
        "/./{}/.",
        "/a/..{}",
        "/..{}",
        "/a/b/../..{}",
        "/%2e{}",
        "/a/%2E%2e{}",
        "/%2f{}",
        "\\{}",
        "{};a=b",
        "{}%3Bx",
        "{}%00",
        "{}%20",
        "{}%3fx",
    ],
)
def test_control_route_however_it_is_spelled(path: str, spelling: str) -> None:
    assert is_control_route(spelling.format(path).encode())
    assert is_control_route(spelling.format(path.upper()).encode())
    for layers in range(1, 4):
        letters = "".join("%" + "25" * (layers - 1) + f"{ord(letter):02x}" for letter in path[1:])
        assert is_control_route(spelling.format("/" + letters).encode())


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "*",
        "/health",
        "/files?path=/init",
        "/initial",
        "/init/x",
        "/init.json",
        "/a/init",
        "/process.Process/Start",
        "/files?path=%2Finit",
        "/%zz",
    ],
)
def test_other_paths_of_envd_are_open(path: str) -> None:
    assert not is_control_route(path.encode())


def test_path_of_the_answer_is_the_clean_one() -> None:
    assert cleaned_path(b"//a/../%69nit/?x") == "/init"
