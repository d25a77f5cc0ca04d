"""Lineage: every ancestor by its key, and the files it speaks of."""

import pytest

from pipelines.gates import Verdict
from pipelines.recipe_file import load_recipe
from pipelines.tracking.lineage import ancestors, lineage, lineage_gate, model_problem

SWEEP = {"space": {"learning_rate": {"choice": [1e-4, 2e-4]}}}


@pytest.fixture
def recipe(recipe_file):
    return load_recipe(recipe_file())


def test_without_reports_every_ancestor_is_missing(chain, recipe):
    found = ancestors(recipe, chain.workspace)
    assert found == {"audit": None, "split": None, "train": None, "evaluate": None}
    gate = lineage_gate(found, chain.workspace)
    assert gate.verdict is Verdict.CLOSED
    assert "audit has no report; split has no report" in gate.evidence


def test_ancestors_are_those_of_the_present_inputs(chain, recipe):
    reports = chain.perform(recipe)
    assert [report.key for report in ancestors(recipe, chain.workspace).values()] == [r.key for r in reports]
    chain.weights = "other weights"
    assert ancestors(recipe, chain.workspace)["train"] is None


def test_a_sweep_is_an_ancestor_where_the_recipe_has_one(chain, recipe_file):
    assert "sweep" in ancestors(load_recipe(recipe_file(sweep=SWEEP)), chain.workspace)


def test_a_closed_ancestor_closes_the_gate(chain, recipe):
    chain.closed.add("evaluate")
    chain.perform(recipe)
    gate = lineage_gate(ancestors(recipe, chain.workspace), chain.workspace)
    assert gate.verdict is Verdict.CLOSED
    assert "evaluate is closed" in gate.evidence


def test_the_lineage_names_data_recipe_and_every_report(chain, recipe):
    reports = {report.stage: report for report in chain.perform(recipe)}
    content = lineage(recipe, reports)
    assert content["data"] == reports["split"].produced
    assert content["recipe"]["name"] == "small"
    assert content["reports"]["train"]["gates"] == {"train.rule": "open"}
    assert content["train"]["model_fingerprint"] == reports["train"].produced["model_fingerprint"]


def test_whole_missing_and_changed_models_are_told_apart(chain, recipe):
    produced = next(report.produced for report in chain.perform(recipe) if report.stage == "train")
    file = chain.model_folder() / "adapter_model.safetensors"
    assert model_problem(chain.workspace, produced) == ""
    file.write_text("changed")
    assert "not those that were trained" in model_problem(chain.workspace, produced)
    file.unlink()
    assert "are gone" in model_problem(chain.workspace, produced)
    chain.model_folder().rmdir()
    assert "are gone" in model_problem(chain.workspace, produced)
    assert "cannot be read" in model_problem(chain.workspace, produced | {"model": "nowhere://bucket/model"})
