"""A PostgreSQL server of the tests' own, for as long as they run."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.waiting import until


def program(name):
    """Where PostgreSQL keeps a program; Debian leaves them out of PATH."""
    found = shutil.which(name) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)
    if found is None:
        pytest.fail(f"there is no {name}: install postgresql")
    return found


@contextlib.contextmanager
def server():
    """URL of a server that listens in a folder of its own, trusts who gets there, and has nothing in it."""
    # It refuses to run as root: then it is the user's that its package made.
    user = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    # Unix sockets allow 107 characters: the folder must be short.
    folder = tempfile.mkdtemp(prefix="slpg", dir="/tmp")
    try:
        os.chown(folder, user.pw_uid, user.pw_gid)
        made = [program("initdb"), "-D", f"{folder}/data", "-A", "trust", "-U", "sluice", "--no-sync", "-E", "UTF8"]
        subprocess.run(made, check=True, capture_output=True, cwd=folder, **as_user)
        options = {"listen_addresses": "", "unix_socket_directories": folder, "fsync": "off"}
        command = [program("postgres"), "-D", f"{folder}/data", *(f"--{name}={it}" for name, it in options.items())]
        with open(f"{folder}/log", "w") as log:
            running = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **as_user)
        try:
            ready = [program("pg_isready"), "-q", "-h", folder]
            until(lambda: running.poll() is not None or subprocess.run(ready).returncode == 0, "PostgreSQL's start")
            assert running.poll() is None, Path(folder, "log").read_text()
            yield f"postgresql+pg8000://sluice@/postgres?unix_sock={folder}/.s.PGSQL.5432"
        finally:
            # At once, whoever is still connected.
            running.send_signal(signal.SIGINT)
            running.wait(60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres():
    """`Records` where `SLUICE_TEST_DATABASE` asks for PostgreSQL, else None."""
    if os.environ.get("SLUICE_TEST_DATABASE") != "postgresql":
        yield None
        return
    from pipelines.database import open_database

    with server() as url:
        records = Records(url, open_database(url))
        yield records
        records.engine.dispose()


class Records:
    """A database with our tables, emptied for each test: a new one takes longer than most tests."""

    def __init__(self, url, engine):
        self.url, self.engine = url, engine

    def empty(self):
        """End whoever is still connected, and forget all."""
        from sqlalchemy import inspect

        tables = [name for name in inspect(self.engine).get_table_names() if name != "alembic_version"]
        with self.engine.begin() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            connection.exec_driver_sql(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY CASCADE")
