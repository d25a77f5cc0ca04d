"""The watcher: looks at the experiment of a recipe again and again, and does what follows.

It holds nothing: all that it knows is in the database, so one that was killed goes on where it was, and two at once do
no harm. It runs as an actor of its own in the service's Ray, which survives the service, or as
`sluice experiment watch`.
"""

import logging
import threading
from dataclasses import dataclass
from typing import Any

from cluster.errors import UserError
from cluster.settings import Settings
from pipelines.records import ExperimentRow
from pipelines.workspace import Workspace

logger = logging.getLogger("sluice.serve")

BY = "sluice watcher"
EVERY_S = 5.0
"""Seconds between two looks: a gateway follows within two more, so that harm lasts no longer than ten."""


@dataclass(frozen=True)
class Seen:
    """What a round of the watcher saw and did."""

    row: ExperimentRow
    evidence: dict[str, Any]
    did: str
    """A sentence; empty when nothing was to be done."""


def watch_once(workspace: Workspace, recipe_name: str) -> Seen | None:
    """Look at the experiment that runs, if one does, and do what follows."""
    from pipelines.tracking import deployments
    from serve.experimentation import lifecycle
    from serve.experimentation.look import evidence_of, is_news, look, next_step

    row = lifecycle.live(workspace, recipe_name)
    if row is None:
        return None
    seen, section = look(workspace, row), lifecycle.section_of(row)
    evidence, outcome = evidence_of(seen), seen.verdict.outcome
    news = is_news(seen, lifecycle.last_look(workspace, row.id))
    lifecycle.looked(workspace, row, BY, evidence if news else None)
    deployment = deployments.current(workspace, recipe_name)
    if deployment is None or deployment.id != row.deployment_id:
        because = f"deployment {row.deployment_id}, which it tried, is no longer in production"
        first = _end(workspace, row, "superseded", because, evidence, None)
        return Seen(row, evidence, f"experiment {row.id} ended: {because}" if first else "")
    step = next_step(section, row, seen)
    did = ""
    if step.action == "cover":
        assert step.coverage is not None
        if lifecycle.cover(workspace, row, step.coverage, BY, "the coverage before it harmed nobody"):
            did = f"experiment {row.id} covers {step.coverage:.0%} of the units from now on"
    elif step.action == "end":
        sentence = seen.verdict.sentence
        if _end(workspace, row, outcome, sentence, evidence, step.champion):
            did = f"experiment {row.id} ended, {step.champion} serves everyone: {sentence}"
    return Seen(row, evidence, did)


def _end(
    workspace: Workspace, row: ExperimentRow, outcome: str, because: str, evidence: dict[str, Any], champion: str | None
) -> bool:
    """Whether it was we who ended it, and no other watcher or person a moment before."""
    from serve.experimentation import lifecycle

    try:
        lifecycle.end(workspace, row, outcome, by=BY, because=because, evidence=evidence, champion=champion)
    except UserError:
        return False
    return True


class Watcher:
    """Looks on until it is closed; the class of the actor."""

    def __init__(self, settings: Settings, recipe_name: str, every_s: float = EVERY_S) -> None:
        self._workspace, self._recipe_name, self._every_s = Workspace(settings), recipe_name, every_s
        self._closing = threading.Event()
        self._followed: int | None = None
        """The deployment that the registry's alias has followed."""
        self._alias: threading.Thread | None = None
        self.rounds = 0
        """Looks so far, with or without an experiment; for tests and for `ping`."""
        self._thread = threading.Thread(target=self._work, name="watcher", daemon=True)
        self._thread.start()

    def ping(self) -> int:
        """The number of rounds so far: that it answers says that it lives."""
        return self.rounds

    def is_idle(self) -> bool:
        """Whether there is no experiment to watch."""
        from serve.experimentation import lifecycle

        return lifecycle.live(self._workspace, self._recipe_name) is None

    def close(self) -> None:
        """Stop looking."""
        self._closing.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._closing.wait(self._every_s if self.rounds else 0):
            self.rounds += 1
            try:
                self._round()
            except Exception as error:
                # The database or the registry is away: the next round comes.
                logger.warning("the watcher of %s could not look: %s", self._recipe_name, type(error).__name__)

    def _round(self) -> None:
        from pipelines.tracking import deployments

        seen = watch_once(self._workspace, self._recipe_name)
        if seen is not None and seen.did:
            logger.warning("%s: %s", self._recipe_name, seen.did)
        row = deployments.current(self._workspace, self._recipe_name)
        if row is not None and row.id != self._followed and (self._alias is None or not self._alias.is_alive()):
            # In a thread of its own: a registry that does not answer must not keep harm going.
            self._alias = threading.Thread(target=self._follow, args=(row.id,), name="alias", daemon=True)
            self._alias.start()

    def _follow(self, deployment: int) -> None:
        from pipelines.tracking import deployments

        try:
            deployments.follow_alias(self._workspace, self._recipe_name)
        except Exception as error:
            logger.warning("the alias of %s could not follow: %s", self._recipe_name, type(error).__name__)
            return
        self._followed = deployment


def _name_of(recipe_name: str, settings: Settings) -> dict[str, str]:
    """The watcher's name in its Ray: another one for each workspace."""
    from pipelines.fingerprint import fingerprint

    of = fingerprint(settings.database_url, settings.tracking_uri, settings.storage)[:12]
    return {"name": f"watcher-{recipe_name}-{of}", "namespace": "sluice"}


def start_watcher(recipe_name: str, settings: Settings) -> dict[str, str]:
    """Let an actor watch the experiments, and how it is found in Ray.

    It is none of Serve's, so that it goes on whatever becomes of the service.
    """
    import ray

    found = _name_of(recipe_name, settings)
    actor: Any = ray.remote(Watcher).options(
        **found, lifetime="detached", get_if_exists=True, num_cpus=0, max_restarts=-1
    )
    actor.remote(settings, recipe_name)
    return found


def end_watcher(watcher: dict[str, str]) -> None:
    """End the watcher unless an experiment runs: that one is watched until Ray ends."""
    import ray
    from ray.exceptions import RayError

    try:
        actor: Any = ray.get_actor(**watcher)
        idle: Any = ray.get(actor.is_idle.remote(), timeout=5)
        if idle:
            ray.kill(actor)
    except (ValueError, RayError):
        # It is gone, or does not answer: nothing depends on it.
        return
