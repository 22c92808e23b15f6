"""The Emberbox that is measured: one that runs already, or one started for the measurement."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from emberbox.shared.home import Home, default_home

if TYPE_CHECKING:
    from collections.abc import Iterator

_EMBERBOX = Path(sys.executable).with_name("emberbox")


@contextmanager
def running() -> Iterator[Home]:
    """`emberbox up` on the default ports and home, with the SDK's variables set for it."""
    print("starting emberbox up", file=sys.stderr)
    up = subprocess.Popen(
        [_EMBERBOX, "up", "--json"], stdout=subprocess.PIPE, text=True, process_group=0
    )
    try:
        assert up.stdout is not None
        with up.stdout as lines:
            line = lines.readline()
        if not line:
            sys.exit("emberbox up did not get ready: its last lines say why")
        facts = json.loads(line)
        for name in ("api_key", "api_url", "sandbox_url"):
            os.environ[f"EMBERBOX_{name.upper()}"] = facts[name]
        yield Home(default_home())
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(120)
