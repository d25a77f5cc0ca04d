"""What was said in blind comparisons: the first word counts, and only of the version that is hosted."""

import pytest

from pipelines.records import FeedbackRow, InteractionRow
from pipelines.tracking import deployments
from tests.serve.test_interactions import row
from ui.panel import blind
from ui.panel.blind import Tally
from ui.panel.gateway import Answer


@pytest.fixture
def asked(workspace):
    """`asked(question, (side, kind), ...)`: two answers to a question, and what was said of them, in that order.

    In production is version 2.
    """
    deployments.append(
        workspace, recipe_name="small", action="promote", model_name="small", model_version="2", content={}, by="ada"
    )

    def add(question, *said, version="2", recipe_name="small"):
        with workspace.session() as session:
            for side in ("base", "tuned"):
                columns = {"recipe_name": recipe_name, "unit": question, "arm": side, "model_version": version}
                session.add(InteractionRow(**row(f"{question}-{side}", **columns)))
        for side, kind in said:
            with workspace.session() as session:
                session.add(FeedbackRow(request_id=f"{question}-{side}", kind=kind))
        return {side: Answer("text", "done", f"{question}-{side}") for side in ("base", "tuned")}

    return add


def test_the_first_word_about_each_question_counts(asked):
    asked("one", ("tuned", "preferred"), ("base", "preferred"))
    asked("two", ("tuned", "thumb_up"), ("base", "preferred"))
    asked("three", ("base", "tied"), ("tuned", "preferred"))
    asked("four", ("tuned", "preferred"))
    asked("five", ("tuned", "thumb_up"))
    assert blind.tally("small").value == Tally(base=1, tuned=2, tied=1)


def test_other_versions_and_recipes_count_for_themselves(asked):
    asked("one", ("tuned", "preferred"), version="1")
    asked("two", ("tuned", "preferred"), version=None)
    asked("three", ("base", "preferred"), recipe_name="other")
    assert blind.tally("small").value == Tally()
    # Served without a log of deployments: no version is known.
    assert blind.tally("unknown").value == Tally()
    asked("four", ("tuned", "preferred"), version=None, recipe_name="unknown")
    blind.backend.known.clear()
    assert blind.tally("unknown").value == Tally(tuned=1)


def test_the_judgement_of_two_answers_is_the_first(asked):
    assert blind.judgement(asked("one")).value is None
    assert blind.judgement(asked("two", ("tuned", "flag"), ("base", "preferred"), ("base", "tied"))).value == "base"
    assert blind.judgement(asked("three", ("base", "tied"))).value == "tied"


def test_what_is_chosen_after_the_first_choice_is_not_kept(asked, service, workspace, monkeypatch):
    monkeypatch.setenv("SLUICE_GATEWAY", service)
    answers = asked("one", recipe_name="docstrings")
    for chosen in ("tuned", "base", "tied"):
        assert blind.judge(answers, chosen) is None
    with workspace.session() as session:
        assert [(row.request_id, row.kind) for row in session.query(FeedbackRow)] == [("one-tuned", "preferred")]
    assert blind.judgement(answers).value == "tuned"


def test_the_sentence_tells_share_interval_and_equals():
    assert Tally(base=3, tuned=7, tied=2).sentence == "tuned preferred in 7 of 10 (27% to 96%); 2 equally good"
    assert Tally(tied=2).sentence == "2 equally good, none preferred"


def test_the_order_is_as_good_as_drawn_and_stays():
    orders = [blind.order(f"chat-{number}") for number in range(2000)]
    assert 0.45 < sum(one[0] == "base" for one in orders) / 2000 < 0.55
    assert orders == [blind.order(f"chat-{number}") for number in range(2000)]
    assert {frozenset(one) for one in orders} == {frozenset(("base", "tuned"))}
