"""A recipe's search space: what is asked of a key under which conditions, and the points of a grid. Pure."""

from collections.abc import Iterator
from itertools import product
from typing import Any, Protocol

from pipelines.recipe import LORA_KEYS, SearchSpace, Sweep, Train


class Draw(Protocol):
    """How a value of a key is drawn."""

    def __call__(self, key: str, kind: str, values: list[Any]) -> Any:
        """A value out of the domain of that kind."""
        ...


def with_values(train: Train, values: dict[str, Any]) -> Train:
    """The train section with a trial's values in it, checked as a whole."""
    return Train.model_validate(train.model_dump() | values)


def usual_space(train: Train) -> SearchSpace:
    """The ranges for a recipe that names none.

    Rates around those of Hu et al. 2021 (arXiv 2106.09685, appendix D) for adapters and a tenth for all weights; ranks
    from 8 to 64; a tenth of the steps to warm up at most.
    """
    rates = [1e-5, 1e-3] if train.trains_adapters else [1e-6, 1e-4]
    if train.learns_from_pairs:
        rates = [rate / 10 for rate in rates]
    space: SearchSpace = {
        "learning_rate": {"loguniform": rates},
        "warmup_steps": {"choice": [0, 0.05, 0.1]},
        "weight_decay": {"choice": [0.0, 0.01, 0.1]},
    }
    return space | {"lora_r": {"choice": [8, 16, 32, 64]}} if train.trains_adapters else space


def space_of(sweep: Sweep, train: Train) -> SearchSpace:
    """The recipe's space, or the usual one."""
    return usual_space(train) if sweep.space is None else sweep.space


def draw_values(space: SearchSpace, train: Train, draw: Draw) -> dict[str, Any]:
    """A point of the space: the keys that apply, each drawn after the keys that it depends on."""
    values: dict[str, Any] = {}
    for key, domain in _in_order(space):
        if applies(key, domain, values, train):
            kind, choices = domain_of(domain)
            values[key] = draw(key, kind, choices)
    return values


def applies(key: str, domain: dict[Any, Any], values: dict[str, Any], train: Train) -> bool:
    """Whether the key means something beside the values that others have; keys of adapters need adapters."""
    known = train.model_dump(mode="json") | values
    if key in LORA_KEYS and known["method"] == "full":
        return False
    return all(known[other] in allowed for other, allowed in domain.get("when", {}).items())


def domain_of(domain: dict[Any, Any]) -> tuple[str, list[Any]]:
    """Its kind and its values."""
    ((kind, values),) = ((kind, values) for kind, values in domain.items() if kind != "when")
    return kind, values


def grid(space: SearchSpace, train: Train) -> list[dict[str, Any]]:
    """All points of a space of choices, the last key fastest; those that differ in nothing that applies once."""
    points: list[dict[str, Any]] = []
    for combination in product(*(_choices(domain) for domain in space.values())):
        chosen = dict(zip(space, combination, strict=True))
        point = draw_values(space, train, lambda key, kind, values, chosen=chosen: chosen[key])
        if point not in points:
            points.append(point)
    return points


def _choices(domain: dict[Any, Any]) -> list[Any]:
    kind, values = domain_of(domain)
    return list(range(*values)) if kind == "randint" else values


def _in_order(space: SearchSpace) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Keys that others depend on first: `method`, then what has no condition."""
    yield from sorted(space.items(), key=lambda item: (item[0] != "method", "when" in item[1]))
