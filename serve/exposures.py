"""Who met which arm first. What is stored counts: no change of weights or coverage moves an exposed unit."""

import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.workspace import Workspace
from serve.assignment import choose_arm, choose_covered_arm, place
from serve.traffic import Running, Traffic

if TYPE_CHECKING:
    from sqlalchemy import Select

REMEMBERED = 100_000
HELD_OUT = "base"
"""What the units of the holdout meet."""


def unit_of(user: str) -> str:
    """The unit's name: a hash, so that no table holds who it was."""
    return hashlib.sha256(user.encode("utf-8", errors="surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True)
class Met:
    """The arm that a unit meets."""

    arm: str
    experiment: int | None = None
    """The experiment that chose it."""


class Exposures:
    """The arm of each unit of a recipe; called from threads."""

    def __init__(
        self,
        workspace: Workspace,
        recipe_name: str,
        seed: str,
        weights: Mapping[str, float],
        holdout: float = 0.0,
    ) -> None:
        self._workspace, self._recipe_name = workspace, recipe_name
        self._seed, self._weights, self._holdout = seed, dict(weights), holdout
        self._known: OrderedDict[tuple[int | None, str], str] = OrderedDict()

    def arm_of(self, unit: str, traffic: Traffic) -> Met:
        """What the unit meets: what it has met, else the assigned arm, which is stored before it is used."""
        if met := self.remembered(unit, traffic):
            return met
        running = traffic.experiment
        if running is None:
            return Met(self._sticky(unit, None, choose_arm(self._seed, unit, self._weights)))
        if self._is_held_out(unit):
            # A holdout that grew while an experiment runs moves nobody who is in it.
            return self._met_already(unit, running) or Met(HELD_OUT)
        arm = choose_covered_arm(running.seed, unit, running.weights, running.coverage)
        if running.paused or arm is None:
            # Nobody new comes in; who is in stays.
            return self._met_already(unit, running) or Met(running.control)
        return Met(self._sticky(unit, running.id, arm), running.id)

    def remembered(self, unit: str, traffic: Traffic) -> Met | None:
        """The same where it needs no database; None: it does."""
        running = traffic.experiment
        key = (None if running is None else running.id, unit)
        arm = self._known.get(key)
        if running is None:
            if self._is_held_out(unit):
                return Met(HELD_OUT)
            if traffic.weights is not None:
                # An experiment has decided: what a unit met before is over.
                return Met(choose_arm(self._seed, unit, traffic.weights))
        if arm is not None:
            self._remember(key, arm)
            # Known, it is in whatever the coverage: another gateway's reading may be a moment ahead of this one's.
            return Met(arm, None if running is None else running.id)
        if running is None or self._is_held_out(unit):
            return None
        covered = choose_covered_arm(running.seed, unit, running.weights, running.coverage)
        return Met(running.control) if covered is None else None

    def assigned(self, unit: str, traffic: Traffic) -> str:
        """What a unit meets that nobody will know again, so that nothing is stored and no experiment counts it."""
        if traffic.experiment is not None:
            return traffic.experiment.control
        return choose_arm(self._seed, unit, self._weights if traffic.weights is None else traffic.weights)

    def _met_already(self, unit: str, running: Running) -> Met | None:
        arm = self._stored(unit, running.id)
        return Met(arm, running.id) if arm else None

    def _is_held_out(self, unit: str) -> bool:
        # A seed of its own: who is held out must not all be of one arm.
        return self._holdout > 0 and place(f"holdout:{self._seed}", unit) < self._holdout

    def _sticky(self, unit: str, experiment: int | None, assigned: str) -> str:
        """The stored arm, else `assigned`, stored."""
        arm = self._stored(unit, experiment) or self._expose(unit, experiment, assigned)
        self._remember((experiment, unit), arm)
        return arm

    def _remember(self, key: tuple[int | None, str], arm: str) -> None:
        self._known[key] = arm
        with contextlib.suppress(KeyError):
            # Another thread may have just forgotten it.
            self._known.move_to_end(key)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _stored(self, unit: str, experiment: int | None) -> str | None:
        with self._workspace.session() as session:
            return session.scalars(self._query(unit, experiment)).one_or_none()

    def _query(self, unit: str, experiment: int | None) -> "Select[str]":
        from sqlalchemy import select

        from pipelines.records import ExperimentExposureRow, ExposureRow

        if experiment is None:
            return select(ExposureRow.arm).where(ExposureRow.recipe_name == self._recipe_name, ExposureRow.unit == unit)
        met = ExperimentExposureRow
        return select(met.arm).where(met.experiment_id == experiment, met.unit == unit)

    def _expose(self, unit: str, experiment: int | None, arm: str) -> str:
        from sqlalchemy.exc import IntegrityError

        from pipelines.records import ExperimentExposureRow, ExposureRow

        try:
            with self._workspace.session() as session:
                if experiment is None:
                    session.add(ExposureRow(recipe_name=self._recipe_name, unit=unit, arm=arm))
                else:
                    session.add(ExperimentExposureRow(experiment_id=experiment, unit=unit, arm=arm))
        except IntegrityError:
            # Another gateway exposed the unit a moment ago: its row counts.
            return self._stored(unit, experiment) or arm
        return arm
