"""A workspace as the panel meets it: real reports, waivers, deployments and tracked runs, without hours of training."""

import math
from datetime import UTC, datetime, timedelta

from pipelines.gates import Finding, Gate, Report, Verdict, Waiver

HOSTILE = '<img src="http://127.0.0.1:9/beacon.png" onerror="window.broken=1"><script>window.broken=1</script>'
MARKDOWN_BEACON = "![x](http://127.0.0.1:9/beacon.png) [click](javascript:window.broken=1) $\\href{x}{y}$"
ANSI = "\x1b[31mred\x1b[0m \u202egnp.exe"
LONG = ("source", "group", "topic", "annotator")
"""Columns whose names are long in the data of `leaky`."""
BROKEN_LINES = 12


def minutes_ago(minutes):
    return datetime.now(UTC) - timedelta(minutes=minutes)


def resolved_recipe(name="docstrings", **sections):
    from pipelines.recipe import Recipe

    content = {
        "name": name,
        "dataset": {"source": "package://stdlib#docstrings", "group_by": "module"},
        "models": [{"base": "HuggingFaceTB/SmolLM2-135M-Instruct"}],
        "train": {"learning_rate": 5e-4, "num_train_epochs": 1},
        "sweep": {"num_samples": 3, "space": {"learning_rate": {"loguniform": [1e-4, 1e-3]}}},
    } | sections
    return Recipe.model_validate(content).model_dump(mode="json")


def gate(name, verdict, evidence):
    return Gate(gate=name, verdict=Verdict(verdict), evidence=evidence)


def make_report(stage, gates, *, recipe=None, minutes=60, **fields):
    recipe = recipe or resolved_recipe()
    return Report(
        stage=stage,
        recipe_name=fields.pop("recipe_name", recipe["name"]),
        gates=tuple(gates),
        fingerprints=fields.pop("fingerprints", {"dataset": "d" * 64}),
        recipe=recipe,
        seconds=fields.pop("seconds", 12.5),
        created_at=minutes_ago(minutes),
        **fields,
    )


def audit_report(**fields):
    gates = [
        gate("data.schema", "open", "1,200 of 1,200 rows hold a conversation that ends with an answer."),
        gate("data.size", "open", "1,163 unique examples by people, at least 1,000 wanted."),
        gate("data.provenance", "open", "Every row names its source, collector and annotator."),
        gate("data.duplicates", "closed", "34.0 % of the rows repeat another one, at most 30.0 % allowed."),
    ]
    findings = (
        Finding(
            code="data.duplicates.near",
            severity="error",
            message="408 rows repeat another row nearly: the same text with another name in it.",
            count=408,
            samples=(
                {"id": "3fa1", "prompt": HOSTILE, "answer": MARKDOWN_BEACON},
                {"id": "77c0", "prompt": ANSI, "answer": "Return the name of the file."},
            ),
            remedy="Remove the repeats, or raise audit.max_duplicate_share if they are wanted.",
        ),
        Finding(
            code="data.schema.quarantined",
            severity="warning",
            message="3 rows could not be read and were kept aside with their reason.",
            count=3,
            samples=({"line": 118, "reason": "not valid JSON"},),
            remedy="Mend them in the source.",
        ),
    )
    figures = {"rows": 1200, "unique_rows": 1163, "human_annotated": 1163, "near_duplicate_rows": 408, "clusters": 792}
    return make_report("audit", gates, findings=findings, figures=figures, minutes=95, **fields)


