"""kill -9 at random points of a save: what counts afterwards is whole."""

import multiprocessing
import random
import time
from pathlib import Path

import pytest

from pipelines.training.checkpoints import CheckpointStore
from tests.waiting import until

pytestmark = pytest.mark.drill

KILLS = 30
WORKERS = 2
ELEMENTS = 100_000


def weights(step, rank):
    import torch

    return torch.arange(ELEMENTS, dtype=torch.float32) + 1000 * step + rank


def save_for_ever(address, complete):
    """Two workers' checkpoints, one after the other, beginning where the run was; `complete` holds the newest told."""
    from pipelines.training.fragments import Fragment, write_fragments
    from pipelines.training.uploads import Uploads

    def tell(kind, step, **_):
        assert kind == "checkpoint"
        complete.value = step

    store = CheckpointStore(address)
    step = max(store.complete(), default=0)
    store.discard_unfinished()
    attempt = str(time.time())
    workers = [Uploads(store, rank, WORKERS, attempt, tell) for rank in range(WORKERS)]
    while True:
        step += 1
        for rank, worker in enumerate(workers):
            part = [Fragment("weight", "a", rank * ELEMENTS, weights(step, rank))]
            worker.write(
                step,
                step - step % 5,
                lambda folder, part=part, rank=rank: write_fragments(folder / f"state-{rank}.safetensors", part),
            )


def test_after_any_of_thirty_kills_the_newest_complete_checkpoint_is_right(tmp_path):
    import torch

    from pipelines.training.fragments import FragmentFiles

    context = multiprocessing.get_context("forkserver")
    # Imported once: each process starts in a moment.
    context.set_forkserver_preload([__name__, "torch", "safetensors.torch", "pyarrow.fs", "pipelines.training.uploads"])
    # Without a lock: a process that is killed while it holds one would leave it locked for ever.
    complete = context.Value("q", 0, lock=False)
    store, draw = CheckpointStore(str(tmp_path / "run")), random.Random(11)
    half_done = 0
    for _ in range(KILLS):
        process = context.Process(target=save_for_ever, args=(store.address, complete))
        before = complete.value
        process.start()

        def saved(process=process, before=before):
            assert process.is_alive()
            return complete.value != before

        until(saved, "a whole checkpoint", pause_s=0.002)
        time.sleep(draw.uniform(0, 0.1))
        process.kill()
        process.join()

        told = complete.value
        folders = {path.name for path in Path(store.address).glob("step-*")}
        half_done += len(folders) > len(store.complete())
        newest = max(store.complete())
        assert newest >= told
        assert store.verify(newest, store.fetch(newest, Path())) is None
        files = FragmentFiles(store.fetch(newest, Path()).glob("state-*.safetensors"))
        found = torch.zeros(WORKERS * ELEMENTS)
        assert files.read("weight", "a", 0, found)
        assert torch.equal(found, torch.cat([weights(newest, rank) for rank in range(WORKERS)]))
    # Some of the kills fell into a save, or nothing was shown.
    assert half_done >= 3
