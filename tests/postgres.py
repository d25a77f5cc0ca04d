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
    """(engine that makes databases, name of one with our tables in it) where `SLUICE_TEST_DATABASE` asks for it."""
    if os.environ.get("SLUICE_TEST_DATABASE") != "postgresql":
        yield None
        return
    import sqlalchemy as sa

    from pipelines.database import open_database

    with server() as url:
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql("CREATE DATABASE empty")
        open_database(in_server(engine, "empty")).dispose()
        yield engine, "empty"
        engine.dispose()


def in_server(engine, name):
    """URL of one of its databases."""
    return engine.url.set(database=name).render_as_string(hide_password=False)
