"""Two processes that train together as two of Ray's workers would, without Ray: `train_on_two(jobs, folder)`."""

import os
import pickle
import subprocess
import sys


def train_on_two(jobs, folder):
    """Rank 0's outcome of each job; the two processes run the jobs one after the other."""
    (folder / "jobs").write_bytes(pickle.dumps(jobs))
    environment = os.environ | {"LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-m", "tests.pipelines.training.two_workers", str(folder)]
    workers = [
        subprocess.Popen([*command, str(rank)], env=environment | {"LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    try:
        said = [worker.communicate(timeout=400)[1].decode()[-2000:] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(said)
    return pickle.loads((folder / "outcomes").read_bytes())


def work(folder, rank):
    from cluster.connect import prepare_environment

    prepare_environment()
    import torch.distributed as dist

    from pipelines.training.worker import run_loop

    with open(f"{folder}/jobs", "rb") as stream:
        jobs = pickle.load(stream)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    outcomes = [run_loop(job, rank=rank, world=2) for job in jobs]
    if rank == 0:
        with open(f"{folder}/outcomes", "wb") as stream:
            pickle.dump(outcomes, stream)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    work(sys.argv[1], int(sys.argv[2]))
