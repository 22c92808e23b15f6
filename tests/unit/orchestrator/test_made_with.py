"""What a machine was made with, told to people."""

from __future__ import annotations

import pytest

from emberbox.orchestrator.machines.made_with import another_vmm


@pytest.mark.parametrize(
    ("saved", "here", "told"),
    [
        ("7.2: -cpu a -m 1", "8.2: -cpu a -m 1", "7.2; here: 8.2"),
        ("", "8.2: -cpu a", "unknown; here: 8.2"),
        ("7.2: -cpu a -m 1", "7.2: -cpu b -m 1", "7.2 with a; here with b"),
        ("7.2: -cpu a", "7.2: -cpu a -net", "7.2 with less; here with -net"),
        ("7.2: " + "x" * 2000, "7.2: y", "7.2 with " + "x" * 300 + "; here with y"),
    ],
)
def test_the_difference_is_told(saved: str, here: str, told: str) -> None:
    assert another_vmm(saved, here).endswith(f": {told}")
