"""Workers that learn chunks of trials in turn: an actor on each, with the base in its memory."""

import gc
import os
import socket
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from cluster.errors import UserError
from pipelines.training.job import Job

SHARE_HELD = 0.4
"""Of the memory that is free beside the first trial, what further ones may hold that wait their turn. Those beyond it
go on from their checkpoint when they are due."""
BYTES_PER_WEIGHT = 18
"""Of a trained weight: itself, its gradient in two precisions, its 32-bit master and Adam's two moments."""


@dataclass(frozen=True)
class Chunk:
    """Steps to go in one piece."""

    job: Job
    until: int
    """The step after which another trial may have its turn."""
    known: int
    """The step up to which the driver knows the trial's losses."""
    weights: str = ""
    """Checkpoints whose weights a trial without any of its own begins with."""
    begins: int = 0
    """The step of theirs that it begins at."""


def shares_base(train: dict[str, Any]) -> bool:
    """Whether trials of this train section can learn around the same tensors.

    Not where all weights are learnt, nor where DeepSpeed takes the frozen ones apart too.
    """
    deepspeed = train["deepspeed"]
    return train["method"] != "full" and deepspeed["stage"] < 3 and not deepspeed.get("nvme_path")


class TrialWorker:
    """One worker of a group; all of a group are told the same, in the same order."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox
        self._held: dict[str, tuple[Any, ExitStack]] = {}
        self._room: float | None = None
        """Trained weights that may be held beside the first trial's."""
        self._first = 0

    def meeting_place(self) -> str:
        """Where the workers of its group find each other."""
        with socket.socket() as free:
            free.bind(("", 0))
            return f"tcp://{_address()}:{free.getsockname()[1]}"

    def join(self, rank: int, world: int, meeting_place: str, device: str, beside: int) -> str:
        """Become a worker of the group; where it runs. `beside`: workers on the same machine, of all groups."""
        import torch.distributed as dist

        from pipelines.search.resident_base import ResidentBase
        from pipelines.training.engine import prepare_process

        os.environ["LOCAL_WORLD_SIZE"] = str(beside)
        # Ray shows a worker its own GPU alone.
        os.environ["LOCAL_RANK"] = "0"
        prepare_process(device, seed=0)
        if world == 1:
            meeting_place = f"file://{tempfile.mkdtemp()}/store"
        dist.init_process_group(
            "nccl" if device == "cuda" else "gloo", init_method=meeting_place, rank=rank, world_size=world
        )
        self._rank, self._world, self._base = rank, world, ResidentBase()
        return f"{_address()}, process {os.getpid()}"

    def learn(self, chunk: Chunk) -> dict[str, Any]:
        """Go on with a trial, from memory or its checkpoint.

        {"status": "ok" | "stopped" | "failed" | "crashed", "step", "rungs": what was validated beyond `known`,
        "losses": of each validation example at the last of them, "step_seconds": of an optimiser step, "began": Unix
        time, "seconds": of the chunk, "cause"}.
        """
        began, started = time.time(), time.monotonic()
        label = chunk.job.label
        result: dict[str, Any] = {"status": "ok", "step": chunk.known, "rungs": [], "cause": ""}
        try:
            loop = self._loop(chunk)
            outcome = loop.advance(chunk.until)
            state = loop.state
            result |= {"status": "stopped" if outcome else "ok", "step": state.step}
            result["rungs"] = [entry for entry in state.history if entry["step"] > chunk.known or not chunk.known]
            result["losses"] = state.losses.get("last", [])
            result["step_seconds"] = state.seconds / max(1, state.step - loop.begun)
        except UserError as error:
            # Divergence, or a base that is not there: it would end so again.
            result |= {"status": "failed", "cause": error.message}
            self.forget(label)
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            result |= {"status": "crashed", "cause": f"{type(error).__name__}: {lines[-1]}"[:500]}
            self.forget(label)
        return result | {"began": began, "seconds": time.monotonic() - started}

    def forget(self, label: str) -> None:
        """Let a trial's state go, once what is on its way to storage has arrived there."""
        loop, closing = self._held.pop(label, (None, None))
        if loop is None:
            return
        loop.close()
        assert closing is not None
        closing.close()
        del loop
        gc.collect()

    def holds(self) -> list[str]:
        """The trials whose state is in memory, the one that was due longest ago first."""
        return list(self._held)

    def _loop(self, chunk: Chunk) -> Any:
        from pipelines.models.load import load_model
        from pipelines.training.probe import free_bytes
        from pipelines.training.together import highest
        from pipelines.training.worker import Loop

        label = chunk.job.label
        if label in self._held:
            # The one that had its turn last stands last.
            self._held[label] = self._held.pop(label)
            return self._held[label][0]
        self._make_room()
        closing = ExitStack()
        load = self._base.load if shares_base(chunk.job.train) else load_model
        try:
            loop = Loop(chunk.job, self._rank, self._world, closing, self._mailbox, None, load=load)
            loop.begin(chunk.weights, chunk.begins)
        except BaseException:
            closing.close()
            raise
        self._held[label] = loop, closing
        if self._room is None:
            # Only now: the base is there, and what the first trial takes.
            self._room = -highest(-free_bytes(loop.device), loop.device) * SHARE_HELD / BYTES_PER_WEIGHT
            self._first = loop.weights_here
        return loop

    def _make_room(self) -> None:
        """Let go of trials that were due longest ago until one more, as large as the largest, may be held."""
        while self._held and self._room is not None:
            held = [loop.weights_here for loop, _ in self._held.values()]
            if sum(held) + max(held) - self._first <= self._room:
                break
            self.forget(next(iter(self._held)))


