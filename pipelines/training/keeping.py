"""One worker's part in the checkpoints of a run: going on from one, writing them, waiting until they arrived."""

import json
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from cluster.errors import UserError
from pipelines.training.checkpoints import CheckpointStore
from pipelines.training.engine_state import load_engine, save_engine
from pipelines.training.job import State
from pipelines.training.timeline import Timeline
from pipelines.training.together import gathered, refuse_together, shared
from pipelines.training.uploads import Uploads


class Keeping:
    """The checkpoints below an address; all workers call each of its methods together."""

    def __init__(self, address: str, engine: Any, rank: int, world: int, tell: Callable[..., None]) -> None:
        """`tell(kind, **values)` hands an event to the driver, from whichever worker and thread."""
        self._store, self._engine = CheckpointStore(address), engine
        self._rank, self._world, self._tell = rank, world, tell
        self._uploads: Uploads | None = None
        self._learnt: list[list[int]] = []
        self.timeline = Timeline()
        """The bins of every step up to the last checkpoint."""

    def resume(self) -> State | None:
        """Load the newest checkpoint that is whole, of any number of workers and any ZeRO stage; None without one.

        Damaged ones are told and set aside. The state's best step is 0 when the best weights are lost.
        """
        state = None
        for step in reversed(shared(self._store.complete() if self._rank == 0 else [])):
            state, problem = self._load(step)
            if state is not None:
                if state.stopping.best_step not in (0, step) and not self._is_complete(state.stopping.best_step):
                    state.forget_best()
                break
            if self._rank == 0:
                self._store.set_aside(step)
                self._tell("damaged", step=step, problem=problem)
        if self._rank == 0:
            self._store.discard_unfinished()
        # Shared after it: nobody writes before the leftovers are gone.
        attempt = shared(uuid.uuid4().hex)
        self._uploads = Uploads(self._store, self._rank, self._world, attempt, self._tell)
        return state

    def take_weights(self, address: str, at: int) -> int:
        """Load the weights of another run's checkpoint, without its optimiser's state; its step.

        Of the newest that is no later than `at`, or else of the newest. Raises UserError when none of them is whole.
        """
        other = CheckpointStore(address)
        steps = shared(other.complete() if self._rank == 0 else [])
        for step in sorted(steps, key=lambda step: (step <= at, step), reverse=True):
            state, _ = self._load(step, weights_only=True, store=other)
            if state is not None:
                return state.step
        raise UserError(f"{address} has no whole checkpoint to begin with.", "Add the values as a trial of their own.")

    def learnt(self, bins: list[int]) -> None:
        """What this worker's next step learnt from: part of the next checkpoint."""
        self._learnt.append(bins)

    def write(self, state: State) -> None:
        """Begin a checkpoint; it is hashed and uploaded while training goes on."""
        assert self._uploads is not None
        for parts in zip(*gathered(self._learnt), strict=True):
            self.timeline.add(number for part in parts for number in part)
        self._learnt = []

        def files(folder: Path) -> None:
            save_engine(self._engine, folder, self._rank, self._world)
            if self._rank == 0:
                (folder / "state.json").write_text(json.dumps(state.as_json()), encoding="utf-8")
                self.timeline.write(folder)

        self._uploads.write(state.step, state.stopping.best_step, files)

    def arrive(self, step: int, *, needed: bool) -> None:
        """Wait until every worker has kept the last checkpoint.

        Raises UserError when it could not be kept and is `needed`; the run may go on without it otherwise.
        """
        assert self._uploads is not None
        problem = self._uploads.drain()
        dist.barrier()
        if self._rank == 0:
            self._uploads.settle()
        if needed:
            refuse_together(
                UserError(
                    f"The checkpoint of step {step} could not be kept: {problem}.",
                    "Mend the storage, then run the same command: it goes on from the checkpoint before.",
                )
                if problem
                else None
            )

    def load_weights(self, step: int) -> str | None:
        """Bring back the weights of a step; what is wrong with its checkpoint, or None."""
        return self._load(step, weights_only=True)[1]

    def close(self) -> None:
        """Wait for what this worker has on its way, whatever ends the run; not a matter of the others."""
        if self._uploads:
            self._uploads.wait()

    def _is_complete(self, step: int, store: CheckpointStore | None = None) -> bool:
        return shared((store or self._store).is_complete(step) if self._rank == 0 else False)

    def _load(
        self, step: int, *, weights_only: bool = False, store: CheckpointStore | None = None
    ) -> tuple[State | None, str | None]:
        """(state, None), or (None, what is wrong). Nothing is read before the hashes are compared."""
        store = store or self._store
        if not self._is_complete(step, store):
            return None, "it is not there"
        with tempfile.TemporaryDirectory() as scratch:
            folder = store.fetch(step, Path(scratch))
            # A folder that all of them see is compared together, a copy of one's own alone.
            mine = (self._rank, self._world) if store.local else (0, 1)
            if problem := next(filter(None, gathered(store.verify(step, folder, *mine))), None):
                return None, problem
            load_engine(self._engine, sorted(folder.glob("state-*.safetensors")), moments=not weights_only)
            if not weights_only:
                self.timeline = Timeline.read(folder)
            return State.of(json.loads((folder / "state.json").read_text(encoding="utf-8"))), None
