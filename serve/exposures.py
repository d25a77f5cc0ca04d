"""Who met which arm first. What is stored counts: no change of weights moves an exposed unit."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping

from pipelines.workspace import Workspace
from serve.assignment import choose_arm

REMEMBERED = 100_000


def unit_of(user: str) -> str:
    """The unit's name: a hash, so that no table holds who it was."""
    return hashlib.sha256(user.encode("utf-8", errors="surrogatepass")).hexdigest()[:32]


class Exposures:
    """The arm of each unit of a recipe; called from threads."""

    def __init__(self, workspace: Workspace, recipe_name: str, seed: str, weights: Mapping[str, float]) -> None:
        self._workspace, self._recipe_name = workspace, recipe_name
        self._seed, self._weights = seed, dict(weights)
        self._known: OrderedDict[str, str] = OrderedDict()

    def arm_of(self, unit: str) -> str:
        """The unit's arm: the stored one, else the assigned one, which is stored before it is used."""
        arm = self._known.get(unit) or self._stored(unit) or self._expose(unit)
        self._known[unit] = arm
        self._known.move_to_end(unit)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return arm

    def assigned(self, unit: str) -> str:
        """What the weights say, stored or not."""
        return choose_arm(self._seed, unit, self._weights)

    def _stored(self, unit: str) -> str | None:
        from sqlalchemy import select

        from pipelines.records import ExposureRow

        with self._workspace.session() as session:
            return session.scalar(
                select(ExposureRow.arm).where(ExposureRow.recipe_name == self._recipe_name, ExposureRow.unit == unit)
            )

    def _expose(self, unit: str) -> str:
        from sqlalchemy.exc import IntegrityError

        from pipelines.records import ExposureRow

        arm = self.assigned(unit)
        try:
            with self._workspace.session() as session:
                session.add(ExposureRow(recipe_name=self._recipe_name, unit=unit, arm=arm))
        except IntegrityError:
            # Another gateway exposed the unit a moment ago: its row counts.
            return self._stored(unit) or arm
        return arm
