"""The stages by name, in their order; each is imported when it is asked for, and not before."""

from importlib import import_module

from cluster.errors import UserError
from pipelines.section import nearest
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


def load_stage(name: str) -> Stage:
    """The stage called `name`. Raises UserError that suggests the nearest one."""
    if name not in STAGES:
        raise UserError(f"{name!r} is no stage{nearest(name, STAGES)}", f"The stages: {', '.join(STAGES)}.")
    stage = import_module(STAGES[name]).STAGE
    assert isinstance(stage, Stage)
    return stage
