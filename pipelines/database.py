"""Opening the database: migrations, and SQLite set up for several processes."""

import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from cluster.errors import UserError

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_SECONDS = 30
"""How long one process waits for another that writes to the same SQLite file."""


def open_database(url: str) -> Engine:
    """An engine on `url`, its tables at the newest version. Raises UserError when it cannot be reached."""
    try:
        parsed = make_url(url)
        is_sqlite = parsed.get_backend_name() == "sqlite"
        if is_sqlite and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        # A server may have gone since, a file has not. What a statement carries may be what people wrote, and its
        # errors go to logs.
        engine = create_engine(parsed, pool_pre_ping=not is_sqlite, hide_parameters=True)
        if is_sqlite:
            event.listen(engine, "connect", _set_up_sqlite)
        _migrate(engine)
    except (ArgumentError, SQLAlchemyError, OSError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"The database cannot be opened: {reason}", "Check SLUICE_DATABASE.") from error
    return engine


def _set_up_sqlite(connection: Any, _: Any) -> None:
    """Readers beside a writer (WAL), and waiting rather than failing when two write at once."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
    _write_ahead(cursor)
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """Turns the write-ahead log on, which a new file needs once.

    Two processes that do so at once each hold a reader's lock and want the writer's. SQLite then refuses one
    of them without waiting, whatever its busy timeout: it asks again.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            # The low byte: what is above it says why it is busy.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _migrate(engine: Engine) -> None:
    # Nearly always: every process asks, and Alembic takes as long to import as all else that opening needs.
    if schema_version(engine) == newest_version():
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        # Two processes may open a new workspace at once: the second waits here and finds it done.
        if engine.dialect.name == "sqlite":
            # The driver itself begins no transaction before DDL.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(5382011)")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def schema_version(engine: Engine) -> str | None:
    """The migration that the database is at."""
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        version: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return version


def newest_version() -> str:
    """The last migration: a file begins with its number, as its `revision` says."""
    return max(path.stem for path in (MIGRATIONS / "versions").glob("[0-9]*.py")).partition("_")[0]
