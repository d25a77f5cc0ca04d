"""The driver of a sweep: proposes trials, stops the worse ones, does what people ask."""

import math
import time
from collections.abc import Callable
from typing import Any

from cluster.errors import StageFailed, Stopped, UserError
from pipelines.progress import Progress
from pipelines.search.answers import consequences, new_trial
from pipelines.search.history import ENDED, Entry, Event, History, Standing, Trial, follow
from pipelines.search.proposals import Proposals
from pipelines.search.reading import driven_seconds
from pipelines.search.schedulers import rungs, stops
from pipelines.search.space import space_of
from pipelines.search.trials import Trials, trial_train
from pipelines.search.turns import Turns
from pipelines.search.winner import to_confirm, unproven_clone
from pipelines.training.channel import open_mailbox
from pipelines.training.trainer import STOP_POLL_S, no_room, stop_requested
from pipelines.workspace import Workspace

RETRIES = 1
"""Times that a trial which broke off is taken up again from its last checkpoint."""
DEATHS = 3
"""Times that a trial may lose its worker: that is rarely its own fault."""
POLL_S = 0.5
ASK_POLL_S = 1.0
OVERLAP = 100
"""Events that are looked at again: more than are ever written at the same moment."""


class Control:
    """A sweep at work."""

    def __init__(
        self,
        shared: Trials,
        history: History,
        workspace: Workspace,
        progress: Progress,
        on_event: Callable[[dict[str, Any]], None],
    ) -> None:
        """`on_event` gets what the trials' loops tell while they learn."""
        self._shared, self._history, self._workspace = shared, history, workspace
        self._progress, self._on_event = progress, on_event
        self._rungs = rungs(shared.sweep)
        events = history.events()
        # What earlier sweeps had found when this one began: today's may be others.
        begun = next((event.content for event in events if event.kind == "opened"), {})
        self._prior = prior = begun.get("prior_values", list(shared.prior))
        self._proposals = Proposals(shared.sweep, shared.train, shared.seed, prior)
        self._proposals.replay(events)
        self.standing = Standing(history.sweep)
        self._seen: set[int] = set()
        self._opened = 0
        """This driver's own event."""
        self._spent_before = driven_seconds(events)
        for event in events:
            self._take(event)
        self._began = time.monotonic()
        self._passed: dict[str, int] = {}
        """The last rung after which a trial was let go on."""
        self._over = ""
        self._asked_at = self._stop_polled = 0.0
        self._stopping = self._told_paused = False
        self._turns: Turns
        self._mailbox: Any = None

    # What is known and written down

    def _take(self, event: Event) -> None:
        follow(self.standing, event)
        self._seen.add(event.id)

    def _record(self, kind: Any, trial: str = "", by: str = "", **content: Any) -> None:
        self._record_all([Entry(kind, trial, by, content)])

    def _record_all(self, entries: list[Entry]) -> int:
        number = self._history.add_all(entries)
        self._catch_up()
        return number

    def _catch_up(self) -> None:
        """Take in what was written since: by this driver, or by people who ask.

        Raises StageFailed when another driver has taken the sweep up.
        """
        # Of two that write at once the lower number may be there later.
        for event in self._history.events(after=max(self._seen, default=0) - OVERLAP):
            if event.id in self._seen:
                continue
            self._take(event)
            if event.kind == "opened" and self._opened and event.id > self._opened:
                raise StageFailed(
                    f"Another driver took up {self.standing.sweep} at {event.at:%H:%M} UTC.",
                    "`sluice trials list RECIPE` shows how it goes on there.",
                )

    def _plan(self) -> dict[str, Any]:
        shared = self._shared
        plan = shared.sweep.model_dump(mode="json") | {
            "rungs": list(self._rungs),
            "num_samples": self._proposals.total,
            "space": space_of(shared.sweep, shared.train),
            "price_per_hour": shared.job.price_per_hour,
            "workers": shared.place.num_workers,
            "concurrent": shared.concurrent,
            "seed": shared.seed,
            "base": shared.job.base["name"],
            "base_fingerprint": shared.job.base["fingerprint"],
            "train": shared.train.model_dump(mode="json"),
            "prior_values": self._prior,
        }
        return plan

    # The loop

    def run(self, run_id: str) -> Standing:
        """Search to the end; how it stands then. `run_id`: the sweep's own tracked run.

        Raises Stopped when that was asked for, StageFailed when its workers find no machines.
        """
        import ray

        if self.standing.closed:
            return self.standing
        self._mailbox = open_mailbox()
        self._opened = self._record_all([Entry("opened", "", "", self._plan() | {"run_id": run_id})])
        # No more than there are trials for.
        wanted = min(self._shared.concurrent, self.standing.plan["num_samples"])
        self._turns = Turns(self._shared, self._rungs, wanted, self._mailbox)
        waiting_since = time.monotonic()
        try:
            while True:
                for event in ray.get(self._mailbox.take.remote()):
                    self._on_event(event)
                self._poll()
                for name, result, place in self._turns.ended():
                    self._note(self.standing.trials[name], result, place)
                ready = self._turns.ready()
                if ready:
                    waiting_since = time.monotonic()
                elif time.monotonic() - waiting_since > self._shared.place.start_timeout_s:
                    raise no_room(self._shared.place)
                if not self._stopping:
                    self._propose()
                    self._decide()
                    for group in ready:
                        self._turns.give(group, self._next_trials())
                pending = self._turns.pending
                if not pending and self._stopping:
                    raise Stopped("Sweep stopped: stop requested.", "Run the same command again to go on from there.")
                if not pending and not self._next_trials() and not self._more():
                    break
                ray.wait(pending, num_returns=1, timeout=POLL_S) if pending else time.sleep(POLL_S)
            for event in ray.get(self._mailbox.take.remote()):
                self._on_event(event)
        finally:
            self._turns.close()
        because = self._over or "all trials have ended"
        self._catch_up()
        for request in list(self.standing.open_requests):
            self._record("answered", request.trial, request=request.id, problem=f"The sweep is over: {because}.")
        self._record("closed", because=because)
        return self.standing

    def _poll(self) -> None:
        """What people want: the whole sweep stopped, or something of its trials."""
        import ray

        now = time.monotonic()
        if now - self._stop_polled > STOP_POLL_S and not self._stopping:
            self._stop_polled = now
            if stop_requested(self._workspace):
                self._stopping = True
                ray.get(self._mailbox.ask_stop.remote())
        if now - self._asked_at > ASK_POLL_S:
            self._asked_at = now
            self._catch_up()
            for request in list(self.standing.open_requests):
                self._answer(request)
        self._over = self._over or self._spent_budget()

    def _spent_budget(self) -> str:
        plan, shared = self.standing.plan, self._shared
        hours = (self._spent_before + time.monotonic() - self._began) / 3600
        if plan.get("max_hours") is not None and hours >= plan["max_hours"]:
            return f"sweep.max_hours {plan['max_hours']:g} was spent"
        price = shared.job.price_per_hour
        if plan.get("max_cost") is not None and price is not None:
            cost = self.standing.seconds / 3600 * shared.place.num_workers * price
            if cost >= plan["max_cost"]:
                return f"sweep.max_cost {plan['max_cost']:g} was spent"
        return ""

    def _answer(self, request: Event) -> None:
        action, trial, problem = request.content["action"], request.trial, ""
        try:
            entries = consequences(self.standing, self._shared, request)
        except UserError as error:
            problem, entries = f"{error.message} {error.remedy or ''}".strip(), []
        # Done and answered at once, or after a death it would be done twice.
        self._record_all([*entries, Entry("answered", trial, "", {"request": request.id, "problem": problem})])
        if problem:
            return
        if action == "stop":
            self._end(trial, "stopped", f"by {request.by}" if request.by else "by hand")
        if action == "extend":
            self._over = ""
        self._progress.say(f"{action} {trial}: done, as {request.by} asked.".replace(" :", ":"))

    # Proposals and decisions

    def _searched(self) -> list[Trial]:
        return [trial for trial in self.standing.trials.values() if trial.origin in ("default", "prior", "search")]

    def _propose(self) -> None:
        """The next round, once the one before has ended."""
        searched = self._searched()
        left = self.standing.plan["num_samples"] - len(searched)
        if self._over or left <= 0 or any(trial.state in ("waiting", "running") for trial in searched):
            return
        entries, first = list[Entry](), len(self.standing.trials) + 1
        for number in range(first, first + self._proposals.round_size(left)):
            if (proposal := self._proposals.propose(f"trial-{number}")) is None:
                break
            content = {"values": proposal.values, "origin": proposal.origin}
            entries.append(Entry("proposed", f"trial-{number}", "", content))
        if entries:
            # A round is judged together: it is there as a whole, or not at all.
            self._record_all(entries)
        for entry in entries:
            try:
                trial_train(self._shared, entry.content["values"])
            except UserError as error:
                self._end(entry.trial, "failed", error.message)

    def _alive(self) -> list[Trial]:
        return [trial for trial in self.standing.trials.values() if trial.state in ("waiting", "running")]

    def _decide(self) -> None:
        """Let trials that stand at a rung go on or end, once everyone who is on the way is there."""
        for trial in self._alive():
            if trial.step >= self._rungs[-1]:
                # The driver before this one died in between.
                self._end(trial.trial, "finished", "the last step")
        alive = [trial for trial in self._alive() if trial.origin != "seed"]
        curves = {
            trial.trial: [(chunk.step, chunk.loss) for chunk in trial.chunks]
            for trial in self.standing.trials.values()
            if trial.origin != "seed"
        }
        for rung in self._rungs[:-1]:
            if any(self._turns.position(trial) < rung for trial in alive):
                break
            # All verdicts on what is known now, then their consequences.
            due = [trial for trial in alive if self._due_at(trial) == rung and trial.loss_at(rung) is not None]
            verdicts = {trial.trial: stops(self._shared.sweep, trial.trial, rung, curves) for trial in due}
            for name, because in verdicts.items():
                if because:
                    self._end(name, "stopped", because)
                else:
                    self._passed[name] = rung
            alive = [trial for trial in alive if trial.state in ("waiting", "running")]
        if len(alive) == 1 and self._is_decided(alive[0]):
            self._end(alive[0].trial, "finished", "the only one left: further steps decide nothing")

    def _is_decided(self, last: Trial) -> bool:
        """Whether the search is over though its last trial could go on: nobody is ahead of it or may still come."""
        others = [trial for trial in self.standing.trials.values() if trial is not last]
        return (
            bool(last.chunks)
            and self._turns.position(last) == self._passed.get(last.trial)
            and last.origin != "clone"
            and not self._shared.sweep.confirm_seeds
            and len(self._searched()) >= self.standing.plan["num_samples"]
            and not any(trial.state == "paused" or trial.step > last.step for trial in others)
            and len(others) > 0
        )

    def _due_at(self, trial: Trial) -> int:
        """The rung at which the trial waits for a verdict; 0 when it does not."""
        at = self._turns.position(trial)
        # A clone was asked for: it is not judged by the loss that it begins with.
        begun = trial.begins and (trial.chunks[0].step if trial.chunks else at)
        waits = at in self._rungs[:-1] and trial.origin != "seed" and max(self._passed.get(trial.trial, 0), begun) < at
        return at if waits else 0

    def _end(self, name: str, how: str, because: str) -> None:
        trial = self.standing.trials[name]
        curve = [(chunk.step, chunk.loss) for chunk in trial.chunks]
        self._record("ended", name, how=how, because=because)
        self._proposals.learn(name, curve, how, trial.chunks[-1].step_seconds if trial.chunks else 0.0)
        self._turns.drop(name)
        self._on_event({"kind": "ended", "label": name, "time": time.time(), "failed": how == "failed"})

    def _more(self) -> bool:
        """Whether there is more to try when nobody is left to have a turn: proofs and further seeds."""
        if not self._over:
            if self.standing.plan["num_samples"] > len(self._searched()) and self._shared.sweep.search != "grid":
                return True
            if clone := unproven_clone(self.standing):
                self._progress.say(f"{clone.trial} leads, from its parent's weights: its values are run from the base.")
                self._record_all([new_trial(self.standing, self._shared, clone.values, "seed", parent=clone.trial)])
                return True
            wanted = to_confirm(self.standing, self._shared.sweep.confirm_seeds, self._shared.seed)
            if wanted:
                again = [
                    new_trial(self.standing, self._shared, trial.values, "seed", number, parent=trial.trial, seed=seed)
                    for number, (trial, seed) in enumerate(wanted)
                ]
                self._record_all(again)
                return True
            if paused := [trial.trial for trial in self.standing.trials.values() if trial.state == "paused"]:
                if not self._told_paused:
                    self._progress.say(f"Only paused trials are left ({', '.join(paused)}): resume or stop them.")
                self._told_paused = True
                return True
            self._told_paused = False
        for trial in self.standing.trials.values():
            if trial.state not in ENDED:
                assert self._over, f"{trial.trial} is left without a turn"
                self._end(trial.trial, "stopped", self._over)
        return False

    # Who is next, and what came of it

    def _next_trials(self) -> list[Trial]:
        """Those that may have a turn, the one that has learnt least first."""
        if self._over or self._stopping:
            return []
        busy = self._turns.busy
        free = [trial for trial in self._alive() if trial.trial not in busy and not self._due_at(trial)]
        # A clone first of all: its parent's weights of that step are there now.
        return sorted(
            free, key=lambda trial: (trial.origin != "clone" or bool(trial.chunks), self._turns.position(trial))
        )

    def _note(self, trial: Trial, result: dict[str, Any], place: str) -> None:
        """Write down how a chunk went. What it took counts whatever came of it."""
        name, status = trial.trial, result["status"]
        turn = {"began": result.get("began", time.time()), "seconds": result.get("seconds", 0.0), "place": place}
        lost = any(not math.isfinite(entry["validation_loss"]) for entry in result.get("rungs", ()))
        new = [entry for entry in result.get("rungs", ()) if entry["step"] > trial.step]
        if trial.state in ENDED or status in ("failed", "crashed") or lost or not new:
            self._record("turn", name, **turn)
        if trial.state in ENDED:
            return
        died = bool(result.get("died"))
        if status == "crashed" and (trial.deaths < DEATHS if died else trial.retries < RETRIES):
            self._record("retried", name, cause=result["cause"], died=died)
            self._progress.say(f"{name} broke off ({result['cause']}): once more, from its last checkpoint.")
        elif status in ("failed", "crashed") or lost:
            cause = result["cause"] or f"its validation loss is no number at step {result['step']}"
            self._end(name, "failed", cause)
            self._progress.say(f"{name} failed: {cause}")
        else:
            self._record_rungs(name, new, result, turn)
            if trial.step >= self._rungs[-1]:
                self._end(name, "finished", "the last step")

    def _record_rungs(self, name: str, new: list[dict[str, Any]], result: dict[str, Any], turn: dict[str, Any]) -> None:
        entries = []
        for number, entry in enumerate(new, start=1):
            last = number == len(new)
            content = turn | {
                "step": entry["step"],
                "loss": entry["validation_loss"],
                "train_loss": entry["train_loss"],
                "losses": result["losses"] if last else [],
                "step_seconds": result["step_seconds"],
                "seconds": turn["seconds"] if last else 0.0,
            }
            entries.append(Entry("rung", name, "", content))
        if entries:
            self._record_all(entries)
