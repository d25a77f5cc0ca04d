"""Time until a sweep names its best configuration, beside one after another and beside Ray Tune's ASHA.

    python -m tests.benchmarks.sweep [--steps 96] [--grace 6] [--factor 4] [--only ours,tune,exhaustive,swap]

The same twelve configurations (six rates, two ranks) of LoRA over the standard library's docstrings, packed into 128
tokens, two a step, validated on the same sequences. `exhaustive`: each trained to its end, one after another in one
process, a fresh model each; its losses are the truth. `tune`: Ray Tune's ASHA over the very same training loop, a fresh
model per trial, one at a time. `ours`: `sluice sweep`. All with the same rungs. Seconds from a running Ray to the
winner's name; a name counts when its loss at the end is within 1 % of the lowest. `swap`: seconds of a step of two
trials that take turns after every step, beside the same trials each in one piece.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

# An asynchronous rule lets everyone through where each comes after worse ones: the order is drawn.
RATES = [5e-4, 1e-5, 4e-3, 2e-4, 1e-3, 5e-5]
RANKS = [4, 16]
NEAR = 0.01


def recipe_of(folder: Path, steps: int, grace: int, factor: int) -> Any:
    """The recipe of all three: so many steps, first judged after `grace`, one in `factor` kept."""
    import yaml

    from pipelines.recipe_file import load_recipe

    content = yaml.safe_load(Path("pipelines/recipes/demo.yaml").read_text())
    content["train"] = {"global_batch_size": 2, "max_length": 128, "warmup_steps": 2}
    content["sweep"] = {
        "search": "grid",
        "default_trial": False,
        "max_steps": steps,
        "grace_steps": grace,
        "reduction_factor": factor,
        "space": {"learning_rate": {"choice": RATES}, "lora_r": {"choice": RANKS}},
    }
    content["cluster"] = {"max_concurrent_trials": 1}
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(content))
    return load_recipe(path)


def configurations() -> list[dict[str, Any]]:
    """In the order of the grid: neither from bad to good nor the other way."""
    return [{"learning_rate": rate, "lora_r": rank} for rate in RATES for rank in RANKS]


def jobs(shared: Any) -> list[Any]:
    """The training job of each configuration."""
    from pipelines.search.history import Trial
    from pipelines.search.trials import trial_job

    return [
        replace(trial_job(shared, Trial(f"trial-{number}", values, "search")), checkpoints="")
        for number, values in enumerate(configurations(), start=1)
    ]


def exhaustive(shared: Any) -> tuple[float, list[float]]:
    """(seconds, loss of each at its end), one after another in a process of its own."""
    import ray

    def all_of_them(trials: list[Any]) -> tuple[float, list[float]]:
        from pipelines.training.worker import run_loop
        from tests.benchmarks.sweep import join_alone

        started = time.monotonic()
        join_alone()
        losses = []
        for job in trials:
            outcome = run_loop(replace(job, rungs=job.rungs[-1:]), rank=0, world=1)
            losses.append(outcome["last_validation_loss"] or float("inf"))
        return time.monotonic() - started, losses

    started = time.monotonic()
    _, losses = ray.get(ray.remote(num_cpus=1)(all_of_them).remote(jobs(shared)))
    return time.monotonic() - started, losses


def join_alone() -> None:
    """Make this process a process group of one."""
    import torch.distributed as dist

    from pipelines.training.engine import prepare_process

    os.environ["LOCAL_RANK"], os.environ["LOCAL_WORLD_SIZE"] = "0", "1"
    prepare_process("cpu", 0)
    if not dist.is_initialized():
        dist.init_process_group("gloo", init_method=f"file://{tempfile.mkdtemp()}/store", rank=0, world_size=1)


def trial_of_tune(config: dict[str, Any], trials: list[Any]) -> None:
    """Tune's function: the same loop, a fresh model."""
    from ray import tune

    from pipelines.training.worker import run_loop

    join_alone()
    run_loop(trials[config["number"]], rank=0, world=1, report=tune.report)


def import_for_themselves() -> None:
    """A Ray as users of Tune have it: each worker imports what it needs, and is not forked by us."""
    import ray

    from cluster.connect import connect
    from cluster.settings import Settings

    ray.shutdown()
    os.environ |= {"SLUICE_FORK_WORKERS": "0", "RAY_prestart_worker_first_driver": "1"}
    connect(Settings.from_environment())


