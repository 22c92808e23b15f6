"""The forwarder's parts that need no namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emberbox.orchestrator.network.dns.limits import Shares
from emberbox.orchestrator.network.dns.resolvers import Resolvers, parse

if TYPE_CHECKING:
    from pathlib import Path


def test_resolv_conf_is_read_as_its_manual_says() -> None:
    text = (
        "# why\nsearch lan\nnameserver 127.0.0.53\nnameserver a.name\nnameserver fe80::1%eth0 #\n"
    )
    assert parse(text) == ("127.0.0.53", "fe80::1%eth0")
    assert parse("nameserver\n; nameserver 1.1.1.1\n") == ("127.0.0.1",)
    assert len(parse("nameserver 10.0.0.1\n" * 5)) == 3


def test_changed_file_is_read_again_and_a_missing_one_keeps_the_last(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 10.0.0.1\n")
    resolvers = Resolvers(path)
    assert resolvers.current() == ("10.0.0.1",)
    beside = tmp_path / "new"
    beside.write_text("nameserver 10.0.0.2\n")
    beside.replace(path)
    assert resolvers.current() == ("10.0.0.2",)
    path.unlink()
    assert resolvers.current() == ("10.0.0.2",)


def test_shares_are_bounded_by_client_and_in_all() -> None:
    shares = Shares(total=3, per_client=2)
    with shares.take("a") as first, shares.take("a") as second, shares.take("a") as third:
        assert (first, second, third) == (True, True, False)
        with shares.take("b") as other, shares.take("c") as beyond:
            assert (other, beyond) == (True, False)
    with shares.take("a") as again:
        assert again
