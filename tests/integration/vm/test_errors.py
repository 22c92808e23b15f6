"""What cannot be done says so: the right status, the protocol's body, the right exception."""

from __future__ import annotations

import json
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import e2b
import httpx2
import pytest

import emberbox
from tests.stack import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from emberbox import Sandbox
    from tests.stack import Stack

pytestmark = [pytest.mark.vm, pytest.mark.timeout(180)]

NOT_YET = [
    ("POST", "/v3/templates"),
    ("GET", "/templates"),
    ("GET", "/volumes"),
    ("POST", "/secrets"),
]

OPTIONS_NOT_YET: list[dict[str, Any]] = [
    {"network": {"allowOut": ["example.com"], "denyOut": ["0.0.0.0/0"]}},
    {"volumeMounts": [{"name": "v", "path": "/v"}]},
]

OURS_NOT_YET: dict[str, Callable[[Sandbox], object]] = {
    "get_mcp_url": lambda s: s.get_mcp_url(),
}


@pytest.fixture(params=[emberbox, e2b], ids=["emberbox", "e2b"])
def sdk(request: pytest.FixtureRequest) -> Any:
    """Either SDK: what both must raise is asked of both."""
    return request.param


@pytest.fixture
def api(stack: Stack) -> Iterator[httpx2.Client]:
    """The REST API, with the stack's key."""
    with httpx2.Client(
        base_url=stack.facts["api_url"],
        headers={"X-API-KEY": stack.facts["api_key"]},
        timeout=10,
    ) as client:
        yield client


# Quota


@pytest.mark.exhaustive
def test_over_quota_is_429_until_one_is_killed(stack: Stack, sdk: ModuleType) -> None:
    team = stack.sdk_of_new_team("--concurrent-sandboxes", "1")
    first = sdk.Sandbox.create(timeout=120, **team)
    try:
        with pytest.raises(sdk.RateLimitException, match=r"429.*\(1\)"):
            sdk.Sandbox.create(timeout=120, **team)
    finally:
        assert first.kill()
    again = sdk.Sandbox.create(timeout=120, **team)
    assert again.kill()


def test_over_quota_has_the_protocols_body(stack: Stack, api: httpx2.Client) -> None:
    team = stack.sdk_of_new_team("--concurrent-sandboxes", "0")
    answer = api.post(
        "/v2/sandboxes", json={"templateID": "base"}, headers={"X-API-KEY": team["api_key"]}
    )
    assert_error(answer, 429, "concurrent", error_code="quota_exceeded")


@pytest.mark.exhaustive
def test_the_quota_of_one_team_is_not_anothers(
    stack: Stack, create: Callable[..., Sandbox]
) -> None:
    team = stack.sdk_of_new_team("--concurrent-sandboxes", "0")
    with pytest.raises(emberbox.RateLimitException):
        create(**team)
    create()


@pytest.mark.exhaustive
def test_the_quota_holds_under_parallel_creates(stack: Stack, sdk: ModuleType) -> None:
    team = stack.sdk_of_new_team("--concurrent-sandboxes", "1")

    def attempt(_number: int) -> Any:
        try:
            return sdk.Sandbox.create(timeout=120, **team)
        except sdk.RateLimitException as error:
            return error

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(attempt, range(8)))
    made = [result for result in results if isinstance(result, sdk.Sandbox)]
    assert len(made) == 1, results
    assert made[0].kill()


# Values


@pytest.mark.exhaustive
@pytest.mark.parametrize("timeout", [0, -1, 2 * 3600])
def test_a_bad_timeout_is_400(stack: Stack, sdk: ModuleType, timeout: int) -> None:
    team = stack.sdk_of_new_team("--max-length-hours", "1")
    expected = (sdk.SandboxException, sdk.InvalidArgumentException)
    with pytest.raises(
        expected, match=r"Timeout (must be greater than 0|cannot be greater than 1)"
    ):
        sdk.Sandbox.create(timeout=timeout, **team)


@pytest.mark.parametrize("path", ["/sandboxes", "/v2/sandboxes"])
@pytest.mark.parametrize("timeout", [0, -1, 10**12, "soon", 1.5])
def test_a_bad_timeout_over_rest(api: httpx2.Client, path: str, timeout: object) -> None:
    answer = api.post(path, json={"templateID": "base", "timeout": timeout})
    assert_error(answer, 400, "imeout")


def test_a_running_sandbox_refuses_a_bad_timeout(
    stack: Stack, create: Callable[..., Sandbox], api: httpx2.Client
) -> None:
    sandbox = create()
    answer = api.post(f"/sandboxes/{sandbox.sandbox_id}/timeout", json={"timeout": 10**12})
    assert_error(answer, 400, "Timeout cannot be greater than")
    assert sandbox.is_running()


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (None, "Invalid API key"),
        ("nonsense", "Invalid API key format"),
        ("e2b_" + "0" * 40, "Cannot get the team for the given API key"),
    ],
)
def test_a_wrong_key_is_401(stack: Stack, key: str | None, message: str) -> None:
    headers = {} if key is None else {"X-API-KEY": key}
    with httpx2.Client(base_url=stack.facts["api_url"], headers=headers, timeout=10) as client:
        for answer in (
            client.get("/v2/sandboxes"),
            client.post("/v2/sandboxes", content=b"not JSON"),
            client.post("/sandboxes/x/pause"),
        ):
            assert_error(answer, 401, message)


