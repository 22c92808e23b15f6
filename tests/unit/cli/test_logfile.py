"""Logs stay small, whoever writes them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from emberbox.cli import logfile

if TYPE_CHECKING:
    from pathlib import Path


def test_a_small_log_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"x" * 100)
    assert not logfile.rotate(path, limit=100)
    assert not logfile.rotate(tmp_path / "absent.log")
    assert path.stat().st_size == 100


def test_a_large_log_moves_aside_and_its_writers_go_on_in_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "a.log"
    fd = logfile.open_log(path)
    try:
        os.write(fd, b"old " * 50)
        assert logfile.rotate(path, limit=100)
        os.write(fd, b"new")
    finally:
        os.close(fd)
    assert path.read_bytes() == b"new"
    assert path.with_name("a.log.1").read_bytes() == b"old " * 50
    assert {entry.name for entry in path.parent.iterdir()} == {"a.log", "a.log.1"}
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_program_keeps_its_own_log_small(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    code = """
import os, sys, time
from pathlib import Path
from emberbox.cli import logfile
path = Path(sys.argv[1])
logfile.keep_small(path, limit=1000, every=0.01)
while not path.with_name("a.log.1").exists():
    os.write(1, b"a line of output\\n")
    time.sleep(0.001)
sys.exit("the end")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
    assert logfile.tail(path)[-1] == "the end"


def test_the_tail_of_a_long_log_is_its_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("".join(f"line {number}\n" for number in range(20_000)))
    assert logfile.tail(path, lines=2) == ["line 19998", "line 19999"]
    assert logfile.tail(tmp_path / "absent.log") == []
