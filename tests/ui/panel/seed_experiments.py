"""Deployments and an experiment as the service and its watcher leave them in the database."""

from datetime import timedelta
from pathlib import Path

import numpy as np

from pipelines.fingerprint import folder_fingerprint
from pipelines.records import EventRow, ExperimentExposureRow, ExperimentRow, FeedbackRow, InteractionRow, now

NAME = "docstrings"
DESIGN = {
    "primary": {"metric": "event.resolved", "margin": 0.02},
    "guardrails": [
        {"metric": "requests.failed", "per_unit": "mean", "margin": 0.02},
        {"metric": "feedback.thumb_down", "margin": 0.05},
    ],
    "planned_units": 6000,
    "ramp": [0.2],
}


def deploy(workspace, *weights):
    """A registered model with real files in production for each of `weights`, the last one in force."""
    from pipelines.tracking import deployments, registry

    rows = []
    for each in weights:
        folder = Path(workspace.uri("models", each))
        folder.mkdir(parents=True)
        (folder / "weights").write_text(each, encoding="utf-8")
        content = {
            "train": {
                "model": str(folder),
                "model_fingerprint": folder_fingerprint(folder),
                "method": "lora",
                "base": "HuggingFaceTB/SmolLM2-135M-Instruct",
                "base_fingerprint": "b" * 64,
            },
            "data": {"version": 0},
            "reports": {"evaluate": {"key": f"{each}{'0' * 40}"}},
            "recipe": {"serve": {"weights": {"base": 1.0, "tuned": 1.0}}},
            "waivers": [],
        }
        version = registry.register(workspace.settings, NAME, content)
        registry.set_champion(workspace.settings, NAME, version)
        row = deployments.append(
            workspace,
            recipe_name=NAME,
            action=deployments.PROMOTE,
            model_name=NAME,
            model_version=version,
            content=content,
            by="ada",
        )
        rows.append(row)
    return rows


def start(workspace, recipe, *, days=2.0):
    """The experiment that `recipe` describes, started so many days ago."""
    from serve.experimentation import lifecycle

    row = lifecycle.start(workspace, recipe, "ada")
    with workspace.session() as session:
        found = session.get(ExperimentRow, row.id)
        found.created_at = row.created_at = row.created_at - timedelta(days=days)
    return row


def let_in(workspace, row, units, looks=8, failed=0.004, **rates):
    """So many units in each arm, each with a request and, at its arm's rate, an event; a look after each part."""
    from serve.experimentation import lifecycle
    from serve.experimentation.look import evidence_of, look

    draw, done = np.random.default_rng(5), 0
    for part in range(1, looks + 1):
        # Looks are kept as the units grow by a factor, as the watcher does.
        until = max(done + 1, round(units * 1.6 ** (part - looks)))
        with workspace.session() as session:
            for arm, rate in rates.items():
                for number in range(done, until):
                    session.add_all(_unit(row, arm, number, draw.random() < rate, draw.random() < failed))
        done = until
        lifecycle.looked(workspace, row, "sluice watcher", evidence_of(look(workspace, row)))


def take_time(workspace, row, units):
    """Minutes of each of so many units in each arm, before the start and since: as long as they usually take."""
    draw = np.random.default_rng(6)
    with workspace.session() as session:
        for arm, less in (("base", 0.0), ("tuned", 4.0)):
            for number, habit in enumerate(draw.normal(60, 20, units)):
                unit = f"{row.id}-{arm}-{number}"
                for event, value, days in (("before", habit, -3), ("since", habit + draw.normal(0, 5) - less, 0.5)):
                    at = row.created_at + timedelta(days=days)
                    session.add(
                        EventRow(
                            recipe_name=row.recipe_name,
                            event_id=f"{event}-{unit}",
                            unit=unit,
                            name="minutes",
                            value=value,
                            happened_at=at,
                        )
                    )


def answer_lately(workspace):
    """Four requests to `tuned` an hour ago, one of which failed; the others' answers were corrected."""
    answered = {"first_token_ms": 90.0, "total_ms": 1100.0, "completion_tokens": 30, "status": 200}
    failed = {"first_token_ms": None, "total_ms": 9.0, "completion_tokens": 0, "status": 500}
    with workspace.session() as session:
        for number, figures in enumerate((answered, answered, answered, failed)):
            asked = f"lately-{number}"
            row = InteractionRow(
                request_id=asked,
                recipe_name=NAME,
                unit=asked,
                arm="tuned",
                model="tuned",
                prompt_tokens=20,
                created_at=now() - timedelta(hours=1),
                **figures,
            )
            session.add(row)
            if figures is answered:
                session.add(FeedbackRow(request_id=asked, kind="correction", correction="So.", edited=0.25))


def _unit(row, arm, number, resolves, fails):
    unit, at = f"{row.id}-{arm}-{number}", row.created_at + timedelta(minutes=1 + number / 10)
    yield ExperimentExposureRow(experiment_id=row.id, unit=unit, arm=arm, created_at=at)
    yield InteractionRow(
        request_id=f"request-{unit}",
        recipe_name=row.recipe_name,
        unit=unit,
        arm=arm,
        model=arm,
        prompt_tokens=20,
        completion_tokens=30,
        total_ms=800.0,
        status=500 if fails else 200,
        experiment_id=row.id,
        created_at=at,
    )
    if resolves:
        yield EventRow(
            recipe_name=row.recipe_name,
            event_id=f"event-{unit}",
            unit=unit,
            name="resolved",
            value=1.0,
            happened_at=at + timedelta(minutes=5),
            created_at=at + timedelta(minutes=6),
        )
