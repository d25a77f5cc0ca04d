from datetime import timedelta

import numpy as np
import pytest

from pipelines.recipe_file import load_recipe
from pipelines.records import EventRow, ExperimentExposureRow, InteractionRow
from serve.experimentation import lifecycle

DESIGN = {
    "primary": {"metric": "event.resolved"},
    "guardrails": [{"metric": "requests.failed", "per_unit": "mean", "margin": 0.02}],
    "planned_units": 2000,
}


@pytest.fixture
def deployed(workspace, tmp_path):
    """`deployed(number)`: version `number` in the deployment log; `registered`: and really in the registry."""
    from pipelines.tracking import deployments, registry

    def deploy(number=1, registered=False):
        content = {
            "train": {
                "model": str(tmp_path / f"model-{number}"),
                "model_fingerprint": f"fingerprint-{number}",
                "method": "lora",
                "base": "tiny",
                "base_fingerprint": "base",
            },
            "data": {"version": 0},
            "reports": {"evaluate": {"key": f"key-{number}"}},
            "recipe": {},
            "waivers": [],
        }
        version = str(number)
        if registered:
            version = registry.register(workspace.settings, "small", content)
            registry.set_champion(workspace.settings, "small", version)
        return deployments.append(
            workspace,
            recipe_name="small",
            action="promote",
            model_name="small",
            model_version=version,
            content=content,
            by="ada",
        )

    return deploy


@pytest.fixture
def started(workspace, recipe_file, deployed):
    """`started(**changes)`: a running experiment, with these changes of the design."""
    deployed()

    def start(**changes):
        recipe = load_recipe(recipe_file(experiment=DESIGN | changes))
        return lifecycle.start(workspace, recipe, "ada")

    return start


@pytest.fixture
def users(workspace):
    """`users(row, base=(units, rate), tuned=(units, rate))`: exposures, and an event of each unit that resolves."""

    def add(row, *, event="resolved", failed=(), value=1.0, **arms):
        draw, at = np.random.default_rng(3), row.created_at + timedelta(seconds=1)
        with workspace.session() as session:
            for arm, (count, rate) in arms.items():
                resolved = draw.permutation(count) < round(count * rate)
                for number in range(count):
                    unit = f"{row.id}-{arm}-{event}-{number}"
                    session.add(ExperimentExposureRow(experiment_id=row.id, unit=unit, arm=arm, created_at=at))
                    session.add(asked(row, unit, arm, 500 if arm in failed and number % 4 == 0 else 200))
                    if resolved[number]:
                        session.add(happened(row, unit, event, value, at + timedelta(minutes=number)))

    return add


def asked(row, unit, arm, status=200, **columns):
    """An interaction of an experiment."""
    return InteractionRow(
        **{
            "request_id": f"request-{unit}-{columns.get('number', 0)}",
            "recipe_name": row.recipe_name,
            "unit": unit,
            "arm": arm,
            "model": arm,
            "finish_reason": "stop",
            "prompt_tokens": 1,
            "completion_tokens": 1,
            "total_ms": 10.0,
            "status": status,
            "experiment_id": row.id,
            "created_at": row.created_at + timedelta(seconds=2),
        }
        | {name: value for name, value in columns.items() if name != "number"}
    )


def happened(row, unit, name, value, at):
    """A business event."""
    return EventRow(
        recipe_name=row.recipe_name, event_id=f"{unit}-{name}-{at}", unit=unit, name=name, value=value, happened_at=at
    )
