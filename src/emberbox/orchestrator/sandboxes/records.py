"""The run directory of a sandbox: everything an orchestrator needs to take hold of it again."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from emberbox.orchestrator.processes import ProcessIdentity
from emberbox.shared.sidefile import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

_log = structlog.get_logger(__name__)

RECORD_FILE = "sandbox.json"
SCRATCH_FILE = "scratch.ext4"


@dataclass(frozen=True, slots=True)
class SandboxRecord:
    """One run of one sandbox as written to its run directory. Times are unix seconds.

    slot is the index of its network slot, which also gives the VMM's uid. process is None until
    the VMM has been started. ended is the outcome once it is decided, with its reason.
    resumed: it began with the snapshot of a run before. booted: its memory has no template build
    for a base. notice says how it started otherwise than asked for.
    """

    sandbox_id: str
    execution_id: str
    template_id: str
    build_id: str
    slot: int
    vcpu: int
    ram_mb: int
    disk_mb: int
    internet: bool
    start_time: float
    end_time: float
    envd_version: str = ""
    traffic_token: str | None = None
    envd_token: str | None = field(default=None, repr=False)
    env_vars: dict[str, str] = field(default_factory=dict, repr=False)
    metadata: dict[str, str] = field(default_factory=dict)
    auto_pause: bool = False
    auto_pause_files_only: bool = False
    resumed: bool = False
    booted: bool = False
    notice: str = ""
    running: bool = False
    process: ProcessIdentity | None = None
    ended: tuple[str, str] | None = None

    def to_json(self) -> bytes:
        """The form on disk."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        data["process"] = self.process.to_json() if self.process else None
        return json.dumps(data).encode()

    @classmethod
    def from_json(cls, text: bytes) -> SandboxRecord:
        """Read what `to_json` wrote. Raises ValueError, KeyError or TypeError on anything else.

        Fields that this version does not know are left out, and those that it has added are as
        they are by default: another one may have written it.
        """
        raw: dict[str, Any] = json.loads(text)
        names = {f.name for f in dataclasses.fields(cls)}
        data = {name: value for name, value in raw.items() if name in names}
        process = data.pop("process")
        ended = data.pop("ended")
        return cls(
            **data,
            process=ProcessIdentity.from_json(process) if process else None,
            ended=(ended[0], ended[1]) if ended else None,
        )


class RunDirectories:
    """The run directories of this host, one for each sandbox that is not wholly gone."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, sandbox_id: str) -> Path:
        """Where a sandbox's files are."""
        return self.root / sandbox_id

    def create(self, record: SandboxRecord) -> Path:
        """Make the directory with its record in it. Raises OSError."""
        directory = self.path(record.sandbox_id)
        directory.mkdir(mode=0o700)
        try:
            _write(directory, record)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        return directory

    def take_over(self, directory: Path, record: SandboxRecord) -> Path:
        """Make a directory of the same file system that of a sandbox. Raises OSError.

        The record first: wherever this is cut off, the directory says whose it was to be.
        """
        _write(directory, record)
        return directory.rename(self.path(record.sandbox_id))

    def save(self, record: SandboxRecord) -> None:
        """Replace the record of an existing directory; nothing when it has none yet.

        Raises OSError.
        """
        directory = self.path(record.sandbox_id)
        if directory.exists():
            _write(directory, record)

    def remove(self, sandbox_id: str) -> None:
        """Remove a sandbox's files; the record goes first, so a torn removal is only garbage."""
        directory = self.path(sandbox_id)
        (directory / RECORD_FILE).unlink(missing_ok=True)
        shutil.rmtree(directory, ignore_errors=True)

    def load_all(self) -> list[SandboxRecord]:
        """Every record that can be read.

        A directory without one is garbage of a crash and removed: its VM, if it ever had one, is
        known to nobody. One that cannot be read is left for a person to look at. One that is
        called otherwise than its record says gets that name.
        """
        records = []
        for directory in sorted(self.root.iterdir()):
            try:
                record = SandboxRecord.from_json((directory / RECORD_FILE).read_bytes())
                directory.rename(self.path(record.sandbox_id))
                records.append(record)
            except FileNotFoundError:
                shutil.rmtree(directory, ignore_errors=True)
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                _log.error("a record cannot be read", directory=str(directory), error=repr(error))
        return records


def _write(directory: Path, record: SandboxRecord) -> None:
    # Not durable: a VM does not survive the loss of power that fsync guards against.
    write_atomically(directory / RECORD_FILE, record.to_json(), 0o600, durable=False)
