"""A real sweep over the tiny model, in a thread of its own."""

import threading
from contextlib import suppress
from dataclasses import replace

from cluster.errors import UserError
from pipelines import sweep
from pipelines.progress import Progress
from pipelines.search.control import Control
from pipelines.search.history import ENDED, History
from tests.waiting import until

RATES = [1e-3, 2e-3, 5e-3, 1e-2, 2e-2]


class Sweeping:
    """A sweep in a thread of its own, watched through its history."""

    def __init__(self, recipe, workspace, concurrent=1, **shared):
        self.workspace, self.name = workspace, f"{recipe.name}-sweep-0"
        made = sweep.share(recipe, workspace, Progress(quiet=True), self.name)
        self.shared = replace(made, concurrent=concurrent, **shared)
        self.history = History(workspace, self.name, recipe.name)
        self.error = None

    def run(self):
        """Run to the end here; how it stands then."""
        control = Control(self.shared, self.history, self.workspace, Progress(quiet=True), lambda event: None)
        return control.run("")

    def __enter__(self):
        def work():
            try:
                self.run()
            except BaseException as error:
                self.error = error

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, failure, *_):
        if failure:
            return
        self.until(lambda standing: standing.closed)
        self.thread.join(60)
        assert self.error is None

    def until(self, holds):
        """The standing, as soon as the condition holds."""

        def met():
            standing = self.history.standing()
            assert holds(standing) or self.error is None, self.error
            return standing if holds(standing) else None

        return until(met, "what the sweep was to come to")

    def stop_all(self):
        """Stop trials until the sweep is over."""

        def over(standing):
            for trial in standing.trials.values():
                # It may end by itself before it is asked to.
                with suppress(UserError):
                    if trial.state not in ENDED and not standing.closed:
                        self.ask("stop", trial.trial)
            return standing.closed

        self.until(over)

    def ask(self, action, trial="", **content):
        """Ask and wait for the answer: the problem, or nothing."""
        number = self.history.ask(action, trial, by="Ada", **content)

        def answers():
            return [e for e in self.history.events() if e.kind == "answered" and e.content["request"] == number]

        self.until(lambda standing: answers())
        return answers()[0].content["problem"]


def sweep_section(**values):
    space = {"learning_rate": {"choice": RATES}}
    return {"search": "grid", "default_trial": False, "max_steps": 8, "grace_steps": 2, "space": space} | values
