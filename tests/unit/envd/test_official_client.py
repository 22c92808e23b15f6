"""The released e2b package against envd alone, in its debug mode."""

from __future__ import annotations

import asyncio
import io

import pytest
from e2b import (
    AsyncSandbox,
    CommandExitException,
    FileNotFoundException,
    FilesystemEvent,
    FilesystemEventType,
    FileType,
    InvalidArgumentException,
    NotFoundException,
    PtySize,
    Sandbox,
    TimeoutException,
)

from tests.unit.envd.conftest import OTHER, Running

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def sandbox(running: Running) -> Sandbox:
    return Sandbox.create(debug=True, api_key="e2b_" + "0" * 40, sandbox_url=running.url)


def test_commands(sandbox: Sandbox) -> None:
    lines: list[str] = []
    result = sandbox.commands.run(
        "echo a; echo é >&2; echo $X", envs={"X": "1"}, on_stdout=lines.append
    )
    assert (result.stdout, result.stderr, result.exit_code) == ("a\n1\n", "é\n", 0)
    assert "".join(lines) == result.stdout
    with pytest.raises(CommandExitException) as failed:
        sandbox.commands.run("exit 7")
    assert failed.value.exit_code == 7
    assert sandbox.commands.run("id -un", user=OTHER.pw_name).stdout == OTHER.pw_name + "\n"
    with pytest.raises(InvalidArgumentException, match="cwd '/no/such' does not exist"):
        sandbox.commands.run("true", cwd="/no/such")
    with pytest.raises(TimeoutException):
        sandbox.commands.run("sleep 60", timeout=0.3)


def test_background_commands(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("cat", background=True, stdin=True)
    (found,) = sandbox.commands.list()
    assert (found.pid, found.args) == (handle.pid, ["-l", "-c", "cat"])
    other = sandbox.commands.connect(handle.pid)
    sandbox.commands.send_stdin(handle.pid, "typed")
    sandbox.commands.close_stdin(handle.pid)
    assert handle.wait().stdout == other.wait().stdout == "typed"
    sleeper = sandbox.commands.run("sleep 600; true", background=True)
    assert sleeper.kill()
    assert not sandbox.commands.kill(sleeper.pid)
    with pytest.raises(CommandExitException):
        sleeper.wait()
    with pytest.raises(NotFoundException):
        sandbox.commands.connect(4_000_000)


def test_terminal(sandbox: Sandbox) -> None:
    terminal = sandbox.pty.create(size=PtySize(cols=90, rows=20))
    sandbox.pty.resize(terminal.pid, PtySize(cols=70, rows=10))
    sandbox.pty.send_stdin(terminal.pid, b"stty size; exit 3\n")
    shown: list[bytes] = []
    with pytest.raises(CommandExitException) as ended:
        terminal.wait(on_pty=shown.append)
    assert ended.value.exit_code == 3
    assert b"10 70" in b"".join(shown)


def test_files(sandbox: Sandbox, tmp_path: object) -> None:
    path = f"{tmp_path}/dir/file"
    written = sandbox.files.write(path, "text")
    assert (written.path, written.name) == (path, "file")
    assert sandbox.files.read(path) == "text"
    assert sandbox.files.read(path, format="bytes") == b"text"
    assert b"".join(sandbox.files.read(path, format="stream")) == b"text"
    sandbox.files.write(path, io.BytesIO(b"from a file"))
    assert sandbox.files.read(path) == "from a file"
    sandbox.files.write_files([{"path": f"{path}{n}", "data": str(n)} for n in range(3)])
    assert [entry.name for entry in sandbox.files.list(f"{tmp_path}/dir")] == [
        "file", "file0", "file1", "file2",
    ]  # fmt: skip
    info = sandbox.files.get_info(path)
    assert (info.type, info.size, info.owner) == (FileType.FILE, 11, "root")
    assert sandbox.files.make_dir(f"{tmp_path}/made")
    assert not sandbox.files.make_dir(f"{tmp_path}/made")
    assert sandbox.files.rename(path, f"{tmp_path}/made/new").path == f"{tmp_path}/made/new"
    assert not sandbox.files.exists(path)
    sandbox.files.remove(f"{tmp_path}/made")
    sandbox.files.remove(f"{tmp_path}/made")
    for missing in (sandbox.files.read, sandbox.files.get_info, sandbox.files.list):
        with pytest.raises(FileNotFoundException):
            missing(path)


def test_file_with_metadata_and_gzip(sandbox: Sandbox, tmp_path: object) -> None:
    path = f"{tmp_path}/file"
    sandbox.files.write(path, "x" * 10_000, gzip=True, metadata={"Key": "value"})
    assert sandbox.files.read(path, gzip=True) == "x" * 10_000
    assert sandbox.files.get_info(path).metadata == {"key": "value"}


def test_watching_by_polling(sandbox: Sandbox, tmp_path: object) -> None:
    watcher = sandbox.files.watch_dir(str(tmp_path), recursive=True, include_entry=True)
    sandbox.files.write(f"{tmp_path}/f", "text")
    events = watcher.get_new_events()
    assert [(event.name, event.type) for event in events] == [
        ("f", FilesystemEventType.CREATE),
        ("f", FilesystemEventType.CHMOD),
        ("f", FilesystemEventType.WRITE),
    ]
    assert events[2].entry is not None
    assert (events[2].entry.path, events[2].entry.size) == (f"{tmp_path}/f", 4)
    assert watcher.get_new_events() == []
    sandbox.files.make_dir(f"{tmp_path}/nested")
    sandbox.files.write(f"{tmp_path}/nested/g", "text")
    sandbox.files.remove(f"{tmp_path}/f")
    told = {(event.name, event.type) for event in watcher.get_new_events()}
    assert told >= {
        ("nested", FilesystemEventType.CREATE),
        ("nested/g", FilesystemEventType.CREATE),
        ("nested/g", FilesystemEventType.WRITE),
        ("f", FilesystemEventType.REMOVE),
    }
    watcher.stop()
    with pytest.raises(FileNotFoundException):
        sandbox.files.watch_dir("/no/such")
    with pytest.raises(InvalidArgumentException, match="is not a directory"):
        sandbox.files.watch_dir("/etc/passwd")


async def test_watching_by_stream(running: Running, tmp_path: object) -> None:
    sandbox = await AsyncSandbox.create(
        debug=True, api_key="e2b_" + "0" * 40, sandbox_url=running.url
    )
    events: asyncio.Queue[FilesystemEvent] = asyncio.Queue()
    ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    handle = await sandbox.files.watch_dir(
        str(tmp_path),
        on_event=events.put,
        on_exit=ended.set_result,
        recursive=True,
        include_entry=True,
    )
    await sandbox.files.write(f"{tmp_path}/new/dir/f", "text")
    await sandbox.files.rename(f"{tmp_path}/new", f"{tmp_path}/old")
    told: list[tuple[str, FilesystemEventType]] = []
    async with asyncio.timeout(20):
        while told[-1:] != [("old", FilesystemEventType.CREATE)]:
            event = await events.get()
            told.append((event.name, event.type))
        for name in ("new", "new/dir", "new/dir/f"):
            assert told.count((name, FilesystemEventType.CREATE)) == 1
        assert ("new", FilesystemEventType.RENAME) in told
        await handle.stop()  # type: ignore[no-untyped-call]
        assert await ended is None
    with pytest.raises(FileNotFoundException):
        await sandbox.files.watch_dir("/no/such", on_event=events.put)
    with pytest.raises(InvalidArgumentException, match="is not a directory"):
        await sandbox.files.watch_dir("/etc/passwd", on_event=events.put)