def fill_pipeline(workspace, run_id="train"):
    """Every stage up to promotion, the audit waived; returns the reports by stage."""
    recipe = resolved_recipe()
    audit = audit_report(recipe=recipe)
    split = make_report(
        "split",
        [gate("split.leakage", "open", "No example, cluster or module stands on two sides (checked by brute force).")],
        recipe=recipe,
        minutes=93,
        fingerprints={"dataset": "d" * 64, "audit": audit.key},
        figures={"rows": {"train": 930, "validation": 117, "test": 116, "held_out": 0}},
        produced={"table": "/data/split", "version": "0", "split": "5" * 64},
    )
    sweep = make_report(
        "sweep",
        [],
        recipe=recipe,
        minutes=80,
        seconds=512,
        fingerprints={"split": "5" * 64},
        figures={"trials": 3, "best_validation_loss": 2.61, "learning_rate": 4.1e-4},
        produced={"run_id": "sweep"},
    )
    train = make_report(
        "train",
        [
            gate("train.supervision", "open", "930 of 930 examples teach at least one token, the end token too."),
            gate("train.truncation", "open", "No example was longer than 512 tokens."),
            gate("train.overfit", "open", "Validation loss 2.493 at its best and 2.498 at the end."),
        ],
        recipe=recipe,
        minutes=60,
        seconds=431,
        fingerprints={"split": "5" * 64, "sweep": sweep.key},
        figures={
            "steps": 116,
            "validation_loss": 2.498,
            "best_validation_loss": 2.493,
            "baseline_validation_loss": 3.38,
            "tokens_per_second": 318.4,
            "stopped_because": "All 116 steps were done.",
            "example": {
                "text": "<|im_start|>user\nSummarise: " + HOSTILE + "<|im_end|>\n<|im_start|>assistant\n"
                "Return the nearest common ancestor.<|im_end|>\n",
                "supervised_text": "Return the nearest common ancestor.<|im_end|>",
                "marked_text": "<|im_start|>user\nSummarise: " + HOSTILE + "<|im_end|>\n<|im_start|>assistant\n"
                "\u27e6Return the nearest common ancestor.<|im_end|>\u27e7\n",
            },
        },
        produced={"model": "/models/a", "run_id": run_id},
    )
    evaluate = make_report(
        "evaluate",
        [gate("eval.better", "open", "rougeL rises by 0.091, 95 % interval 0.058 to 0.124, n = 116.")],
        recipe=recipe,
        minutes=41,
        seconds=190,
        fingerprints={"train": train.key, "split": "5" * 64},
        figures={
            "best": [
                {
                    "prompt": "Summarise: Return the canonical path, with symbolic links resolved.",
                    "reference": "Resolve a path.",
                    "base": "This function is used to get the path. " + HOSTILE,
                    "tuned": "Resolve the path.",
                    "base_score": 0.11,
                    "tuned_score": 0.8,
                }
            ],
            "candidates": {
                "base": {"loss": 3.383, "perplexity": 29.46, "rouge1": 0.214, "rougeL": 0.173, "bleu": 0.021},
                "tuned": {"loss": 2.487, "perplexity": 12.02, "rouge1": 0.301, "rougeL": 0.264, "bleu": 0.058},
            },
            "comparisons": {
                "loss": {"difference": -0.896, "low": -1.01, "high": -0.79, "n": 116},
                "rouge1": {"difference": 0.087, "low": 0.051, "high": 0.122, "n": 116},
                "rougeL": {"difference": 0.091, "low": 0.058, "high": 0.124, "n": 116},
                "bleu": {"difference": 0.037, "low": -0.004, "high": 0.071, "n": 116},
            },
        },
    )
    reports = {report.stage: report for report in (audit, split, sweep, train, evaluate)}
    for report in reports.values():
        workspace.save_report(report)
    workspace.save_waiver(
        Waiver(
            gate="data.duplicates",
            report=audit.key,
            by="Jane Doe",
            because="Overloads share their descriptions; they stay on one side of the split.",
            created_at=minutes_ago(94),
        )
    )
    return reports


