"""The frequency of the host's time stamp counter."""

from __future__ import annotations

import platform
import re

import pytest

from emberbox.orchestrator.images.clock import software_clock_options, tsc_khz


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the counter is x86-64's")
def test_the_frequency_is_the_same_each_time_it_is_measured() -> None:
    first, second = tsc_khz(), tsc_khz()

    # Processors of 0.5 to 10 GHz. The kernel itself takes what is within 1 % for the same.
    assert 500_000 < first < 10_000_000
    assert abs(first - second) < first / 100


def test_the_options_are_measured_once() -> None:
    options = software_clock_options()

    assert re.fullmatch(r"(tsc=reliable tsc_early_khz=\d+)?", options)
    assert software_clock_options() is options
