"""Running a stage from a command line: output, exit codes, errors."""

import json
import os

import pytest

from cluster.errors import GateClosed, UserError
from pipelines.commands import own_standard_output, run_stage
from pipelines.gates import Finding, decide
from pipelines.stage import Outcome, Stage


@pytest.fixture
def stage():
    """A stage whose gate is open exactly for even seeds, and that is noisy on every channel."""

    def reads(recipe, workspace):
        if recipe.seed == 99:
            raise GateClosed("there is no evidence.", "Bring some.")
        return {"seed": str(recipe.seed)}

    def work(recipe, workspace, progress, fresh):
        print("a library prints")
        os.write(1, b"a worker of C++ prints\n")
        progress.say("[bold]working[/bold]")
        finding = Finding(
            code="data.size.few",
            severity="error",
            message="7 of 10 [red]rows[/red]",
            count=3,
            samples=({"text": "[link=x]markup[/link]"},),
            remedy="Bring more.",
        )
        gate = decide("data.size", recipe.seed % 2 == 0, "7 of [b]10[/b].")
        return Outcome(gates=(gate,), findings=(finding,), figures={"fresh": fresh})

    return Stage("sift", "Sifts.", ("data.size",), reads, work)


@pytest.fixture
def run(stage, workspace, capfd):
    def run(*arguments):
        code = run_stage(stage, [str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


def test_an_open_gate_exits_0_and_a_closed_one_3(run, recipe_file):
    assert run(recipe_file(), "seed=2")[0] == 0
    assert run(recipe_file(), "seed=3")[0] == 3


def test_missing_evidence_exits_3_with_what_to_do(run, recipe_file):
    code, out, err = run(recipe_file(), "seed=99")
    assert code == 3 and out == ""
    assert err == "sluice: there is no evidence.\n  -> Bring some.\n"


def test_a_wrong_request_exits_2_without_a_traceback(run, recipe_file, tmp_path):
    code, out, err = run(recipe_file(train={"learning_rat": 1}))
    assert code == 2 and out == "" and "Traceback" not in err and "did you mean learning_rate?" in err
    assert run(tmp_path / "nowhere.yaml")[0] == 2


def test_json_prints_the_report_alone(run, recipe_file):
    code, out, err = run(recipe_file(), "--json", "seed=3")
    report = json.loads(out)
    assert code == 3
    assert (report["stage"], report["verdict"]) == ("sift", "closed")
    assert report["gates"] == [{"gate": "data.size", "verdict": "closed", "evidence": "7 of [b]10[/b]."}]
    assert set(report["findings"][0]) == {"code", "severity", "message", "count", "samples", "remedy"}
    assert report["fingerprints"] == {"seed": "3"}
    assert "a library prints" in err and "a worker of C++ prints" in err and "[bold]working[/bold]" in err


def test_json_says_what_went_wrong_too(run, recipe_file):
    code, out, err = run(recipe_file(), "--json", "seed=99")
    assert code == 3
    assert json.loads(out) == {"verdict": "error", "message": "there is no evidence.", "remedy": "Bring some."}
    assert "there is no evidence." in err


def test_arguments_stand_in_any_order(run, recipe_file):
    path = recipe_file()
    keys = {
        json.loads(run(*arguments)[1])["key"]
        for arguments in (("--json", "seed=2", path), (path, "--json", "seed=2"), ("seed=2", path, "--json"))
    }
    assert len(keys) == 1


def test_a_recipe_whose_name_holds_an_equals_sign_is_still_the_recipe(run, recipe_file):
    assert run("seed=2", recipe_file(path="a=b.yaml"))[0] == 0


def test_an_override_without_a_value_is_refused_by_name(run, recipe_file):
    code, _, err = run(recipe_file(), "seed")
    assert code == 2 and "'seed' is no override" in err


def test_fresh_reaches_the_work_and_otherwise_the_stored_report_is_shown(run, recipe_file):
    path = recipe_file(seed=2)
    assert json.loads(run(path, "--json")[1])["figures"] == {"fresh": False}
    again = run(path, "--json")
    assert json.loads(again[1])["figures"] == {"fresh": False} and "nothing changed since" in again[2]
    assert json.loads(run(path, "--json", "--fresh")[1])["figures"] == {"fresh": True}


def test_a_dry_run_prints_the_resolved_recipe_and_does_nothing(run, recipe_file, workspace):
    code, out, _ = run(recipe_file(), "--dry-run", "train.learning_rate=1e-4")
    assert code == 0
    assert "learning_rate: 0.0001" in out and "# plan of sift" in out and "# decides: data.size" in out
    assert workspace.reports() == []


def test_a_dry_run_names_what_is_missing(run, recipe_file):
    code, out, _ = run(recipe_file(), "--dry-run", "seed=99")
    assert code == 0
    assert out.rstrip().endswith("# missing:\n#   there is no evidence.\n#     -> Bring some.")


def test_people_get_gates_findings_and_remedies_with_markup_inert(run, recipe_file):
    _, out, _ = run(recipe_file(), "seed=3")
    assert "7 of [b]10[/b]." in out
    assert "data.size.few: 7 of 10 [red]rows[/red]" in out
    assert "[link=x]markup[/link]" in out
    assert "-> Bring more." in out


def test_standard_output_comes_back_after_an_error(capfd):
    with pytest.raises(UserError), own_standard_output(True):
        print("inside")
        raise UserError("no")
    print("outside")
    captured = capfd.readouterr()
    assert captured.out == "outside\n" and "inside" in captured.err
