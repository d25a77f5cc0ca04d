"""A replica follows the deployment log: the version in production is hosted without a restart, and no answer ends."""

import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.errors import GateClosed
from cluster.settings import Settings
from pipelines.models.candidate import Candidate
from pipelines.workspace import Workspace
from serve.traffic import FIRST_S, FOLLOW_S

if TYPE_CHECKING:
    from pipelines.records import DeploymentRow
    from serve.places import Places

logger = logging.getLogger("sluice.serve")

AGAIN_S = 30.0
"""Seconds after which a version that could not be hosted is tried again."""


@dataclass(frozen=True)
class Follow:
    """Whose log is followed, and what was in production when the service was started; travels to the replica."""

    recipe_name: str
    settings: Settings
    version: str
    arms: tuple[str, ...] = ()
    """Those that this replica hosts; none named: all."""


def promoted(recipe_name: str, workspace: Workspace) -> "tuple[DeploymentRow, dict[str, Candidate]]":
    """The deployment in force and its candidates. Raises GateClosed or UserError when there is nothing to serve."""
    from pipelines.tracking import deployments

    row = deployments.current(workspace, recipe_name)
    if row is None:
        raise GateClosed(
            f"{recipe_name}: nothing is promoted, so there is nothing to serve.",
            "Run `sluice promote RECIPE` first.",
        )
    return row, arms_of(row, workspace)


def arms_of(row: "DeploymentRow", workspace: Workspace, only: tuple[str, ...] = ()) -> dict[str, Candidate]:
    """The candidates of a deployment, or of `only` these arms.

    Raises GateClosed or UserError when files are gone or others.

    Of the base alone nothing that was trained is looked at: not for gigabytes that it would not host.
    """
    from pipelines.models.candidate import base_of, candidates_of
    from pipelines.tracking.lineage import model_problem

    produced = row.content["train"]
    if only == ("base",):
        return {"base": base_of(produced, row.recipe_name)}
    if problem := model_problem(workspace, produced):
        raise GateClosed(
            f"{row.recipe_name}: version {row.model_version} cannot be served: {problem}.",
            "Run `sluice train RECIPE --fresh` and promote again, or `sluice rollback RECIPE`.",
        )
    found = candidates_of(produced, row.recipe_name, workspace)
    return {str(arm): one for arm, one in found.items() if not only or arm in only}


class Follower:
    """Keeps a replica's places at the version that the log says."""

    def __init__(self, follow: Follow, places: "Places") -> None:
        self._follow, self._places = follow, places
        self._workspace = Workspace(follow.settings)
        self._failed, self._again = 0, 0.0
        self._closing = threading.Event()
        self.loading = ""
        """The version that is being loaded beside the one that answers."""
        self.trouble = ""
        """Why the version in production is not hosted; empty when it is."""

    def begin(self, arms: Mapping[str, Candidate]) -> None:
        """Host what is in production by now, else `arms`, with which the service was started; then follow.

        Where the log cannot be read, a replica that takes another's place therefore begins with the version of the
        service's start, though that one hosted a later one. Raises what the loading of `arms` raises.
        """
        newest = self._first()
        if newest is not None and newest.model_version != self._follow.version:
            self._host(newest)
        if not self._places.version:
            self._places.switch(arms, self._follow.version)
        threading.Thread(target=self._work, name="following", daemon=True).start()

    def close(self) -> None:
        """Follow no more."""
        self._closing.set()

    def look(self) -> None:
        """Host the version in production, if it is another; what cannot be hosted leaves everything as it is."""
        newest = self._newest()
        if newest is None:
            return
        if newest.model_version == self._places.version:
            self.trouble = ""
        elif newest.id != self._failed or time.monotonic() >= self._again:
            self._host(newest)

    def _first(self) -> "DeploymentRow | None":
        """The newest row; None also where the database does not answer in time: there is something to host without."""
        found: Future[DeploymentRow | None] = Future()
        threading.Thread(target=lambda: found.set_result(self._newest()), daemon=True).start()
        try:
            return found.result(FIRST_S)
        except TimeoutError:
            logger.warning("what is in production could not be read within %s s", FIRST_S)
            return None

    def _newest(self) -> "DeploymentRow | None":
        from pipelines.tracking import deployments

        try:
            return deployments.current(self._workspace, self._follow.recipe_name)
        except Exception as error:
            # What is hosted goes on.
            logger.warning("what is in production could not be read: %s", type(error).__name__)
            return None

    def _host(self, row: "DeploymentRow") -> None:
        def is_wanted() -> bool:
            newest = self._newest()
            return newest is None or newest.model_version == row.model_version

        self.loading, self.trouble = row.model_version, ""
        try:
            arms = arms_of(row, self._workspace, self._follow.arms)
            # A large model takes minutes, and may have been rolled back meanwhile.
            self._places.worker.submit(self._places.switch, arms, row.model_version, is_wanted).result()
        except Exception as error:
            self.trouble = f"version {row.model_version} cannot be hosted: {error}"
            # With its traceback the first time alone.
            logger.error("%s: %s", row.recipe_name, self.trouble, exc_info=row.id != self._failed)
            self._failed, self._again = row.id, time.monotonic() + AGAIN_S
        finally:
            self.loading = ""

    def _work(self) -> None:
        while not self._closing.wait(FOLLOW_S):
            self.look()
