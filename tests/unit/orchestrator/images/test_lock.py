"""The lock of envd's packages."""

from __future__ import annotations

from emberbox.orchestrator.images.interpreter import UNUSED_WHEELS
from emberbox.orchestrator.images.lock import find_lock, without

LOCK = """\
# made by scripts/lock
one==1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via two
two-more==2.0 ; python_version < "4" \\
    --hash=sha256:cc
two==3.0 \\
    --hash=sha256:dd
"""


def test_an_entry_goes_with_its_hashes() -> None:
    assert without(LOCK, frozenset({"two"})) == LOCK.split("two==", maxsplit=1)[0]
    assert without(LOCK, frozenset({"two-more"})) == LOCK.replace(
        'two-more==2.0 ; python_version < "4" \\\n    --hash=sha256:cc\n', ""
    )


def test_the_lock_of_this_checkout_is_found_and_pins_what_is_left_out() -> None:
    text = find_lock().read_text()
    smaller = without(text, UNUSED_WHEELS)

    assert "uvicorn==" in smaller
    assert all(f"{name}==" in text and f"{name}==" not in smaller for name in UNUSED_WHEELS)
    assert text.count("--hash=") > smaller.count("--hash=") > 0
