"""Group N from inside a sandbox: what it may reach at create, and changes while it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from emberbox import ALL_TRAFFIC, SandboxException
from scripts.fake_internet import OTHER, PUBLIC
from tests.integration.hostile.machine import HELD_PORT
from tests.integration.hostile.servers import NameServer
from tests.stack import wait_until

if TYPE_CHECKING:
    from tests.integration.hostile.machine import Box, Machine

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

ONLY_PUBLIC = {"allow_out": [PUBLIC], "deny_out": [ALL_TRAFFIC]}
NOT_OTHER = {"deny_out": [f"{OTHER}/32"]}


def test_what_a_create_allows_and_denies(host: Machine) -> None:
    for network, expected in (
        ({"deny_out": ["198.51.100.0/24"]}, [False, True]),
        (ONLY_PUBLIC, [True, False]),
    ):
        assert host.create(network=network).reaches(PUBLIC, OTHER) == expected
    assert host.create(allow_internet_access=False).reaches(PUBLIC, OTHER) == [False, False]


LOOP = """
import json, os, socket, sys
tried = {}
while True:
    for address in sys.argv[1:]:
        with socket.socket() as client:
            client.settimeout(5)
            came = client.connect_ex((address, 80)) == 0
        key = f"{address} {came}"
        tried[key] = tried.get(key, 0) + 1
    with open("/tmp/tried.new", "w") as file:
        json.dump(tried, file)
    os.replace("/tmp/tried.new", "/tmp/tried")
"""


def test_no_window_opens_while_a_guest_connects_in_a_loop(host: Machine) -> None:
    box = host.create(network=ONLY_PUBLIC)
    box.write("/tmp/loop.py", LOOP)
    box.begin(f"python3 /tmp/loop.py {PUBLIC} {OTHER}")
    wait_until(lambda: bool(tried(box)), 60)
    before = sum(tried(box).values())
    while sum(tried(box).values()) < before + 100:
        for network in (NOT_OTHER, ONLY_PUBLIC, {**NOT_OTHER, "dns_servers": []}):
            update(box, network)
    # What every policy allowed always came through, and what every one denied never.
    assert set(tried(box)) == {f"{PUBLIC} True", f"{OTHER} False"}
    assert f"{OTHER}:80" not in host.witness.reached


WAITING = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as client:
    client.recv(4096)
    print("connected", flush=True)
    try:
        print("got", client.recv(4096), flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
"""


def test_a_change_ends_open_connections_that_it_closes(host: Machine) -> None:
    box = host.create()
    box.write("/tmp/waiting.py", WAITING)
    closed, kept = (
        box.begin(f"python3 /tmp/waiting.py {address} {HELD_PORT}") for address in (OTHER, PUBLIC)
    )
    for output in (closed, kept):
        wait_until(lambda output=output: box.read(output) == "connected\n", 60)  # type: ignore[misc]
    update(box, ONLY_PUBLIC)
    wait_until(lambda: box.read(closed) == "connected\nConnection reset by peer\n", 60)
    assert box.read(kept) == "connected\n"


def test_bad_values_change_nothing(host: Machine) -> None:
    box = host.create(network=ONLY_PUBLIC)
    for network, message in (
        ({"deny_out": ["example.com"]}, "400: invalid denied CIDR example.com"),
        ({"allow_out": ["1.2.3.4/33"]}, "400: invalid allowed address 1.2.3.4/33"),
        ({"allow_out": ["example.com"]}, "400: When specifying allowed domains in allow out"),
        (
            {"allow_out": ["example.com"], "deny_out": [ALL_TRAFFIC]},
            "501: network.allowOut with a domain .example.com.: not available in Emberbox yet",
        ),
    ):
        with pytest.raises(SandboxException, match=message):
            update(box, network)
    assert box.reaches(PUBLIC, OTHER) == [True, False]


