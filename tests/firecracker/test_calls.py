"""What Firecracker is told fits its published interface, in every version that is driven."""

from __future__ import annotations

import pytest

from emberbox.orchestrator.machines.driver import Hardware
from emberbox.orchestrator.machines.firecracker import calls, jail
from emberbox.orchestrator.machines.firecracker.calls import Call, Rates
from emberbox.orchestrator.machines.firecracker.version import Version
from tests.firecracker.standin import schema

VERSIONS = [Version(1, minor, 0) for minor in range(12, 18)]


@pytest.mark.parametrize("version", VERSIONS, ids=str)
@pytest.mark.parametrize("rates", [Rates(), Rates(1, 2, 3)])
def test_every_body_is_as_published(version: Version, rates: Rates) -> None:
    puts = [
        *calls.reporting(),
        *calls.configuration(Hardware(32, 4096)),
        calls.START,
        calls.load(version),
        calls.dump(changes=True),
        calls.dump(changes=False),
    ]
    patches = [calls.PAUSE, calls.RESUME, *calls.limits(rates)]
    for method, told in (("PUT", puts), ("PATCH", patches)):
        for call in told:
            _check(version, method, call)


def _check(version: Version, method: str, call: Call) -> None:
    known = (version.major, version.minor)
    _, definition = schema.operation(known, method, call.path)
    assert definition is not None
    assert schema.check(known, definition, call.body) == call.body


def test_a_name_is_taken_whole_or_cut_so_that_it_still_begins_the_same() -> None:
    assert jail.machine_id("emberbox-a1b2c-i0123456789") == "emberbox-a1b2c-i0123456789"
    long = [f"emberbox-a1b2c-{'x' * 62}{end}" for end in "ab"]
    first, second = map(jail.machine_id, long)
    assert first != second
    assert len(first) == 64
    assert first.startswith("emberbox-a1b2c-xxx")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Firecracker v1.16.1\n\nSupported snapshot data format versions: 11.0.0", "1.16.1"),
        ("1.17.0-dev", "1.17.0"),
        ("Firecracker", "None"),
    ],
)
def test_versions_are_read(text: str, version: str) -> None:
    assert str(Version.parse(text)) == version


def test_large_vms_are_saved_whole_by_versions_that_lose_pages() -> None:
    assert not Version(1, 14, 2).saves_changes_of(4096)
    assert Version(1, 14, 2).saves_changes_of(3072)
    assert Version(1, 15, 0).saves_changes_of(4096)


def test_the_largest_file_is_the_disk_or_the_memory() -> None:
    assert jail.largest_file(512, 10 << 30) == (10 << 30) + (64 << 20)
    assert jail.largest_file(4096, 1 << 30) == (4096 + 64) << 20
