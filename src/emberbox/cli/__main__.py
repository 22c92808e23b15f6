"""`python -m emberbox.cli`: how `up` starts the programs with the interpreter it runs in."""

from __future__ import annotations

from emberbox.cli.main import main

main()
