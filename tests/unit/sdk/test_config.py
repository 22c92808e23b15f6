from __future__ import annotations

import pytest

from emberbox import (
    AuthenticationException,
    ConnectionConfig,
    InvalidArgumentException,
    NotSupportedYetException,
)
from emberbox.sdk.transport_options import choose_proxy

ID = "i0"


def test_nothing_set_means_this_machine() -> None:
    config = ConnectionConfig()
    assert config.api_url == "http://127.0.0.1:3000"
    assert config.base_url(ID, 49983) == "http://127.0.0.1:3002"
    assert config.host(ID, 8000) == "8000-i0.localhost:3002"


def test_a_missing_key_names_the_variable_and_where_to_get_it() -> None:
    with pytest.raises(AuthenticationException, match=r"EMBERBOX_API_KEY.*emberbox up"):
        ConnectionConfig().require_api_key()


@pytest.mark.parametrize("prefix", ["EMBERBOX", "E2B"])
def test_environment(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "API_KEY": "key",
        "API_URL": "http://a:1/",
        "SANDBOX_URL": "http://s:2",
        "DOMAIN": "d",
    }.items():
        monkeypatch.setenv(f"{prefix}_{name}", value)
    config = ConnectionConfig()
    assert config.require_api_key() == "key"
    assert config.api_url == "http://a:1"
    assert config.base_url(ID, 80) == "http://s:2"
    assert config.host(ID, 80) == "80-i0.d"


def test_own_variables_win_over_those_of_e2b(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2B_API_KEY", "theirs")
    monkeypatch.setenv("EMBERBOX_API_KEY", "ours")
    assert ConnectionConfig().api_key == "ours"
    assert ConnectionConfig(api_key="given").api_key == "given"


def test_a_domain_gives_both_addresses() -> None:
    config = ConnectionConfig(domain="box.example.com")
    assert config.api_url == "https://api.box.example.com"
    assert config.base_url(ID, 49983) == "https://49983-i0.box.example.com"


def test_the_domain_that_the_server_names_wins() -> None:
    config = ConnectionConfig(domain="box.example.com")
    assert config.base_url(ID, 80, "other.example") == "https://80-i0.other.example"


def test_a_sandbox_url_is_taken_verbatim_and_does_not_change_the_host() -> None:
    config = ConnectionConfig(domain="d.example", sandbox_url="http://proxy:3002")
    assert config.base_url(ID, 80, "other.example") == "http://proxy:3002"
    assert config.host(ID, 80) == "80-i0.d.example"


def test_an_api_elsewhere_needs_to_know_where_sandboxes_are() -> None:
    config = ConnectionConfig(api_url="http://10.0.0.5:3000")
    with pytest.raises(InvalidArgumentException, match="EMBERBOX_SANDBOX_URL"):
        config.base_url(ID, 80)
    assert config.base_url(ID, 80, "told.example") == "https://80-i0.told.example"


@pytest.mark.parametrize(("given", "expected"), [(None, 60.0), (0, None), (5, 5)])
def test_request_timeout(given: float | None, expected: float | None) -> None:
    assert ConnectionConfig(request_timeout=given).timeout() == expected
    assert ConnectionConfig().timeout(given) == expected


def test_options_of_a_call_replace_those_of_the_sandbox() -> None:
    config = ConnectionConfig(api_key="a", api_url="http://a", headers={"X-A": "1"})
    changed = config.with_options(api_url="http://b", api_key=None, headers={"X-B": "2"})
    assert (changed.api_url, changed.api_key) == ("http://b", "a")
    assert changed.headers.items() >= {"X-A": "1", "X-B": "2"}.items()


def test_a_later_change_of_the_environment_does_not_move_a_sandbox(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EMBERBOX_API_URL", "http://first")
    config = ConnectionConfig()
    monkeypatch.setenv("EMBERBOX_API_URL", "http://second")
    assert config.with_options(request_timeout=1).api_url == "http://first"


def test_options_that_make_no_sense() -> None:
    with pytest.raises(InvalidArgumentException, match="retries"):
        ConnectionConfig(retries=-1)
    with pytest.raises(InvalidArgumentException, match="request_timeout"):
        ConnectionConfig(request_timeout=-1)
    with pytest.raises(NotSupportedYetException, match="debug"):
        ConnectionConfig(debug=True)


def test_a_proxy_of_the_environment_is_not_used_for_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:8080")
    monkeypatch.setenv("no_proxy", "inside.example")
    assert choose_proxy("http://127.0.0.1:3000", None) is None
    assert choose_proxy("http://inside.example", None) is None
    assert choose_proxy("http://outside.example", None) == "http://proxy:8080"
    assert choose_proxy("http://127.0.0.1:3000", "http://own:1") == "http://own:1"
