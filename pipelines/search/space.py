"""A recipe's search space: checked, and in Ray Tune's terms."""

from typing import Any

from cluster.errors import UserError
from pipelines.recipe import SearchSpace, Train

INPUT_SETTINGS = ("max_length", "packing", "on_overlong")
"""What changes the stored bins: each combination is encoded before the first trial."""


def check_space(space: SearchSpace) -> None:
    """Raise UserError where a setting of the inputs is to be drawn from a range."""
    for key in INPUT_SETTINGS:
        if key in space and "choice" not in space[key]:
            raise UserError(f"sweep.space.{key}: only choice works here.", "List the values: {choice: [256, 512]}.")


def input_variants(train: Train, space: SearchSpace) -> list[Train]:
    """The train section once for each combination of input settings in the space."""
    variants = [train]
    for key in INPUT_SETTINGS:
        if key in space:
            variants = [
                with_values(variant, {key: value}) for variant in variants for value in dict(space[key])["choice"]
            ]
    return variants


def with_values(train: Train, values: dict[str, Any]) -> Train:
    """The train section with a trial's values in it, checked as a whole."""
    return Train.model_validate(train.model_dump() | values)


def tune_space(space: SearchSpace) -> dict[str, Any]:
    """The space as Ray Tune's domains; randint leaves out its upper end in both."""
    from ray import tune

    make: dict[str, Any] = {
        "choice": tune.choice,
        "loguniform": tune.loguniform,
        "uniform": tune.uniform,
        "randint": tune.randint,
    }
    domains = {}
    for key, domain in space.items():
        ((kind, values),) = domain.items()
        domains[key] = make[kind](values) if kind == "choice" else make[kind](*values)
    return domains
