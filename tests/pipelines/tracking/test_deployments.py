"""The deployment log: the newest row counts, and no row is ever changed."""

import pytest

from pipelines.tracking import deployments


def add(workspace, recipe_name="small", version="1"):
    return deployments.append(
        workspace,
        recipe_name=recipe_name,
        action="promote",
        model_name=recipe_name,
        model_version=version,
        content={"train": {"model": f"/models/{version}"}},
        by="jane",
    )


def test_nothing_is_in_production_at_first(workspace):
    assert deployments.current(workspace, "small") is None
    assert deployments.history(workspace) == []


def test_the_newest_row_of_a_recipe_is_in_production(workspace):
    add(workspace, version="1")
    add(workspace, "other", "7")
    newest = add(workspace, version="2")
    assert deployments.current(workspace, "small").id == newest.id
    assert deployments.current(workspace, "other").model_version == "7"


def test_the_history_is_newest_first_and_by_recipe(workspace):
    for version in ("1", "2", "3"):
        add(workspace, version=version)
    add(workspace, "other", "7")
    assert [row.model_version for row in deployments.history(workspace, "small")] == ["3", "2", "1"]
    assert [row.model_version for row in deployments.history(workspace, limit=2)] == ["7", "3"]


def test_the_log_has_no_way_to_change_or_remove_a_row():
    public = {name for name in vars(deployments) if name.islower() and not name.startswith("_")}
    assert public & {"update", "delete", "remove", "edit"} == set()
    assert {"append", "current", "history"} <= public


@pytest.mark.parametrize("content", [{"waivers": [{"by": "ada", "because": "ünïcode \U0001f600"}]}, {}])
def test_content_comes_back_as_it_was_written(workspace, content):
    row = deployments.append(
        workspace,
        recipe_name="small",
        action="promote",
        model_name="small",
        model_version="1",
        content=content,
        by="jane",
    )
    assert deployments.current(workspace, "small").content == content
    assert row.created_at.tzinfo is not None