def fill_data(workspace, folder):
    """Audits and splits as their stages leave them: (audit, split) by recipe.

    `planted` was split twice, before and after 20 rows came, and holds lines that are no rows; the sides that the data
    of `leaky` bring share groups, its names are 300 characters long, and some of its labels are wrong.
    """
    from pipelines.progress import Progress
    from pipelines.recipe import Recipe
    from pipelines.stages import load_stage
    from tests.pipelines.data import planted

    masked, few = {"min_examples": 100, "private": {"action": "mask"}}, {"min_validation": 5, "min_test": 5}
    made = planted.rows()
    more = [row | {"group": "later"} for row in planted.rows(count=320, seed=5)[300:320]]
    reports = {}
    long = [row | {name: f"{row[name]}-".ljust(300, "x") for name in LONG} for row in (*made, *more)]
    for row, other in zip(long[:120:12], long[1:120:12], strict=True):
        row["topic"] = other["topic"]
    for name, rows, rules in (
        ("planted", made, few),
        ("planted", [*made, *more], few),
        ("leaky", long, {"column": "given"}),
    ):
        source = planted.write(folder / "planted.jsonl", rows)
        if name == "planted":
            with source.open("a") as stream:
                stream.writelines(f"{n} {ANSI} {HOSTILE} {planted.MAIL}\n" for n in range(BROKEN_LINES))
        recipe = Recipe.model_validate(planted.content(source, name, audit=masked, split=rules))
        stages = [load_stage(stage) for stage in ("audit", "split")]
        reports[name] = [stage.perform(recipe, workspace, Progress(quiet=True)) for stage in stages]
    return reports


def deploy(workspace, version="1", by="jane"):
    from pipelines.tracking import deployments

    return deployments.append(
        workspace,
        recipe_name="docstrings",
        action=deployments.PROMOTE,
        model_name="docstrings",
        model_version=version,
        content={},
        by=by,
    )


def submit(workspace, stage, address="http://127.0.0.1:9"):
    """A stage on record as submitted to a cluster at `address`."""
    from pipelines.tracking import submission_log
    from pipelines.tracking.submission_log import Request

    class Cluster:
        """What a claim asks for its address; of a request that is new it asks nothing more."""

        def __init__(self):
            self.address = address

    words = ["sluice", "submit", stage, "/home/jane/my recipes/r.yaml"]
    content = {"recipe": resolved_recipe(), "command": words}
    return submission_log.claim(workspace, Cluster(), Request("7" * 64, stage, "docstrings", False, content))


def track(workspace, *, name="docstrings-4f3ac21b", stage="train", steps=40, ended="FINISHED", **settings_of_it):
    """A tracked run with the curves of a training, asked for with these settings; its id."""
    from pipelines.tracking import runs

    settings = workspace.settings
    tags = {"sluice.recipe": "docstrings", "sluice.stage": stage, "sluice.key": name}
    params = {"method": "lora", "learning_rate": 5e-4, "lora_r": 16, "global_batch_size": 8, "seed": 17}
    params |= settings_of_it
    run_id = runs.start_run(settings, name, tags, params)
    for step in range(1, steps + 1):
        log_step(workspace, run_id, step, steps)
    if ended:
        runs.end_run(settings, run_id, ended)
    return run_id


def log_step(workspace, run_id, step, steps=40):
    """One optimiser step's metrics, as training leaves them; a validation every eighth step."""
    from pipelines.tracking import runs

    loss = 2.4 + math.exp(-step / 9) + 0.08 * math.sin(step * 1.7)
    metrics = {
        "train/loss": loss,
        "train/learning_rate": 5e-4 * min(1.0, step / 3) * 0.5 * (1 + math.cos(math.pi * step / steps)),
        "train/tokens_per_second": 318 + 12 * math.sin(step),
        "train/grad_norm": 1.4 + 0.5 * math.cos(step * 0.9),
    }
    if step % 8 == 0:
        metrics |= {"validation/loss": loss + 0.06, "validation/perplexity": math.exp(loss + 0.06)}
    runs.log_metrics(workspace.settings, run_id, metrics, step)
