"""Several workers as processes of this machine, without Ray: one start for any number of runs."""

import multiprocessing
import os
import traceback


class Remote:
    def __init__(self, call):
        self.remote = call


class Listener:
    """A mailbox in this process."""

    def __init__(self):
        self.events = []
        self.put = Remote(self.events.append)

    def of(self, kind, value="step"):
        return [event[value] for event in self.events if event["kind"] == kind]


def run_here(job, rank, world, stop_at=None, **options):
    """The loop in this process's group: (outcome, what was heard); asked to stop after step `stop_at`."""
    from pipelines.training import worker

    heard = Listener()
    asked, worker.Loop._stop_asked = (
        worker.Loop._stop_asked,
        lambda loop: rank == 0 and stop_at is not None and loop.state.step + 1 == stop_at,
    )
    try:
        return worker.run_loop(job, rank=rank, world=world, mailbox=heard, **options), heard
    finally:
        worker.Loop._stop_asked = asked


def run_workers(folder, runs, world=2):
    """Each of `runs`, (job, stop_at) pairs, one after the other on `world` workers: rank 0's (outcome, events)."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipelines.training.preloaded"])
    answers = context.Queue()
    workers = [context.Process(target=_worker, args=(str(folder), runs, rank, world, answers)) for rank in range(world)]
    for process in workers:
        process.start()
    try:
        told = [answers.get(timeout=300) for _ in workers]
    finally:
        for process in workers:
            process.join(10)
            process.kill()
    problems = [problem for _, problem in told if problem]
    assert not problems, problems[0]
    return next(done for done, _ in told if done)


def _worker(folder, runs, rank, world, answers):
    try:
        os.environ |= {"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(world)}
        from cluster.connect import prepare_environment

        prepare_environment()
        import torch.distributed as dist

        dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=world)
        done = []
        for job, stop_at in runs:
            outcome, heard = run_here(job, rank, world, stop_at)
            done.append((outcome, heard.events))
        answers.put((done if rank == 0 else None, None))
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        answers.put((None, traceback.format_exc()))
