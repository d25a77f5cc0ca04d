"""Ray's Jobs API: submit, follow, stop, list.

Entrypoints go through a shell on the cluster and are logged there, so they are made of our own words alone:
what a person wrote travels in the job's folder, settings in its environment.
"""

import asyncio
import logging
import os
import re
import shlex
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster.connect import prepare_environment
from cluster.errors import UserError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
"""Where `ray start --head` listens for jobs."""

POLL_S = 0.5
"""Seconds between two looks at a job."""

COLOURS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
"""What colours a terminal, and moves its cursor (ECMA-48, control sequences)."""


class JobState(StrEnum):
    """Ray's states, and two that Ray cannot know."""

    SUBMITTING = "submitting"
    """Recorded here, not yet known to Ray."""
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"
    """The cluster knows nothing of it any more: it was restarted or replaced."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED, JobState.LOST)


@dataclass(frozen=True)
class Job:
    """A job as Ray tells it."""

    submission_id: str
    state: JobState
    exit_code: int | None
    """The stage's own exit code, once it has ended by itself."""
    message: str
    started_at: datetime | None
    ended_at: datetime | None


def jobs_address() -> str:
    """The address that jobs go to: RAY_ADDRESS, else a cluster on this machine."""
    return os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or DEFAULT_ADDRESS