@pytest.mark.exhaustive
def test_names_come_from_the_servers_that_are_named(host: Machine) -> None:
    with NameServer(host.world, host.world.internet, OTHER, "192.0.2.99"):
        box = host.create(network={"dns_servers": [OTHER]})
        assert resolved(box) == "192.0.2.99"
        update(box, {})
        assert resolved(box) == PUBLIC
        update(box, {"dns_servers": [OTHER]})
        assert resolved(box) == "192.0.2.99"
        update(box, {"dns_servers": []})
        assert resolved(box) == ""
        update(box, {"deny_out": [ALL_TRAFFIC], "dns_servers": [OTHER]})
        assert resolved(box) == ""


@pytest.mark.exhaustive
def test_a_policy_lasts_through_pause_fork_and_crash(host: Machine) -> None:
    box = host.create(network={"deny_out": [PUBLIC]})
    update(box, ONLY_PUBLIC)
    sandbox_id = box.sandbox.sandbox_id

    host.inside(lambda: host.stack.kill_program("orchestrator"))
    extend = "POST", f"/sandboxes/{sandbox_id}/timeout", {"timeout": 300}
    wait_until(lambda: host.rest(*extend).is_success, 60)
    assert box.reaches(PUBLIC, OTHER) == [True, False]

    (forked,) = host.rest("POST", f"/sandboxes/{sandbox_id}/fork", {"timeout": 300}).json()
    child = host.connect(forked["sandbox"]["sandboxID"])
    assert child.reaches(PUBLIC, OTHER) == [True, False]
    update(child, NOT_OTHER)

    assert host.rest("POST", f"/sandboxes/{sandbox_id}/pause", {}).status_code == 204
    resumed = host.rest("POST", f"/v2/sandboxes/{sandbox_id}/connect", {"timeout": 300})
    assert resumed.status_code == 201, resumed.text
    assert box.reaches(PUBLIC, OTHER) == [True, False]
    shown = host.rest("GET", f"/sandboxes/{sandbox_id}").json()["network"]
    assert (shown["allowOut"], shown["denyOut"]) == ([PUBLIC], [ALL_TRAFFIC])
    assert child.reaches(PUBLIC, OTHER) == [True, False]


ECHO = """
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(dict(self.headers)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""


def test_ports_that_are_not_public_and_their_masked_host(host: Machine) -> None:
    network = {"allow_public_traffic": False, "mask_request_host": "app.example:${PORT}"}
    box = host.create(network=network)
    box.write("/tmp/echo.py", ECHO)
    box.begin("python3 /tmp/echo.py")
    routing = {"E2b-Sandbox-Id": box.sandbox.sandbox_id, "E2b-Sandbox-Port": "8000"}
    token = box.sandbox.traffic_access_token
    assert token

    def get(**more: str) -> httpx2.Response:
        url = host.stack.facts["sandbox_url"]
        headers = {**routing, **{name.replace("_", "-"): value for name, value in more.items()}}
        return host.inside(lambda: httpx2.get(url, headers=headers, timeout=30))

    assert "is missing" in get().json()["message"]
    assert "is invalid" in get(e2b_traffic_access_token=token[:-1]).json()["message"]
    wait_until(lambda: get(e2b_traffic_access_token=token).status_code != 502, 60)
    seen = get(e2b_traffic_access_token=token, x_forwarded_host="forged").json()
    assert seen["Host"] == "app.example:8000"
    assert seen["X-Forwarded-Host"] == host.stack.facts["sandbox_url"].removeprefix("http://")
    assert "forged" not in seen.values()


def update(box: Box, network: dict[str, Any]) -> None:
    """`update_network` of our SDK."""
    box.machine.inside(lambda: box.sandbox.update_network(network))  # type: ignore[arg-type]


def resolved(box: Box) -> str:
    """The address of a name, empty when there is none."""
    return box.run("getent ahostsv4 index.example | head -n 1 | cut -d' ' -f1").stdout.strip()


def tried(box: Box) -> dict[str, int]:
    """How often the loop has come through or not."""
    told: dict[str, int] = json.loads(box.read(Path("/tmp/tried")) or "{}")
    return told
