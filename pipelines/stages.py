"""The stages in their order: module, summary and gates of each.

A stage is imported when it is asked for, and not before; `--help` needs none of them, and no recipe.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from cluster.errors import UserError

if TYPE_CHECKING:
    from pipelines.stage import Stage

STAGES: dict[str, str] = {
    "audit": "pipelines.audit",
    "split": "pipelines.split",
    "sweep": "pipelines.sweep",
    "train": "pipelines.train",
    "evaluate": "pipelines.evaluate",
    "promote": "pipelines.promote",
}
"""Name -> module that defines `STAGE`."""

SUMMARIES: dict[str, str] = {
    "audit": "Read the examples and decide whether they are fit to learn from.",
    "split": "Put the examples on sides that share nothing, as a versioned table.",
    "sweep": "Try hyper-parameters in short trials; train takes the winner.",
    "train": "Fine-tune the base on the training side, watched by the validation side.",
    "evaluate": "Compare the tuned model with its base on the test side.",
    "promote": "Register the tuned model with its lineage and write it into the deployment log.",
}
"""Name -> one line for `--help`."""

GATES: dict[str, tuple[str, ...]] = {
    "audit": (
        "data.schema",
        "data.size",
        "data.provenance",
        "data.duplicates",
        "data.anomalies",
        "data.label_noise",
        "data.private",
    ),
    "split": ("split.leakage", "split.size"),
    "sweep": (),
    "train": ("train.supervision", "train.truncation", "train.overfit", "train.converged"),
    "evaluate": ("eval.better",),
    "promote": ("registry.lineage",),
}
"""Name -> the gates that its report holds, all of them."""


def load_stage(name: str) -> "Stage":
    """The stage called `name`. Raises UserError that suggests the nearest one."""
    from pipelines.section import nearest
    from pipelines.stage import Stage

    if name not in STAGES:
        raise UserError(f"{name!r} is no stage{nearest(name, STAGES)}", f"The stages: {', '.join(STAGES)}.")
    stage = import_module(STAGES[name]).STAGE
    assert isinstance(stage, Stage)
    return stage
