"""Promotion: what is registered, what keeps it closed, and that twice is once."""

import json
from datetime import UTC, datetime

import pytest

from cluster.errors import GateClosed
from pipelines.gates import Verdict, Waiver
from pipelines.promote import STAGE
from pipelines.recipe_file import load_recipe
from pipelines.tracking import deployments, registry


@pytest.fixture
def recipe(recipe_file):
    return load_recipe(recipe_file())


def test_promotion_without_an_evaluation_names_the_missing_evidence(chain, recipe):
    with pytest.raises(GateClosed, match="there is no audit report"):
        STAGE.perform(recipe, chain.workspace)


def test_a_promoted_model_is_registered_with_its_lineage_and_is_the_champion(chain, recipe):
    reports = {report.stage: report for report in chain.perform(recipe)}

    report = STAGE.perform(recipe, chain.workspace)

    assert report.verdict is Verdict.OPEN
    assert registry.champion(chain.workspace.settings, "small") == report.produced["model_version"] == "1"
    tags = registry.version_tags(chain.workspace.settings, "small", "1")
    assert json.loads(tags["sluice.data"])["split"] == reports["split"].produced["split"]
    # The recipe as it was trained: with what a sweep put into it.
    trained = reports["train"].figures["resolved_train"]
    assert json.loads(tags["sluice.recipe"]) == recipe.model_dump(mode="json") | {"train": trained}
    assert {stage: held["key"] for stage, held in json.loads(tags["sluice.reports"]).items()} == {
        stage: held.key for stage, held in reports.items()
    }
    row = deployments.current(chain.workspace, "small")
    assert (row.action, row.by, row.model_version) == ("promote", "jane", "1")
    assert row.content["train"] == reports["train"].produced


def test_promoting_twice_adds_one_version_and_one_deployment(chain, recipe):
    chain.perform(recipe)
    first = STAGE.perform(recipe, chain.workspace)
    again = STAGE.perform(recipe, chain.workspace)
    afresh = STAGE.perform(recipe, chain.workspace, fresh=True)

    assert first.produced == again.produced == afresh.produced
    assert len(deployments.history(chain.workspace, "small")) == 1


def test_a_waiver_travels_with_the_model(chain, recipe):
    chain.closed.add("evaluate")
    evaluation = chain.perform(recipe)[-1]
    with pytest.raises(GateClosed, match=r"evaluate\.rule is closed"):
        STAGE.perform(recipe, chain.workspace)
    waiver = Waiver(
        gate="evaluate.rule",
        report=evaluation.key,
        by="ada",
        because="the pilot needs it",
        until=datetime(2999, 1, 1, tzinfo=UTC),
        created_at=datetime.now(UTC),
    )
    chain.workspace.save_waiver(waiver)

    STAGE.perform(recipe, chain.workspace)

    (kept,) = deployments.current(chain.workspace, "small").content["waivers"]
    assert (kept["stage"], kept["gate"], kept["by"], kept["because"]) == (
        "evaluate",
        "evaluate.rule",
        "ada",
        "the pilot needs it",
    )
    assert kept["until"].startswith("2999-01-01")
    assert "ada" in registry.version_tags(chain.workspace.settings, "small", "1")["sluice.waivers"]


def test_changed_weights_close_the_gate_and_nothing_is_registered(chain, recipe):
    chain.perform(recipe)
    (chain.model_folder() / "adapter_model.safetensors").write_text("other weights")

    report = STAGE.perform(recipe, chain.workspace)

    assert report.verdict is Verdict.CLOSED
    assert "not those that were trained" in report.gates[0].evidence
    assert registry.champion(chain.workspace.settings, "small") is None
    assert deployments.current(chain.workspace, "small") is None


def test_missing_weights_close_the_gate(chain, recipe):
    chain.perform(recipe)
    (chain.model_folder() / "adapter_model.safetensors").unlink()

    assert "are gone" in STAGE.perform(recipe, chain.workspace).gates[0].evidence


def test_weights_that_are_back_are_promoted(chain, recipe):
    chain.perform(recipe)
    file = chain.model_folder() / "adapter_model.safetensors"
    weights = file.read_text()
    file.unlink()
    assert STAGE.perform(recipe, chain.workspace).verdict is Verdict.CLOSED
    file.write_text(weights)
    assert STAGE.perform(recipe, chain.workspace).verdict is Verdict.OPEN
    assert registry.champion(chain.workspace.settings, "small") == "1"


def test_data_that_changed_since_the_evaluation_open_nothing(chain, recipe):
    chain.perform(recipe)
    chain.data = "data 2"
    with pytest.raises(GateClosed, match="the last audit report is on other inputs"):
        STAGE.perform(recipe, chain.workspace)


def test_another_model_becomes_the_next_version_and_takes_the_alias(chain, recipe):
    chain.perform(recipe)
    STAGE.perform(recipe, chain.workspace)
    chain.weights = "weights 2"
    chain.perform(recipe)

    report = STAGE.perform(recipe, chain.workspace)

    assert report.figures["replaces"] == "1"
    assert registry.champion(chain.workspace.settings, "small") == "2"
    assert [row.model_version for row in deployments.history(chain.workspace, "small")] == ["2", "1"]


def test_going_back_to_an_earlier_model_promotes_it_again(chain, recipe):
    chain.perform(recipe)
    STAGE.perform(recipe, chain.workspace)
    chain.weights = "weights 2"
    chain.perform(recipe)
    STAGE.perform(recipe, chain.workspace)
    chain.weights = "weights 1"
    chain.perform(recipe)

    STAGE.perform(recipe, chain.workspace)

    assert registry.champion(chain.workspace.settings, "small") == "1"
    assert [row.model_version for row in deployments.history(chain.workspace, "small")] == ["1", "2", "1"]


def test_a_recipe_of_another_name_gets_its_own_reports_and_its_own_deployment(chain, recipe):
    chain.perform(recipe)
    STAGE.perform(recipe, chain.workspace)
    second = recipe.model_copy(update={"name": "second"})

    reports = chain.perform(second)
    STAGE.perform(second, chain.workspace)

    assert {report.recipe_name for report in reports} == {"second"}
    assert len(chain.workspace.reports(stage="audit", recipe_name="second")) == 1
    chain.perform(second)
    assert len(chain.workspace.reports(stage="audit", recipe_name="second")) == 1
    assert registry.champion(chain.workspace.settings, "second") == "1"
    assert deployments.current(chain.workspace, "second").model_name == "second"
