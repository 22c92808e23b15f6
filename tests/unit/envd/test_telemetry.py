"""GET /telemetry: for the host alone, in one answer, without users' data."""

from __future__ import annotations

import json
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from emberbox.envd.logbook import Logbook
from emberbox.envd.server import Envd, Settings

from .conftest import RecordingSystem

if TYPE_CHECKING:
    from .conftest import Running


def fetch(running: Running, **query: str) -> dict[str, Any]:
    answer = running.client.get("/telemetry", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def messages(telemetry: dict[str, Any]) -> list[str]:
    return [message for _number, _at, _level, _logger, message, _fields in telemetry["entries"]]


def test_what_the_machine_uses(running: Running) -> None:
    running.init(lifecycleId="run-1")
    first, second = fetch(running)["metrics"], fetch(running)["metrics"]
    assert first["mem_used"] < first["mem_total"]
    assert first["disk_used"] < first["disk_total"]
    assert first["cpu_count"] >= 1
    assert 0 < first["cpu_ticks_base"] <= first["cpu_ticks"] <= second["cpu_ticks"]
    assert 0 < first["cpu_busy_base"] <= first["cpu_busy"] <= second["cpu_busy"]


def test_a_reader_of_metrics_is_not_disturbed(running: Running) -> None:
    running.client.get("/metrics")
    metrics = running.envd.app._metrics
    before = (metrics._busy, metrics._total)
    fetch(running)
    assert (metrics._busy, metrics._total) == before


def test_the_story_of_a_process(running: Running) -> None:
    running.init(lifecycleId="run-1", envVars={"GLOBAL": "do-not-tell"}, accessToken="do-not-tell")
    running.client.headers["x-access-token"] = "do-not-tell"
    running.client.run(
        *("/bin/sh", "-c", "cat; echo output; exit 3"), envs={"E": "do-not-tell"}, tag="mine"
    )
    answer = fetch(running)
    assert messages(answer)[0] == "initialized"
    began, ended = answer["entries"][1:]
    pid = began[5]["pid"]
    assert began[2:5] == ["info", "process", f"process {pid} started"]
    assert began[5] == {
        "pid": pid,
        "cmd": "/bin/sh -c cat; echo output; exit 3",
        "user": "root",
        "cwd": "/root",
        "tag": "mine",
    }
    assert ended[4] == f"process {pid} ended: exit status 3"
    assert "do-not-tell" not in json.dumps(answer)


def test_only_what_is_new(running: Running) -> None:
    running.init(lifecycleId="run-1")
    running.client.run("true")
    first = fetch(running)
    last = first["entries"][-1][0]
    place = {"stream": first["stream"], "after": str(last)}
    assert fetch(running, **place)["entries"] == []
    running.client.run("true")
    assert [entry[0] for entry in fetch(running, **place)["entries"]] == [last + 1, last + 2]
    assert len(fetch(running, stream="of another", after=str(last))["entries"]) == last + 2


def test_a_run_begins_its_own_story_and_a_repeated_init_does_not(running: Running) -> None:
    running.client.run("true")
    running.init(lifecycleId="run-1")
    stream = fetch(running)["stream"]
    running.init(lifecycleId="run-1")
    again = fetch(running)
    assert again["stream"] == stream
    assert messages(again) == ["initialized", "initialized"]
    running.init(lifecycleId="run-2")
    other = fetch(running)
    assert other["stream"] != stream
    assert messages(other) == ["initialized"]


@pytest.mark.parametrize("after", ["-1", "x", "1" * 19, "²"])
def test_a_number_that_is_none(running: Running, after: str) -> None:
    answer = running.client.get("/telemetry", params={"after": after})
    assert answer.status_code == 400
    assert "after" in answer.json()["message"]


def test_nobody_but_the_host(running: Running) -> None:
    inside = Envd(Settings(init_peers=("192.0.2.1",)), system=RecordingSystem())
    running.envd.app._telemetry = inside.app._telemetry
    answer = running.client.get("/telemetry")
    assert answer.status_code == 403
    assert answer.json()["code"] == 403


def test_warnings_of_envd_itself(running: Running) -> None:
    logging.getLogger("emberbox.envd.init").warning("cannot %s", "set the clock")
    logging.getLogger("emberbox.envd.init").info("not this")
    logging.getLogger("another.library").warning("nor this")
    (found,) = fetch(running)["entries"]
    assert found[2:5] == ["warn", "envd", "cannot set the clock"]


def test_arguments_of_any_length(running: Running) -> None:
    running.client.run("/bin/true", "ä" * 50_000, *["x"] * 1000)
    (began,) = [e for e in fetch(running)["entries"] if e[4].endswith("started")]
    assert began[5]["cmd"] == "/bin/true " + "ä" * 490


def test_an_answer_is_bounded_and_says_that_there_is_more() -> None:
    logbook = Logbook()
    for _ in range(1000):
        logbook.add("info", "test", "\1" * 1000, tag="\1" * 1000)
    seen: list[int] = []
    more = True
    while more:
        pieces, more = logbook.after(logbook.stream, seen[-1] if seen else 0)
        assert 0 < sum(map(len, pieces)) <= 40 * 1024
        seen += [json.loads(piece)[0] for piece in pieces]
    assert seen == list(range(1000 - len(seen) + 1, 1001))
    assert len(seen) == 256


def test_half_a_character_is_told_as_something_else() -> None:
    logbook = Logbook()
    logbook.add("info", "test", "a\ud800b")
    ((piece,), _more) = logbook.after("", 0)
    assert json.loads(piece)[4] == "a?b"


def test_written_by_many_threads_and_read_meanwhile() -> None:
    logbook = Logbook()

    def write() -> None:
        for _ in range(2000):
            logbook.add("info", "t", "m")

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        logbook.after(logbook.stream, 0)
    for writer in writers:
        writer.join()
    logbook.add("info", "t", "last")
    (*_, last), _more = logbook.after(logbook.stream, 8000)
    assert json.loads(last)[0] == 8001
