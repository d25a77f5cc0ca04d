"""Budgets of time and money."""

import pytest

from pipelines.training.budget import Budget
from pipelines.training.verdicts import budget_findings


def test_a_budget_counts_all_workers_and_names_itself():
    budget = Budget(max_hours=2, max_cost=10, price_per_hour=3)
    assert budget.cost(4 * 1800) == 6.0
    assert budget.ended(1800, 4 * 1800) == ""
    assert budget.ended(3000, 4 * 3000) == "max_cost"
    assert Budget(max_hours=2).ended(7200, 7200) == "max_hours"
    assert Budget().ended(1e12, 1e12) == ""
    assert "12 (train.max_cost) at 3 per worker-hour" in Budget(max_cost=12, price_per_hour=3).described("max_cost")


@pytest.mark.cluster
@pytest.mark.usefixtures("process_group")
def test_a_spent_budget_ends_the_run_with_a_validation_and_counts_what_was_spent_before(make_job, run, monkeypatch):
    from pipelines.training import worker

    clock = [0.0]
    monkeypatch.setattr(worker.time, "monotonic", lambda: clock[0])
    # Every reading of a step's loss is a minute later.
    real = worker.Readings.read
    monkeypatch.setattr(worker.Readings, "read", lambda self: clock.__setitem__(0, clock[0] + 60) or real(self))
    settings = {"max_steps": 12, "eval_steps": 12, "max_cost": 1.0}
    job = make_job("budget", settings, price_per_hour=12.0)

    stopped, _ = run(job, stop_at=2)
    assert stopped["status"] == "stopped"
    outcome, heard = run(job)

    assert heard.of("resumed") == [2]
    assert (outcome["status"], outcome["step"], outcome["ended_by"]) == ("finished", 5, "max_cost")
    assert outcome["cost"] == pytest.approx(1.0)
    assert heard.of("validation") == [5]
    assert outcome["kept_step"] == 5
    assert "the budget of 1 (train.max_cost)" in outcome["stopped_because"]
    [finding] = budget_findings(outcome, 12)
    assert finding.message.startswith("Training ended at step 5 of 12: the budget")
    assert "train.max_cost" in finding.remedy
