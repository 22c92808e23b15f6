"""`python -m benchmarks NAME`: run one measurement, print its result as the last line, in JSON."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from emberbox.orchestrator.machines.kvm import missing_for_kvm

NAMES = ("create", "density", "envd", "fork", "network", "pause", "proxy")


def main() -> int:
    """Parse, measure, print; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="Options of a measurement follow its name, as in: create --clone 5.",
        allow_abbrev=False,
    )
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--json", type=Path, help="write the result to this file too")
    arguments, rest = parser.parse_known_args()
    module = importlib.import_module(f"benchmarks.{arguments.name}")
    result: dict[str, Any] = module.main(rest)
    result |= {"machine": machine(), "version": version("emberbox")}
    line = json.dumps(result)
    if arguments.json:
        arguments.json.write_text(line + "\n")
    print(line)
    return 0


def machine() -> dict[str, Any]:
    """What the figures were read on."""
    return {
        "cores": os.cpu_count(),
        "virtualization": "none" if missing_for_kvm() else "kvm",
        "kernel": platform.release(),
    }


if __name__ == "__main__":
    sys.exit(main())
