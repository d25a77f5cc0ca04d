"""A recipe's search space: checked, and in Ray Tune's terms."""

from typing import Any

from pipelines.recipe import SearchSpace, Train


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
