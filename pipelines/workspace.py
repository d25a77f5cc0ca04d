"""The workspace: storage, database and tracking behind one door."""

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import UserError
from cluster.settings import Settings
from pipelines.gates import Report, Waiver

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session


_SECRET = "pseudonyms.key"
"""In storage, beside the tables whose masked names are made with it."""


class Workspace:
    """Where things are kept. Opening one creates its folders and brings its tables up to date."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings.from_environment()

    def uri(self, *parts: str) -> str:
        """Address of something in storage: a path for local storage, a URI otherwise."""
        return "/".join([self.settings.storage.rstrip("/"), *parts])

    @property
    def is_local(self) -> bool:
        """Whether storage is a folder of this machine."""
        return "://" not in self.settings.storage

    def fetch(self, uri: str) -> Path:
        """A local folder with the content at `uri`: itself when local, else a copy that is made once.

        What is kept in storage for others to fetch is named by its content, so a copy never goes stale.
        """
        if "://" not in uri:
            return Path(uri)
        from pyarrow import fs

        from pipelines.fingerprint import fingerprint, short

        target = Path.home() / ".sluice" / "fetched" / short(fingerprint(uri)) / uri.rstrip("/").rpartition("/")[2]
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
            fs.copy_files(uri, str(partial))
            try:
                partial.rename(target)
            except OSError:
                # Another process was first, with the same content.
                shutil.rmtree(partial)
        return target

    def holds(self, uri: str) -> bool:
        """Whether there is a file at `uri`."""
        if "://" not in uri:
            return Path(uri).is_file()
        from pyarrow import fs

        there, path = fs.FileSystem.from_uri(uri)
        return bool(there.get_file_info(path).type == fs.FileType.File)

    def keep(self, folder: Path, *parts: str, last: str = "") -> str:
        """Copy a local folder into storage under `parts`, complete or not at all; its address.

        Object stores have no rename: there a copy is complete when it holds the file `last`, which comes after the
        others.
        """
        address = self.uri(*parts)
        if self.is_local:
            target = Path(address)
            partial = target.with_name(target.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(folder, partial)
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
        else:
            from pyarrow import fs

            there, path = fs.FileSystem.from_uri(address)
            there.create_dir(path, recursive=True)
            # Files of an earlier copy must not stand among the new ones.
            there.delete_dir_contents(path)
            for file in sorted(folder.rglob("*"), key=lambda file: file == folder / last):
                if file.is_file():
                    inside = file.relative_to(folder).as_posix()
                    there.create_dir(f"{path}/{inside}".rpartition("/")[0], recursive=True)
                    fs.copy_files(str(file), f"{address}/{inside}")
        return address

    @cached_property
    def database(self) -> "Engine":
        """The engine, its tables migrated to the newest version."""
        from pipelines.database import open_database

        return open_database(self.settings.database_url)

    @contextmanager
    def session(self) -> "Iterator[Session]":
        """A session that commits at the end, or rolls back on an error."""
        from sqlalchemy.orm import Session

        with Session(self.database, expire_on_commit=False) as session, session.begin():
            yield session

    def save_report(self, report: Report) -> None:
        """Store a report."""
        from pipelines.records import ReportRow

        with self.session() as session:
            session.add(
                ReportRow(
                    key=report.key,
                    stage=report.stage,
                    recipe_name=report.recipe_name,
                    verdict=str(report.verdict),
                    content=report.model_dump(mode="json"),
                    created_at=report.created_at,
                )
            )

    def copy_report(self, report: Report, recipe_name: str, recipe: dict[str, Any]) -> Report:
        """The stored report under another recipe's name too, once; waivers applied."""
        from sqlalchemy import select

        from pipelines.records import ReportRow

        newest = select(ReportRow).where(ReportRow.key == report.key).order_by(ReportRow.id.desc()).limit(1)
        with self.session() as session:
            # Copied as it was decided: waivers are applied whenever a report is read.
            row = session.scalars(newest).one()
            session.add(
                ReportRow(
                    key=row.key,
                    stage=row.stage,
                    recipe_name=recipe_name,
                    verdict=row.verdict,
                    content=row.content | {"recipe_name": recipe_name, "recipe": recipe},
                    created_at=row.created_at,
                )
            )
        return self.reports(stage=report.stage, key=report.key, recipe_name=recipe_name, limit=1)[0]

    def find_report(self, stage: str, key: str) -> Report | None:
        """The newest report of `stage` on exactly these inputs, waivers applied; or None."""
        found = self.reports(stage=stage, key=key, limit=1)
        return found[0] if found else None

    def reports(
        self, *, stage: str | None = None, key: str | None = None, recipe_name: str | None = None, limit: int = 100
    ) -> list[Report]:
        """Stored reports, newest first, waivers applied."""
        from sqlalchemy import select

        from pipelines.records import ReportRow

        query = select(ReportRow).order_by(ReportRow.id.desc()).limit(limit)
        for column, value in ((ReportRow.stage, stage), (ReportRow.key, key), (ReportRow.recipe_name, recipe_name)):
            if value is not None:
                query = query.where(column == value)
        with self.session() as session:
            reports = [Report.model_validate(row.content) for row in session.scalars(query)]
        waivers = self.waivers([report.key for report in reports])
        return [report.with_waivers(waivers) for report in reports]

    def save_waiver(self, waiver: Waiver) -> None:
        """Record a person's decision."""
        from pipelines.records import WaiverRow

        with self.session() as session:
            session.add(WaiverRow(**waiver.model_dump()))

    def waivers(self, reports: list[str]) -> tuple[Waiver, ...]:
        """The waivers of these report keys, oldest first."""
        from sqlalchemy import select

        from pipelines.records import WaiverRow

        if not reports:
            return ()
        with self.session() as session:
            rows = session.scalars(select(WaiverRow).where(WaiverRow.report.in_(set(reports))).order_by(WaiverRow.id))
            return tuple(
                Waiver(
                    gate=row.gate,
                    report=row.report,
                    by=row.by,
                    because=row.because,
                    until=row.until,
                    created_at=row.created_at,
                )
                for row in rows
            )

    def secret(self) -> bytes:
        """32 random bytes, made once: what is hashed with them can be tried out by nobody who has only the hashes."""
        self.check_storage()
        if self.is_local:
            path = Path(self.uri(_SECRET))
            if not path.exists():
                with tempfile.NamedTemporaryFile(dir=path.parent) as new:
                    new.write(secrets.token_bytes(32))
                    new.flush()
                    # Whoever was first is right: a second secret would call the same things by other names.
                    with contextlib.suppress(FileExistsError):
                        os.link(new.name, path)
            return path.read_bytes()
        from pyarrow import fs

        there, remote = fs.FileSystem.from_uri(self.uri(_SECRET))
        if there.get_file_info(remote).type == fs.FileType.NotFound:
            with there.open_output_stream(remote) as stream:
                stream.write(secrets.token_bytes(32))
        with there.open_input_stream(remote) as stream:
            return bytes(stream.read())

    def check_storage(self) -> None:
        """Raise UserError when storage cannot be written."""
        if not self.is_local:
            return
        try:
            Path(self.settings.storage).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"The workspace {self.settings.storage} cannot be written: {error.strerror}.",
                "Set SLUICE_STORAGE to a folder that can.",
            ) from None
