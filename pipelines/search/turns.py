"""Turns of trials on groups of workers: who learns next, where, and what became of it."""

from collections.abc import Iterable, Iterator
from typing import Any

from cluster.errors import StageFailed
from pipelines.search.history import Trial
from pipelines.search.trials import Trials, trial_job
from pipelines.search.worker_group import Chunk, WorkerGroup
from pipelines.training.checkpoints import CheckpointStore


class Turns:
    """The groups of a sweep."""

    def __init__(self, shared: Trials, rungs: tuple[int, ...], groups: int, mailbox: Any) -> None:
        """Ask for so many groups; their machines may come later."""
        self._shared, self._rungs, self._mailbox = shared, rungs, mailbox
        self._at: dict[str, int] = {}
        """Steps a trial has gone, where that is beyond its last rung."""
        self._groups = [self._new_group() for _ in range(groups)]

    @property
    def busy(self) -> set[str]:
        """Trials that are learning now."""
        return {group.trial for group in self._groups if group.trial}

    @property
    def pending(self) -> list[Any]:
        """What the groups are at work on, as Ray's references."""
        return [each for group in self._groups for each in group.pending]

    def position(self, trial: Trial) -> int:
        """Steps the trial has gone; a clone begins where its parent was."""
        return max(trial.step, self._at.get(trial.trial, 0), trial.begins)

    def ready(self) -> list[WorkerGroup]:
        """Groups that can learn, or do. Raises StageFailed when one cannot start."""
        from ray.exceptions import RayError

        try:
            return [group for group in self._groups if group.ready()]
        except RayError as error:
            raise StageFailed(f"A sweep's worker did not start: {_last_line(error)}") from error

    def give(self, group: WorkerGroup, trials: Iterable[Trial]) -> None:
        """A turn to the first of the trials that the group can go on with, unless it is at work."""
        if group.pending:
            return
        for trial in trials:
            at = self.position(trial)
            holder = next((each for each in self._groups if trial.trial in each.held), None)
            if holder not in (None, group):
                if not self._store(trial.trial).is_complete(at):
                    # What it has learnt last is in another group's memory alone.
                    continue
                holder.drop(trial.trial)
            rung = next(step for step in self._rungs if step > at)
            parent = self._store(trial.parent).address if trial.origin == "clone" else ""
            until = min(rung, at + self._shared.sweep.grace_steps)
            group.learn(Chunk(trial_job(self._shared, trial), until, trial.step, parent, trial.begins))
            return

    def ended(self) -> Iterator[tuple[str, dict[str, Any], str]]:
        """(trial, how its chunk went as `TrialWorker.learn` tells it, place) of each chunk that is over; never waits.

        A group that lost a worker is replaced by a new one.
        """
        from ray.exceptions import RayError

        for number, group in enumerate(self._groups):
            if not group.pending:
                continue
            name, world = group.trial, self._shared.place.num_workers
            try:
                result = group.result()
            except RayError as error:
                result = {"status": "crashed", "cause": f"its worker died: {_last_line(error)}", "died": True}
            if result is None:
                continue
            crashed = result["status"] == "crashed"
            # What broke on a GPU may have left it unusable to the whole process.
            broken = crashed and self._shared.place.use_gpu
            if result.get("died") or broken or (world > 1 and (crashed or result["status"] == "failed")):
                # What waited in its memory goes on from its checkpoints; the others of a group wait for ever.
                for held in (*group.held, name):
                    self._at.pop(held, None)
                group.close()
                self._groups[number] = self._new_group()
            elif crashed:
                self._at.pop(name, None)
            else:
                self._at[name] = result["step"]
            yield name, result, group.place

    def drop(self, trial: str) -> None:
        """Let the state of a trial go that has ended."""
        self._at.pop(trial, None)
        for group in self._groups:
            if trial in group.held:
                group.drop(trial)

    def close(self) -> None:
        """End all workers."""
        for group in self._groups:
            group.close()

    def _new_group(self) -> WorkerGroup:
        place = self._shared.place
        accelerator = {f"accelerator_type:{place.accelerator_type}": 0.001} if place.accelerator_type else {}
        # Of a machine's cores each has its share.
        machines = 1 if place.use_gpu else machines_there()
        beside = -(-place.num_workers * (1 if place.use_gpu else self._shared.concurrent) // machines)
        return WorkerGroup(place.resources | accelerator, place.num_workers, place.device, beside, self._mailbox)

    def _store(self, name: str) -> CheckpointStore:
        return CheckpointStore(f"{self._shared.checkpoints}/{name}")


def machines_there() -> int:
    """Machines of the cluster as it is."""
    import ray

    return max(1, sum(machine["Alive"] for machine in ray.nodes()))  # type: ignore[no-untyped-call]


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else type(error).__name__