def test_a_wrong_key_in_either_sdk(stack: Stack, sdk: ModuleType) -> None:
    with pytest.raises(sdk.AuthenticationException, match=r"^401: Unauthorized"):
        sdk.Sandbox.create(**{**stack.sdk, "api_key": "e2b_" + "0" * 40})


@pytest.mark.exhaustive
def test_a_revoked_key_is_401(stack: Stack) -> None:
    made = json.loads(stack.emberbox("key", "create", "--json"))
    headers = {"X-API-KEY": made["key"]}
    with httpx2.Client(base_url=stack.facts["api_url"], headers=headers) as client:
        assert client.get("/v2/sandboxes").status_code == 200
        stack.emberbox("key", "revoke", made["key_id"])
        # A key that was used a moment ago is remembered for seconds.
        wait_until(lambda: client.get("/v2/sandboxes").status_code == 401, 10)


def test_an_unknown_template_is_404(stack: Stack, sdk: ModuleType, api: httpx2.Client) -> None:
    answer = api.post("/v2/sandboxes", json={"templateID": "no-such"})
    assert_error(answer, 404, "template 'no-such' not found")
    with pytest.raises(sdk.SandboxException, match="404: template 'no-such' not found"):
        sdk.Sandbox.create("no-such", **stack.sdk)


@pytest.mark.parametrize("body", [b"", b"not JSON", b"[]", b'{"timeout": 1}', b"\xff\xfe"])
def test_a_body_that_is_no_request_is_400(api: httpx2.Client, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    assert_error(api.post("/v2/sandboxes", content=body, headers=headers), 400)


def test_a_body_that_is_too_large_is_413(api: httpx2.Client) -> None:
    body = b'{"templateID": "' + b"x" * (17 << 20) + b'"}'
    try:
        answer = api.post("/v2/sandboxes", content=body)
    except httpx2.WriteError:
        pytest.fail("the server closed the connection before its answer could be read")
    assert_error(answer, 413, "larger than")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/no/such/route", 404), ("GET", "/", 404), ("PATCH", "/v2/sandboxes", 405)],
)
def test_an_unknown_route_is_the_protocols_404(
    api: httpx2.Client, method: str, path: str, status: int
) -> None:
    assert_error(api.request(method, path), status)


@pytest.mark.parametrize("sandbox_id", ["i00000000000000000000", "../etc", "%00", "x" * 5000])
def test_an_unknown_sandbox_is_404(api: httpx2.Client, sandbox_id: str) -> None:
    encoded = sandbox_id.replace("/", "%2F")
    assert_error(api.get(f"/sandboxes/{encoded}"), 404, "doesn't exist")
    assert_error(api.delete(f"/sandboxes/{encoded}"), 404, "doesn't exist")


@pytest.mark.exhaustive
def test_the_sandbox_of_another_team_is_404(
    stack: Stack, create: Callable[..., Sandbox], sdk: ModuleType
) -> None:
    sandbox = create()
    stranger = stack.sdk_of_new_team()
    with pytest.raises(sdk.SandboxNotFoundException):
        sdk.Sandbox.connect(sandbox.sandbox_id, **stranger)
    assert not sdk.Sandbox.kill(sandbox.sandbox_id, **stranger)
    assert sandbox.is_running()


# Pausing


PAUSED_CALLS = [
    ("pause", {}, 404),
    ("fork", {}, 404),
    ("fork", {"count": 101}, 400),
    ("snapshots", {}, 404),
    ("snapshots", {"name": "No Name!"}, 400),
    ("resume", {}, 404),
    ("resume", {"timeout": 0}, 400),
    ("connect", {}, 404),
]


@pytest.mark.parametrize(("call", "body", "status"), PAUSED_CALLS)
def test_pausing_what_is_not_there(
    api: httpx2.Client, call: str, body: dict[str, Any], status: int
) -> None:
    answer = api.post(f"/sandboxes/i00000000000000000000/{call}", json=body)
    assert_error(answer, status)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"autoPauseMemory": False}, "autoPauseMemory=false only applies when autoPause"),
        (
            {"autoPause": True, "autoPauseMemory": False, "autoResume": {"enabled": True}},
            "autoPauseMemory",
        ),
        ({"autoPause": "perhaps"}, "autoPause"),
        ({"autoResume": True}, "autoResume"),
    ],
)
def test_lifecycles_that_cannot_be(api: httpx2.Client, options: dict[str, Any], text: str) -> None:
    answer = api.post("/v2/sandboxes", json={"templateID": "base", **options})
    assert_error(answer, 400, text)