def _address() -> str:
    import ray

    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


class WorkerGroup:
    """The driver's side of one group: asked for, placed, at work, gone."""

    def __init__(self, resources: dict[str, float], world: int, device: str, beside: int, mailbox: Any) -> None:
        """Ask Ray for `world` workers of these resources, all or none; an autoscaler starts machines for them."""
        from ray.util import placement_group

        self._resources, self._world, self._device, self._beside = resources, world, device, beside
        self._mailbox = mailbox
        self._reserved = placement_group([resources] * world, strategy="PACK")
        self._workers: list[Any] = []
        self._joining: list[Any] = []
        self.place = ""
        """Machine and process of its first worker, once it has joined."""
        self.trial = ""
        """What it is learning."""
        self._results: list[Any] = []
        self.held: list[str] = []
        """Trials whose state is in its workers' memory."""

    def ready(self) -> bool:
        """Whether it can learn; starts its workers once there is room. Never waits. Raises Ray's own errors."""
        import ray

        if self.place:
            return True
        if not self._joining:
            if not self._reserved.wait(0):
                return False
            self._start()
        done, _ = ray.wait(self._joining, num_returns=self._world, timeout=0)
        if len(done) == self._world:
            self.place = ray.get(self._joining)[0]
        return bool(self.place)

    def _start(self) -> None:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        options: dict[str, Any] = {"num_cpus": self._resources["CPU"], "num_gpus": self._resources.get("GPU", 0)}
        custom = {name: count for name, count in self._resources.items() if name not in ("CPU", "GPU")}
        self._workers = [
            ray.remote(**options, resources=custom)(TrialWorker)
            .options(
                scheduling_strategy=PlacementGroupSchedulingStrategy(self._reserved, placement_group_bundle_index=rank)
            )
            .remote(self._mailbox)
            for rank in range(self._world)
        ]
        # The port is free when it is asked for: workers join within a moment of it.
        meeting_place = ray.get(self._workers[0].meeting_place.remote()) if self._world > 1 else ""
        self._joining = [
            worker.join.remote(rank, self._world, meeting_place, self._device, self._beside)
            for rank, worker in enumerate(self._workers)
        ]

    def learn(self, chunk: Chunk) -> None:
        """Begin a chunk."""
        self.trial = chunk.job.label
        self._results = [worker.learn.remote(chunk) for worker in self._workers]

    @property
    def pending(self) -> list[Any]:
        """What the group is at work on, as Ray's references."""
        return self._results

    def result(self) -> dict[str, Any] | None:
        """How its chunk went; None while it is at work. Raises RayError when a worker died."""
        import ray

        done, _ = ray.wait(self._results, num_returns=len(self._results), timeout=0)
        failed = [each for each in ray.get(done) if each["status"] in ("failed", "crashed")]
        # Others wait for the one that failed for ever.
        if len(done) < len(self._results) and not failed:
            return None
        result: dict[str, Any] = failed[0] if failed else ray.get(self._results[0])
        if len(done) == len(self._results):
            self.held = ray.get(self._workers[0].holds.remote())
        self._results, self.trial = [], ""
        return result

    def drop(self, trial: str) -> None:
        """Let a trial's state go, after the chunk at hand; never waits."""
        for worker in self._workers:
            worker.forget.remote(trial)
        self.held = [name for name in self.held if name != trial]

    def close(self) -> None:
        """End the workers and give back what they reserved."""
        import ray
        from ray.util import remove_placement_group

        for worker in self._workers:
            ray.kill(worker)
        remove_placement_group(self._reserved)
