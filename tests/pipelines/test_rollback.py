"""Rollback: what was in production before is in production again, and the log only grows."""

import shutil

import pytest

from cluster.errors import UserError
from pipelines.promote import STAGE
from pipelines.recipe_file import load_recipe
from pipelines.rollback import rollback
from pipelines.tracking import deployments, registry


@pytest.fixture
def recipe(recipe_file):
    return load_recipe(recipe_file())


@pytest.fixture
def promoted(chain, recipe):
    """Promotes one model after another."""

    def promote(*weights):
        for each in weights:
            chain.weights = each
            chain.perform(recipe)
            STAGE.perform(recipe, chain.workspace)
        return chain

    return promote


def versions(workspace):
    return [row.model_version for row in reversed(deployments.history(workspace, "small"))]


def test_a_rollback_restores_the_one_before_as_a_new_row(promoted):
    workspace = promoted("a", "b").workspace
    first, second = reversed(deployments.history(workspace, "small"))

    row = rollback(workspace, "small", None, "ada", "answers in the wrong language")

    assert (row.action, row.by, row.model_version) == ("rollback", "ada", "1")
    assert row.content["train"] == first.content["train"]
    assert row.content["rollback"] == {
        "restores": first.id,
        "replaces": second.id,
        "because": "answers in the wrong language",
    }
    assert deployments.current(workspace, "small").id == row.id
    assert registry.champion(workspace.settings, "small") == "1"
    assert versions(workspace) == ["1", "2", "1"]


def test_a_second_rollback_goes_further_back_and_not_forth_again(promoted):
    workspace = promoted("a", "b", "c").workspace
    rollback(workspace, "small", None, "ada", "worse")
    rollback(workspace, "small", None, "ada", "still worse")
    assert versions(workspace) == ["1", "2", "3", "2", "1"]
    with pytest.raises(UserError, match="nothing before version 1"):
        rollback(workspace, "small", None, "ada", "and again")


def test_a_named_deployment_is_restored(promoted):
    workspace = promoted("a", "b", "c").workspace
    named = deployments.history(workspace, "small")[-1].id
    assert rollback(workspace, "small", named, "ada", "known good").model_version == "1"


def test_the_first_deployment_has_nothing_before_it(promoted):
    workspace = promoted("a").workspace
    with pytest.raises(UserError, match="nothing before version 1"):
        rollback(workspace, "small", None, "ada", "no reason")


def test_a_recipe_that_was_never_deployed_is_named(chain):
    with pytest.raises(UserError, match="small was never deployed"):
        rollback(chain.workspace, "small", None, "ada", "no reason")


def test_an_unknown_deployment_is_named_with_those_there_are(promoted):
    workspace = promoted("a").workspace
    with pytest.raises(UserError, match="no deployment 99") as caught:
        rollback(workspace, "small", 99, "ada", "no reason")
    assert "1 (version 1, promote)" in caught.value.remedy


def test_the_deployment_in_production_is_not_restored_over_itself(promoted):
    workspace = promoted("a").workspace
    with pytest.raises(UserError, match="is what is in production"):
        rollback(workspace, "small", deployments.current(workspace, "small").id, "ada", "no reason")


def test_a_model_whose_files_are_gone_is_refused_and_the_champion_stays(promoted, recipe):
    chain = promoted("a", "b")
    shutil.rmtree(deployments.history(chain.workspace, "small")[-1].content["train"]["model"])

    with pytest.raises(UserError, match="are gone"):
        rollback(chain.workspace, "small", None, "ada", "worse")

    assert registry.champion(chain.workspace.settings, "small") == "2"
    assert versions(chain.workspace) == ["1", "2"]


def test_a_rollback_needs_a_name_and_a_reason(promoted):
    workspace = promoted("a", "b").workspace
    for by, because in (("", "worse"), ("ada", " ")):
        with pytest.raises(UserError, match="who decided it and why"):
            rollback(workspace, "small", None, by, because)


def test_promoting_the_same_model_after_a_rollback_is_a_new_decision(promoted, recipe):
    chain = promoted("a", "b")
    rollback(chain.workspace, "small", None, "ada", "worse")

    STAGE.perform(recipe, chain.workspace)
    STAGE.perform(recipe, chain.workspace)

    assert versions(chain.workspace) == ["1", "2", "1", "2"]
    assert registry.champion(chain.workspace.settings, "small") == "2"