def test_a_sandbox_in_the_wrong_state(create: Callable[..., Sandbox], api: httpx2.Client) -> None:
    sandbox = create()
    path = f"/sandboxes/{sandbox.sandbox_id}"
    assert_error(api.post(f"{path}/resume", json={}), 409, "already running")
    assert sandbox.pause()
    assert_error(api.post(f"{path}/pause"), 409, "is already paused")
    assert_error(api.post(f"{path}/fork"), 409, "is paused")
    assert_error(api.post(f"{path}/snapshots"), 404, "is not running")
    assert_error(api.post(f"{path}/timeout", json={"timeout": 10}), 404)
    assert api.post(f"{path}/resume", json={}).status_code == 201
    assert sandbox.is_running()


# Not yet


@pytest.mark.parametrize(("method", "path"), NOT_YET)
def test_what_is_not_there_yet_is_501(api: httpx2.Client, method: str, path: str) -> None:
    answer = api.request(method, path.format(id="i00000000000000000000"), json={})
    assert_error(answer, 501, "not available in Emberbox yet", error_code="not_implemented")


@pytest.mark.parametrize("options", OPTIONS_NOT_YET, ids=lambda options: next(iter(options)))
def test_an_option_that_is_not_there_yet_is_501(
    api: httpx2.Client, options: dict[str, Any]
) -> None:
    answer = api.post("/v2/sandboxes", json={"templateID": "base", **options})
    assert_error(answer, 501, next(iter(options)), error_code="not_implemented")


def test_what_our_sdk_has_not_yet(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    for name, call in OURS_NOT_YET.items():
        with pytest.raises(emberbox.NotSupportedYetException) as refused:
            call(sandbox)
        assert refused.value.feature.endswith(name.rpartition(".")[2])
    assert sandbox.commands.run("echo fine").stdout == "fine\n"


def test_what_the_official_sdk_asks_of_the_control_plane_alone(stack: Stack) -> None:
    with pytest.raises(e2b.VolumeException, match="501"):
        e2b.Volume.create("data", **stack.sdk)
    template = e2b.Template().from_template("base").run_cmd("true")
    with pytest.raises((e2b.BuildException, e2b.TemplateException), match="501"):
        e2b.Template.build(template, "mine", **_without_sandbox_url(stack))


def test_a_method_that_envd_lacks_is_a_connect_error(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    token = sandbox._access.envd_access_token
    assert token
    with sandbox.http(49983) as client:
        client.headers["X-Access-Token"] = token
        unary = client.post("/filesystem.Filesystem/Compress", json={"path": "/home/user"})
        assert unary.status_code == 501
        assert unary.json()["code"] == "unimplemented"
        assert unary.json()["message"]

        request = json.dumps({"path": "/home/user"}).encode()
        stream = client.post(
            "/filesystem.Filesystem/StreamNothing",
            content=struct.pack(">BI", 0, len(request)) + request,
            headers={"Content-Type": "application/connect+json", "Connect-Protocol-Version": "1"},
        )
        assert stream.status_code == 200
        flags, length = struct.unpack(">BI", stream.content[:5])
        assert (flags, length) == (2, len(stream.content) - 5)
        assert json.loads(stream.content[5:])["error"]["code"] == "unimplemented"


# A full host


@pytest.mark.exhaustive
def test_a_full_host_is_503_and_nothing_stays_reserved(stack: Stack) -> None:
    with stack.restarted(EMBERBOX_MAX_SANDBOXES="1"):
        team = stack.sdk_of_new_team("--concurrent-sandboxes", "2")
        first = emberbox.Sandbox.create(timeout=300, **team)
        for sdk in (emberbox, e2b):
            for _ in range(3):  # would use up the team's quota if a reservation stayed
                with pytest.raises(sdk.ServiceBusyException, match=r"EMBERBOX_MAX_SANDBOXES=1"):
                    sdk.Sandbox.create(timeout=300, **team)
        body = {"templateID": "base"}
        with httpx2.Client(base_url=stack.facts["api_url"], timeout=10) as client:
            answer = client.post("/v2/sandboxes", json=body, headers={"X-API-KEY": team["api_key"]})
        assert_error(answer, 503, "the host is full", error_code="sandbox_capacity_unavailable")
        assert len(emberbox.Sandbox.list(**team).next_items()) == 1
        assert first.kill()
        assert emberbox.Sandbox.create(timeout=300, **team).kill()


def assert_error(
    answer: httpx2.Response, status: int, text: str = "", error_code: str | None = None
) -> None:
    """It has the protocol's form: `code` is the status, `message` says why."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["code"] == status
    assert body["message"]
    assert text in body["message"], body
    assert body.get("error_code") == error_code or error_code is None
    assert "detail" not in body


def _raised_by(call: Callable[[e2b.Sandbox], object], sandbox: e2b.Sandbox) -> object:
    """What it raises."""
    try:
        return call(sandbox)
    except Exception as error:  # noqa: BLE001 - the wrong kind is what the test looks for
        return error


def _without_sandbox_url(stack: Stack) -> dict[str, Any]:
    return {name: value for name, value in stack.sdk.items() if name != "sandbox_url"}
