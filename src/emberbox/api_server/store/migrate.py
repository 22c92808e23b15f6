"""Brings the schema up to this version, at start-up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.exc import SQLAlchemyError

from emberbox.api_server.errors import DatabaseUnavailableError
from emberbox.shared.errors import StartupError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from emberbox.api_server.store.database import Database


async def migrate(database: Database, revision: str = "head") -> None:
    """Upgrade to `revision` in one transaction.

    Raises StartupError when the database cannot be reached, or was written by a newer Emberbox.
    """
    try:
        async with database.write(alone="migrations") as connection:
            await connection.run_sync(_upgrade, revision)
    except DatabaseUnavailableError as error:
        raise _unusable(database, error.reason) from error
    except SQLAlchemyError as error:
        raise _unusable(database, str(error).partition("\n")[0]) from error


def _unusable(database: Database, reason: str) -> StartupError:
    return StartupError(f"the database {database.engine.url!r} cannot be used: {reason}")


def _upgrade(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    _refuse_newer(connection, ScriptDirectory.from_config(config))
    command.upgrade(config, revision)


def _refuse_newer(connection: Connection, scripts: ScriptDirectory) -> None:
    current = MigrationContext.configure(connection).get_current_revision()
    if current is None:
        return
    try:
        scripts.get_revision(current)
    except CommandError as error:
        raise StartupError(
            f"the database has schema {current}, which this Emberbox does not know: "
            "install the newer version again, or point EMBERBOX_DATABASE_URL at another database"
        ) from error
