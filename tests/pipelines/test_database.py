"""The database: migrations that match the tables, and several processes at once."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import inspect, text

from cluster.connect import ROOT
from cluster.errors import UserError
from pipelines.database import MIGRATIONS, newest_version, open_database, schema_version
from pipelines.records import Table, WaiverRow


def test_the_migrations_make_the_tables_that_the_records_describe(tmp_path):
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    engine = open_database(f"sqlite:///{tmp_path}/new.db")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "render_as_batch": True})
        assert compare_metadata(context, Table.metadata) == []


def test_the_comparison_notices_a_missing_column(tmp_path):
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    engine = open_database(f"sqlite:///{tmp_path}/new.db")
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE waivers DROP COLUMN because"))
        differences = compare_metadata(MigrationContext.configure(connection), Table.metadata)
        assert any(difference[0] == "add_column" and difference[3].name == "because" for difference in differences)


def test_the_newest_version_is_the_head_of_the_migrations():
    from alembic.script import ScriptDirectory

    assert newest_version() == ScriptDirectory(str(MIGRATIONS)).get_current_head()


def test_every_migration_can_be_taken_back(tmp_path):
    from alembic import command
    from alembic.config import Config

    engine = open_database(f"sqlite:///{tmp_path}/new.db")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        assert set(inspect(connection).get_table_names()) <= {"alembic_version"}
    assert set(Table.metadata.tables) <= set(inspect(open_database(str(engine.url))).get_table_names())


@pytest.mark.slow
def test_processes_that_open_a_new_workspace_at_once_all_find_it_ready(tmp_path):
    url = f"sqlite:///{tmp_path}/deep/shared.db"
    code = f"from pipelines.database import *; print(schema_version(open_database({url!r})))"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    answers = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0, 0], answers
    assert len({out for out, _ in answers}) == 1


def test_opening_again_changes_nothing(tmp_path):
    url = f"sqlite:///{tmp_path}/again.db"
    first = open_database(url)
    with first.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO quarantine (dataset, source, position, reason, content, created_at) "
                "VALUES ('d', 's', 1, 'r', 'c', '2030-01-01')"
            )
        )
    second = open_database(url)
    assert schema_version(second) == schema_version(first) == newest_version()
    with second.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM quarantine")).scalar() == 1


@pytest.mark.parametrize(
    "url", ["nonsense", "oracle+nothing://x", "sqlite:////proc/nowhere/x.db", "postgresql+pg8000://u@127.0.0.1:1/x"]
)
def test_a_database_out_of_reach_is_a_sentence_that_names_the_variable(url):
    with pytest.raises(UserError, match="The database cannot be opened") as caught:
        open_database(url)
    assert "SLUICE_DATABASE" in caught.value.remedy


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "x.db").write_text("this is no database, and long enough to be read as a header" * 20)
    with pytest.raises(UserError, match="cannot be opened"):
        open_database(f"sqlite:///{tmp_path}/x.db")


def test_times_come_back_aware_and_in_utc(workspace):
    summer = datetime(2030, 7, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    with workspace.session() as session:
        session.add(WaiverRow(gate="g", report="r", by="b", because="c", until=summer))
    (waiver,) = workspace.waivers(["r"])
    assert waiver.until == summer and waiver.until.tzinfo is UTC
    assert waiver.until.hour == 12


def test_a_time_without_a_zone_is_our_own_mistake(workspace):
    with pytest.raises(Exception, match="a time without a zone"), workspace.session() as session:
        session.add(WaiverRow(gate="g", report="r", by="b", because="c", until=datetime(2030, 7, 1)))


def test_a_session_that_fails_leaves_nothing(workspace):
    with pytest.raises(KeyError), workspace.session() as session:
        session.add(WaiverRow(gate="g", report="r", by="b", because="c"))
        raise KeyError
    assert workspace.waivers(["r"]) == ()