class Jobs:
    """The jobs of one cluster. Raises UserError when it is away or refuses our token."""

    def __init__(self, address: str | None = None) -> None:
        self.address = address or jobs_address()
        prepare_environment()
        check_reachable(self.address)
        with self._errors():
            from ray.job_submission import JobSubmissionClient

            for name in (
                "dashboard.modules.dashboard_sdk",
                "dashboard.modules.job.sdk",
                "_private.runtime_env.packaging",
            ):
                # Uploads and closed connections are no news among a job's own lines.
                logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)
            self._client = JobSubmissionClient(self.address)

    def submit(
        self, submission_id: str, module: str, folder: Path, environment: dict[str, str], options: tuple[str, ...] = ()
    ) -> None:
        """Start `python -m MODULE recipe.yaml` in a copy of `folder`, which holds our packages and the recipe."""
        entrypoint = self.entrypoint(module, options)
        with self._errors():
            self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=submission_id,
                runtime_env={"working_dir": str(folder), "env_vars": environment},
            )

    def entrypoint(self, module: str, options: tuple[str, ...] = ()) -> str:
        """The shell line: fixed words, and the interpreter by its full name where the cluster is this machine."""
        assert re.fullmatch(r"[a-z_.]+", module), module
        assert all(re.fullmatch(r"--[a-z-]+", option) for option in options), options
        # A cluster elsewhere has another file system: there its own PATH decides.
        python = os.environ.get("SLUICE_JOB_PYTHON") or (sys.executable if self.is_here else "python")
        return shlex.join([python, "-m", module, "recipe.yaml", *options])

    def find(self, submission_id: str) -> Job | None:
        """The job, or None when the cluster does not know it."""
        with self._errors():
            try:
                return _job(self._client.get_job_info(submission_id))
            except RuntimeError as error:
                if "status code 404" in str(error):
                    return None
                raise

    def list(self) -> dict[str, Job]:
        """All jobs that the cluster remembers, by submission id."""
        with self._errors():
            return {job.submission_id: _job(job) for job in self._client.list_jobs() if job.submission_id}

    def stop(self, submission_id: str) -> bool:
        """End a job: it gets a signal, and is killed three seconds later. False when it had ended."""
        with self._errors():
            return bool(self._client.stop_job(submission_id))

    def follow(self, submission_id: str, write: Callable[[str], None], patience_s: float = 60) -> Job:
        """Hand the job's log to `write` as it grows, until the job has ended.

        A connection that breaks is taken up again where it broke, for `patience_s` seconds without success.
        """
        shown = 0
        deadline = time.monotonic() + patience_s

        def keep(text: str) -> None:
            nonlocal shown, deadline
            shown += len(text)
            deadline = time.monotonic() + patience_s
            write(text)

        while True:
            try:
                asyncio.run(self._tail(submission_id, shown, keep))
                job = self.find(submission_id)
            except (OSError, RuntimeError, UserError) as error:
                if time.monotonic() > deadline:
                    raise UserError(
                        f"The log of {submission_id} can no longer be followed: {str(error).splitlines()[0]}",
                        "The job goes on without us: `sluice jobs` shows its state.",
                    ) from error
            else:
                if job is None:
                    return Job(submission_id, JobState.LOST, None, "The cluster does not know this job.", None, None)
                if job.state.ended:
                    return job
            time.sleep(POLL_S)

    async def _tail(self, submission_id: str, skip: int, write: Callable[[str], None]) -> None:
        # A new connection starts at the log's beginning: what was shown already is passed over.
        async for text in self._client.tail_job_logs(submission_id):
            if fresh := text[skip:]:
                write(fresh)
            skip = max(0, skip - len(text))

    def log(self, submission_id: str, lines: int | None = None) -> str:
        """The last `lines` of what the job has said so far, without colours; all of it without a number.

        The whole log travels whatever `lines` is: of Ray's two ways to it, the one that would send its end alone
        answers 500 where jobs need a token. Raises UserError when the cluster does not know the job, or no longer has
        its log.
        """
        with self._errors():
            try:
                said = COLOURS.sub("", self._client.get_job_logs(submission_id))
            except RuntimeError as error:
                if "status code 404" in str(error):
                    raise UserError(
                        f"The cluster at {self.address} has no log of {submission_id} any more.",
                        "A log lives as long as the head node's session; what the stage found is in its report.",
                    ) from None
                raise
        # A line ends where it ends for a file: a progress bar's carriage returns are within one.
        return said if lines is None else "\n".join(said.removesuffix("\n").split("\n")[-lines:])

    def wait(self, submission_id: str, timeout_s: float) -> Job | None:
        """The job once it has ended, or as it stands after `timeout_s` seconds."""
        deadline = time.monotonic() + timeout_s
        while True:
            job = self.find(submission_id)
            if job is None or job.state.ended or time.monotonic() >= deadline:
                return job
            time.sleep(POLL_S)

    def wait_until_known(self, submission_id: str, timeout_s: float) -> bool:
        """Whether the cluster knows the job, at the latest after `timeout_s` seconds."""
        deadline = time.monotonic() + timeout_s
        while self.find(submission_id) is None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)
        return True

    @property
    def is_here(self) -> bool:
        """Whether every node of the cluster is this machine: then paths of this machine hold there too.

        The address does not tell: `ray dashboard cluster.yaml` brings a cloud's head to 127.0.0.1.
        """
        if not hasattr(self, "_is_here"):
            self._is_here = self._node_addresses() <= _own_addresses()
        return self._is_here

    def _node_addresses(self) -> set[str]:
        deadline = time.monotonic() + 30
        while True:
            with self._errors():
                answer = self._client._do_request("GET", "/api/v0/nodes?detail=False&limit=10000")
                answer.raise_for_status()
                nodes = answer.json()["data"]["result"]["result"]
            alive = {node["node_ip"] for node in nodes if node["state"] == "ALIVE"}
            # A head that has just started knows no node yet, not even itself.
            if alive or time.monotonic() > deadline:
                return alive or {"unknown"}
            time.sleep(POLL_S)

    @contextmanager
    def _errors(self) -> "Iterator[None]":
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            missing = "required" in str(error).splitlines()[0]
            raise UserError(
                f"The cluster at {self.address} {'asks for a token' if missing else 'refuses this token'}.",
                "Put that cluster's token (there: `ray get-auth-token`) into a file of mode 0600, "
                "and name it in RAY_AUTH_TOKEN_PATH.",
            ) from error
        except (ConnectionError, requests.exceptions.RequestException) as error:
            raise away(self.address) from error


def away(address: str) -> UserError:
    """What a person is told when no cluster answers."""
    return UserError(
        f"No Ray cluster answers at {address}.",
        "Start one (`RAY_AUTH_MODE=token ray start --head`, or `ray up cluster.yaml` "
        "and `ray dashboard cluster.yaml`), or set RAY_ADDRESS to where it is.",
    )


def check_reachable(address: str, timeout_s: float = 3) -> None:
    """Raise UserError when nothing listens at `address`: Ray itself would go on trying for a long time."""
    if address in ("auto", "local"):
        return
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        port = parts.port or {"https": 443, "ray": 10001}.get(parts.scheme, 8265)
        with socket.create_connection((parts.hostname or "127.0.0.1", port), timeout=timeout_s):
            pass
    except (OSError, ValueError) as error:
        raise away(address) from error


def _own_addresses() -> set[str]:
    import psutil

    return {address.address for addresses in psutil.net_if_addrs().values() for address in addresses}


def _job(details: Any) -> Job:
    return Job(
        submission_id=details.submission_id,
        state=JobState(str(details.status.value).lower()),
        exit_code=details.driver_exit_code,
        message=details.message or "",
        started_at=_time(details.start_time),
        ended_at=_time(details.end_time),
    )


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
