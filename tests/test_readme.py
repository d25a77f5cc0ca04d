"""The README says what is true: its tree, its variables, its stages and gates, its commands."""

import re
import shlex

from cluster.connect import ROOT
from cluster.settings import VARIABLES
from pipelines.stages import STAGES, load_stage

README = (ROOT / "README.md").read_text(encoding="utf-8")


def listed():
    """Paths that the tree names, by their indentation."""
    block = README.split("<!-- tree")[1].split("```\n")[1]
    folders = []
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        folders = folders[:depth]
        if name.endswith("/"):
            folders.append(name)
        else:
            yield "".join(folders) + name


def test_the_tree_names_every_source_file_and_no_other():
    present = {
        str(path.relative_to(ROOT))
        for package in ("cluster", "pipelines", "serve", "ui")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    named = set(listed())
    assert present - named == set(), "run `make tree`"
    assert [path for path in named if not (ROOT / path).exists()] == [], "run `make tree`"


def test_every_file_of_the_tree_has_a_phrase():
    block = README.split("<!-- tree")[1].split("```\n")[1]
    assert [line for line in block.splitlines() if line.strip().endswith(".py")] == []


def test_every_stage_stands_there_with_all_its_gates():
    rows = {name: row for name, row in re.findall(r"^\| `sluice (\w+)` (\|.*)$", README, re.MULTILINE)}
    assert list(rows) == list(STAGES)
    for name, row in rows.items():
        assert set(re.findall(r"`(\w+\.\w+)`", row)) == set(load_stage(name).gates), name


def test_every_environment_variable_stands_there():
    assert {name for name in VARIABLES if f"| `{name}` |" not in README} == set()


def test_every_command_that_it_shows_exists():
    import typer.main

    from ui.cli import app

    verbs = typer.main.get_command(app).commands
    shown = set(re.findall(r"`?sluice ([a-z]+)\b", README)) - {"RECIPE", "itself"}
    assert {verb for verb in shown if verb not in verbs} <= {"splits", "trains", "runs", "audits", "fine"}
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z]+)\b", README)) <= targets


def test_the_recipe_that_it_shows_is_valid(tmp_path):
    from pipelines.recipe_file import load_recipe

    path = tmp_path / "recipe.yaml"
    path.write_text(re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1])
    assert load_recipe(path).sweep.num_samples == 8


def test_options_of_shown_commands_exist():
    import typer.main

    from ui.cli import app

    verbs = typer.main.get_command(app).commands
    for line in re.findall(r"^sluice .*$", README, re.MULTILINE):
        words = shlex.split(line.partition("  #")[0])
        verb = verbs[words[1]]
        for word in words[2:]:
            # A verb may have verbs of its own, and these too: the options are the last one's.
            verb = getattr(verb, "commands", {}).get(word, verb)
        options = {option for parameter in verb.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, line
