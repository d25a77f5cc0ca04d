"""`sluice evaluate`: the tuned model against its base on the test side, which nothing else reads."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.errors import StageFailed, UserError
from pipelines import stage
from pipelines.fingerprint import fingerprint, short
from pipelines.gates import Finding, Gate, decide
from pipelines.progress import Progress
from pipelines.recipe import Recipe
from pipelines.stage import Outcome, Stage, require
from pipelines.stages import GATES, SUMMARIES
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from pipelines.evaluation.compare import Interval
    from pipelines.evaluation.generate import Results
    from pipelines.evaluation.report import Scored

EVALUATION_VERSION = 1
"""Of the scores: raise it when the same answers get other figures."""

ARMS = ("base", "tuned")

SHOWN_CHARACTERS = 2000


def reads(recipe: Recipe, workspace: Workspace) -> dict[str, str]:
    """The trained model, the test side, and how to compare."""
    from pipelines import split, train

    trained = require(train.STAGE, recipe, workspace)
    divided = require(split.STAGE, recipe, workspace)
    # Another engine's answers are other answers; without the key, what is reported of the usual one stays.
    engine = {} if recipe.cluster.engine == "transformers" else {"engine": recipe.cluster.engine}
    return engine | {
        "train": trained.key,
        "model": trained.produced["model_fingerprint"],
        "split": divided.produced["split"],
        "evaluate": fingerprint(EVALUATION_VERSION, recipe.seed, recipe.evaluate.model_dump(mode="json")),
    }


def work(recipe: Recipe, workspace: Workspace, progress: Progress, fresh: bool) -> Outcome:
    """Generate, score, compare, decide."""
    from cluster.connect import connect, preload_workers
    from pipelines import split, train
    from pipelines.data.versioned.table import read_side
    from pipelines.evaluation.generate import Plan, run_candidates
    from pipelines.models.candidate import candidates

    examples = choose_examples(
        read_side(require(split.STAGE, recipe, workspace), "test").to_pylist(),
        recipe.evaluate.max_examples,
        recipe.seed,
    )
    found = candidates(require(train.STAGE, recipe, workspace), workspace)
    models = {str(arm): candidate for arm, candidate in found.items()}
    connect(workspace.settings)
    preload_workers("pipelines.training.preloaded")
    generated = recipe.evaluate
    plan = Plan(recipe.train.dtype, generated.max_new_tokens, generated.batch_size, recipe.cluster.engine)
    progress.say(f"evaluate: {len(examples)} test examples, {' and '.join(models)}")
    results = run_candidates(models, [example.messages for example in examples], plan, recipe.cluster, progress)
    return compare(examples, results, recipe, workspace)


@dataclass(frozen=True)
class TestExample:
    """An example of the test side."""

    __test__ = False  # pytest would take it for a test

    id: str
    group: str
    """Examples of one group are not independent of each other."""
    messages: list[dict[str, str]]

    @property
    def prompt(self) -> str:
        """The last turn before the answer."""
        return next((m["content"] for m in reversed(self.messages[:-1]) if m["role"] == "user"), "")

    @property
    def reference(self) -> str:
        """The answer to compare with."""
        return self.messages[-1]["content"]


def choose_examples(rows: Sequence[dict[str, Any]], most: int | None, seed: int) -> list[TestExample]:
    """The test examples to generate for, ordered by id: those with the smallest seeded hashes, up to `most`."""
    if not rows:
        raise UserError("The test side is empty.", "Add examples, or give split.test a larger share.")
    chosen = sorted(rows, key=lambda row: fingerprint(seed, row["id"]))[:most]
    return [
        # Without a group, near-duplicates are what hangs together.
        TestExample(row["id"], row["group"] or row["cluster"] or row["id"], json.loads(row["messages"]))
        for row in sorted(chosen, key=lambda row: str(row["id"]))
    ]


def compare(examples: list[TestExample], results: "Results", recipe: Recipe, workspace: Workspace) -> Outcome:
    """The outcome of what the candidates answered."""
    from pipelines.evaluation import report
    from pipelines.evaluation.metrics import Scorer

    used = [index for index in range(len(examples)) if index not in results.too_long]
    if not used:
        raise UserError("No test example fits the model's context.", "Choose a base with a longer context.")
    kept = [examples[index] for index in used]
    references, groups = [example.reference for example in kept], [example.group for example in kept]
    scorer, scored = Scorer(), {}
    for arm, answers in results.arms.items():
        losses = [answers.losses[index] or (0.0, 0) for index in used]
        if report.broken(losses):
            raise StageFailed(
                f"{arm}: its loss on the test side is not a number, so its weights are broken.",
                "Lower train.learning_rate and train again.",
            )
        scored[arm] = report.score(scorer, [answers.texts[index] or "" for index in used], references, losses)
    evaluate = recipe.evaluate
    compared = report.comparisons(scored["base"], scored["tuned"], groups, evaluate.resamples, recipe.seed)
    own = {arm: report.intervals(one, groups, evaluate.resamples, recipe.seed) for arm, one in scored.items()}
    values = {arm: report.values(one) for arm, one in scored.items()}
    best, worst = report.extremes(
        scored["base"], scored["tuned"], [example.prompt for example in kept], references, evaluate.primary
    )
    independent = compared["loss"].groups
    return Outcome(
        gates=(better_gate(compared, values, recipe),),
        findings=tuple(_findings(results, len(used), recipe)),
        figures={
            "examples": len(used),
            "groups": independent,
            "primary": evaluate.primary,
            "candidates": {arm: {name: round(value, 6) for name, value in one.items()} for arm, one in values.items()},
            # With a single group there is no interval, and none is shown.
            "intervals": {arm: {name: report.plain(i) for name, i in one.items()} for arm, one in own.items()}
            if independent > 1
            else {},
            "comparisons": {
                name: {"difference": round(found.estimate, 6)} | report.plain(found) for name, found in compared.items()
            }
            if independent > 1
            else {},
            "bleu_signature": scorer.bleu_signature,
            "meteor_note": scorer.meteor_note,
            "method": f"paired BCa bootstrap by group, {evaluate.resamples} resamples, 95 %",
            "truncated": {arm: answers.truncated for arm, answers in results.arms.items()},
            "too_long": len(results.too_long),
            "best": [_shortened(row) for row in best],
            "worst": [_shortened(row) for row in worst],
            "tokens_per_second": round(results.tokens_per_second, 1),
        },
        produced={"answers": _keep_answers(kept, scored, recipe, workspace)},
    )


def better_gate(compared: dict[str, "Interval"], values: dict[str, dict[str, float]], recipe: Recipe) -> Gate:
    """`eval.better`, with the figures that decided it."""
    from pipelines.evaluation.compare import decide_better
    from pipelines.evaluation.report import METRICS

    primary = recipe.evaluate.primary
    decision = decide_better({metric: compared[metric] for metric in METRICS}, primary, recipe.evaluate.margins)
    first = compared[primary]
    evidence = (
        f"{'; '.join(decision.reasons)} (tuned - base, 95 %). {primary}: base {values['base'][primary]:.3f}, tuned "
        f"{values['tuned'][primary]:.3f}; n = {first.n} examples in {first.groups} groups."
    )
    return decide("eval.better", decision.better, evidence[0].upper() + evidence[1:])


def _findings(results: "Results", used: int, recipe: Recipe) -> list[Finding]:
    found = []
    for arm, answers in results.arms.items():
        if answers.truncated:
            found.append(
                Finding(
                    code=f"eval.truncated.{arm}",
                    severity="warning" if answers.truncated > 0.05 * used else "info",
                    message=f"{answers.truncated} of {used} answers of {arm} were cut at max_new_tokens = "
                    f"{recipe.evaluate.max_new_tokens}; they are scored as they stand.",
                    count=answers.truncated,
                    remedy="Raise evaluate.max_new_tokens if the references are as long as that.",
                )
            )
    if results.too_long:
        found.append(
            Finding(
                code="eval.too_long",
                severity="warning",
                message=f"{len(results.too_long)} test examples do not fit the model's context and were left out of "
                "both candidates.",
                count=len(results.too_long),
                remedy="Choose a base with a longer context, or shorten those examples.",
            )
        )
    return found


def _shortened(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value[:SHOWN_CHARACTERS] + "..." if isinstance(value, str) and len(value) > SHOWN_CHARACTERS else value
        for name, value in row.items()
    }


def _keep_answers(
    examples: list[TestExample], scored: dict[str, "Scored"], recipe: Recipe, workspace: Workspace
) -> str:
    """Store every answer with its scores; the folder's address."""
    import tempfile
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {
        "id": [example.id for example in examples],
        "group": [example.group for example in examples],
        "prompt": [example.prompt for example in examples],
        "reference": [example.reference for example in examples],
    }
    for arm, one in scored.items():
        columns[arm] = list(one.texts)
        columns |= {f"{arm}_{metric}": values for metric, values in one.single.items()}
    table = pa.table(columns).replace_schema_metadata({"sluice.schema_version": "1"})
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(table, Path(folder) / "answers.parquet")
        content = short(fingerprint([one.texts for one in scored.values()], columns["id"]))
        return workspace.keep(Path(folder), "evaluations", recipe.name, content)


STAGE = Stage("evaluate", SUMMARIES["evaluate"], GATES["evaluate"], reads, work)


def main() -> int:
    """Run from the command line; the exit code."""
    return stage.main(STAGE)


if __name__ == "__main__":
    from pipelines import evaluate

    sys.exit(evaluate.main())
