"""A replica follows the deployment log: the version in production is hosted without a restart, and no answer ends."""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.errors import GateClosed
from cluster.settings import Settings
from pipelines.models.candidate import Candidate
from pipelines.workspace import Workspace
from serve.traffic import FOLLOW_S

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


def promoted(recipe_name: str, workspace: Workspace) -> "tuple[DeploymentRow, dict[str, Candidate]]":
    """The deployment in force and its candidates. Raises GateClosed or UserError when there is nothing to serve."""
    from pipelines.models.candidate import candidates_of
    from pipelines.tracking import deployments
    from pipelines.tracking.lineage import model_problem

    row = deployments.current(workspace, recipe_name)
    if row is None:
        raise GateClosed(
            f"{recipe_name}: nothing is promoted, so there is nothing to serve.",
            "Run `sluice promote RECIPE` first.",
        )
    produced = row.content["train"]
    if problem := model_problem(workspace, produced):
        raise GateClosed(
            f"{recipe_name}: version {row.model_version} cannot be served: {problem}.",
            "Run `sluice train RECIPE --fresh` and promote again, or `sluice rollback RECIPE`.",
        )
    return row, {str(arm): one for arm, one in candidates_of(produced, recipe_name, workspace).items()}


class Follower:
    """Keeps a replica's places at the version that the log says."""

    def __init__(self, follow: Follow, places: "Places") -> None:
        self._follow, self._places = follow, places
        self._workspace = Workspace(follow.settings)
        self._failed: tuple[int, float] | None = None
        self._closing = threading.Event()
        self.trouble = ""
        """Why the version in production is not hosted; empty when it is."""

    def begin(self, arms: Mapping[str, Candidate]) -> None:
        """Host what is in production by now, else `arms`, with which the service was started; then follow.

        Raises what the loading of `arms` raises.
        """
        # A replica that is started again may find a newer version than the service was started with.
        newest = self._newest()
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
        elif self._failed is None or self._failed[0] != newest.id or time.monotonic() >= self._failed[1]:
            self._host(newest)

    def _newest(self) -> "DeploymentRow | None":
        from pipelines.tracking import deployments

        try:
            return deployments.current(self._workspace, self._follow.recipe_name)
        except Exception as error:
            # What is hosted goes on.
            logger.warning("what is in production could not be read: %s", type(error).__name__)
            return None

    def _host(self, newest: "DeploymentRow") -> None:
        try:
            # Read once more: it is hosted under the version that its files belong to.
            row, arms = promoted(self._follow.recipe_name, self._workspace)
            self._places.worker.submit(self._places.switch, arms, row.model_version).result()
        except Exception as error:
            self.trouble = f"version {newest.model_version} cannot be hosted: {error}"
            self._failed = newest.id, time.monotonic() + AGAIN_S
            logger.exception("%s: %s", self._follow.recipe_name, self.trouble)
        else:
            self.trouble = ""
            logger.warning("%s: version %s is hosted", self._follow.recipe_name, row.model_version)

    def _work(self) -> None:
        while not self._closing.wait(FOLLOW_S):
            self.look()