def with_tune(shared: Any, folder: Path) -> tuple[float, int]:
    """(seconds, the configuration that it names)."""
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    sweep, started = shared.sweep, time.monotonic()
    found = tune.Tuner(
        tune.with_resources(tune.with_parameters(trial_of_tune, trials=jobs(shared)), {"CPU": 1}),
        param_space={"number": tune.grid_search(list(range(len(configurations()))))},
        tune_config=tune.TuneConfig(
            metric="validation_loss",
            mode="min",
            max_concurrent_trials=1,
            scheduler=ASHAScheduler(
                time_attr="step",
                grace_period=sweep.grace_steps,
                reduction_factor=sweep.reduction_factor,
                max_t=sweep.max_steps,
            ),
        ),
        run_config=tune.RunConfig(name="tune", storage_path=str(folder), verbose=0),
    ).fit()
    seconds = time.monotonic() - started
    furthest = max(result.metrics["step"] for result in found if result.metrics)
    rivals = [result for result in found if result.metrics and result.metrics["step"] == furthest]
    best = min(rivals, key=lambda result: result.metrics["validation_loss"])
    return seconds, int(best.config["number"])


def with_ours(shared: Any, workspace: Any, name: str) -> tuple[float, int]:
    """(seconds, the configuration that it names)."""
    from pipelines.progress import Progress
    from pipelines.search.control import Control
    from pipelines.search.history import History
    from pipelines.search.winner import choose

    started = time.monotonic()
    control = Control(shared, History(workspace, name, "bench"), workspace, Progress(quiet=True), lambda event: None)
    winner = choose(control.run(""))
    assert winner
    return time.monotonic() - started, configurations().index(winner.values)


def swap(trials: list[Any], steps: int) -> tuple[float, float]:
    """(seconds of a step in turns, in one piece), medians."""
    from pipelines.search.resident_base import ResidentBase
    from pipelines.training.worker import Loop

    join_alone()
    base, loops = ResidentBase(), []
    with ExitStack() as closing:
        for job in trials:
            loop = Loop(replace(job, rungs=(10**6,)), 0, 1, closing, None, None, load=base.load)
            loop.begin()
            loop.advance(2)
            loops.append(loop)
        times: dict[str, list[float]] = {"turns": [], "piece": []}

        def step(loop: Any, kind: str) -> None:
            started = time.monotonic()
            loop.advance(loop.state.step + 1)
            times[kind].append(time.monotonic() - started)

        for _ in range(steps // 4):
            # The same steps of the same trials, so that both kinds meet the same rows and the same machine.
            for kind, order in (("turns", (0, 1, 0, 1)), ("piece", (0, 0, 1, 1))):
                for which in order:
                    step(loops[which], kind)
    return statistics.median(times["turns"]), statistics.median(times["piece"])


def main() -> None:
    """Print a line of each, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=96)
    parser.add_argument("--grace", type=int, default=6)
    parser.add_argument("--factor", type=int, default=4)
    parser.add_argument("--only", default="ours,tune,exhaustive,swap")
    options = parser.parse_args()
    wanted = options.only.split(",")
    from cluster.connect import prepare_environment

    prepare_environment()
    with tempfile.TemporaryDirectory(prefix="sluice-sweep-") as folder:
        os.environ["SLUICE_STORAGE"] = folder
        measure(Path(folder), recipe_of(Path(folder), options.steps, options.grace, options.factor), wanted)


def measure(folder: Path, recipe: Any, wanted: list[str]) -> None:
    """Each of what is wanted, in one run."""
    from pipelines import audit, split, sweep
    from pipelines.progress import Progress
    from pipelines.workspace import Workspace

    workspace = Workspace()
    for stage in (audit.STAGE, split.STAGE):
        stage.perform(recipe, workspace)
    if "ours" not in wanted:
        os.environ["SLUICE_FORK_WORKERS"] = "0"
    shared = sweep.share(recipe, workspace, Progress(quiet=True), "bench-sweep-0")
    named, seconds = {}, {}
    if "ours" in wanted:
        seconds["ours"], named["ours"] = with_ours(shared, workspace, "bench-sweep-0")
        print(f"ours: {seconds['ours']:.0f} s, names {configurations()[named['ours']]}", flush=True)
    if "tune" in wanted:
        import_for_themselves()
        seconds["tune"], named["tune"] = with_tune(shared, folder)
        print(f"tune: {seconds['tune']:.0f} s, names {configurations()[named['tune']]}", flush=True)
    if "exhaustive" in wanted:
        whole, losses = exhaustive(shared)
        print(f"exhaustive: {whole:.0f} s, losses {[round(loss, 4) for loss in losses]}", flush=True)
        for name, number in named.items():
            off = losses[number] / min(losses) - 1
            verdict = "within" if off <= NEAR else "NOT within"
            print(f"{name}: {off:.2%} above the lowest, {verdict} 1 %; {seconds[name] / whole:.3f} of exhaustive")
    if {"ours", "tune"} <= seconds.keys():
        print(f"ours takes {seconds['ours'] / seconds['tune']:.3f} of Tune's time")
    if "swap" in wanted:
        turns, piece = swap(jobs(shared)[6:8], 24)
        print(f"swap: {turns:.3f} s a step in turns, {piece:.3f} s in one piece: {turns / piece - 1:+.1%}")


if __name__ == "__main__":
    main()
