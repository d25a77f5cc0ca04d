"""The winner among trials."""

from pipelines.search.trials import TrialResult, find_winner


def trial(name, loss, steps=10, stopped="the last step"):
    return TrialResult(name, {}, loss, steps, stopped, 1.0)


def test_the_lowest_loss_at_the_last_step_wins():
    assert find_winner([trial("a", 2.0), trial("b", 1.5), trial("c", 1.9)]).trial == "b"


def test_an_early_loss_is_no_rival_of_one_at_the_end():
    assert find_winner([trial("early", 1.0, steps=5, stopped="asha stopped it"), trial("end", 1.5)]).trial == "end"


def test_a_failed_trial_never_wins():
    failed = trial("failed", 0.1, steps=10, stopped="failed: diverged")
    assert find_winner([failed, trial("end", 1.5)]).trial == "end"
    assert find_winner([failed, trial("none", None, steps=0, stopped="failed")]) is None
    assert find_winner([]) is None


def test_a_loss_that_is_no_number_wins_nothing():
    assert find_winner([trial("nan", float("nan")), trial("end", 2.0)]).trial == "end"
    assert find_winner([trial("nan", float("nan"))]) is None
