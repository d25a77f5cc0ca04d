import pytest

from tests.ui.panel import seed
from ui.panel import backend


@pytest.fixture
def reports(workspace):
    return seed.fill_pipeline(workspace)


def test_an_empty_workspace_has_no_recipe(workspace):
    known = backend.recipes()
    assert known.value == []
    assert known.problem is None


def test_a_recipe_without_a_report_has_no_pipeline(workspace):
    known = backend.pipeline("nothing")
    assert (known.value, known.problem) == (None, None)


def test_recipes_come_with_their_newest_report_first(workspace, reports):
    workspace.save_report(seed.audit_report(recipe=seed.resolved_recipe("other")))
    assert [(r.name, r.stage, r.verdict) for r in backend.recipes().value] == [
        ("other", "audit", "closed"),
        ("docstrings", "evaluate", "open"),
    ]


def test_the_pipeline_holds_each_stage_with_its_state(workspace, reports):
    pipeline = backend.pipeline("docstrings").value
    assert {stage.name: stage.state for stage in pipeline.stages} == {
        "audit": "waived",
        "split": "open",
        "sweep": "open",
        "train": "open",
        "evaluate": "open",
        "promote": "not_yet",
    }
    assert pipeline.stage("audit").report.waivers[0].by == "Jane Doe"
    assert not any(stage.changed for stage in pipeline.stages)


def test_a_closed_gate_closes_its_stage(workspace):
    workspace.save_report(seed.audit_report())
    assert backend.pipeline("docstrings").value.stage("audit").state == "closed"


def test_a_recipe_without_a_sweep_says_so(workspace):
    workspace.save_report(seed.audit_report(recipe=seed.resolved_recipe(sweep=None)))
    assert backend.pipeline("docstrings").value.stage("sweep").state == "not_in_recipe"


def test_a_report_on_earlier_inputs_is_marked_with_what_changed(workspace, reports):
    workspace.save_report(seed.audit_report(fingerprints={"dataset": "e" * 64}))
    pipeline = backend.pipeline("docstrings").value
    # The split once read the audit by its key, and its data have not changed since: both are named.
    assert pipeline.stage("split").changed == ("audit", "dataset")
    assert pipeline.stage("audit").changed == ()


def test_a_report_is_found_by_its_key_with_its_waivers(workspace, reports):
    found = backend.report(reports["audit"].key).value
    assert found.stage == "audit"
    assert found.verdict == "waived"
    assert backend.report("0" * 64).value is None


def test_comparisons_start_with_the_primary_metric_and_conclude_from_the_interval(workspace, reports):
    rows = {row.metric: row for row in backend.comparisons(reports["evaluate"])}
    assert next(iter(rows)) == "rougeL"
    assert rows["rougeL"].conclusion == "better"
    assert rows["loss"].conclusion == "better"
    assert rows["bleu"].conclusion == "undecided"
    assert rows["perplexity"].conclusion == ""


@pytest.mark.parametrize(
    ("metric", "low", "high", "conclusion"),
    [
        ("loss", 0.1, 0.2, "worse"),
        ("loss", -0.2, -0.1, "better"),
        ("rougeL", -0.2, -0.1, "worse"),
        ("rougeL", 0.0, 0.1, "undecided"),
    ],
)
def test_an_interval_that_touches_zero_decides_nothing(metric, low, high, conclusion):
    report = seed.make_report(
        "evaluate",
        [],
        figures={
            "candidates": {"base": {metric: 1.0}, "tuned": {metric: 1.0}},
            "comparisons": {metric: {"difference": (low + high) / 2, "low": low, "high": high, "n": 9}},
        },
    )
    assert backend.comparisons(report)[0].conclusion == conclusion


def test_deployments_come_newest_first(workspace):
    seed.deploy(workspace, "1")
    seed.deploy(workspace, "2")
    assert [row.model_version for row in backend.deployments("docstrings").value] == ["2", "1"]


@pytest.mark.sqlite
def test_a_database_that_goes_away_leaves_the_last_pipeline_and_is_found_again(workspace, reports, tmp_path):
    before = backend.pipeline("docstrings")
    assert before.problem is None
    backend.workspace().database.dispose()
    workspace.database.dispose()
    (tmp_path / "workspace").rename(tmp_path / "elsewhere")
    away = backend.pipeline("docstrings")
    assert away.value == before.value
    assert away.read_at == before.read_at
    assert "SLUICE_DATABASE" in away.problem.remedy
    (tmp_path / "elsewhere").rename(tmp_path / "workspace")
    again = backend.pipeline("docstrings")
    assert again.problem is None
    assert again.read_at > before.read_at
