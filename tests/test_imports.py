"""The direction of imports, and that what people wait for starts light."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.connect import ROOT
from pipelines.stages import GATES, STAGES, SUMMARIES, load_stage

ORDER = ["cluster", "pipelines", "serve", "ui"]
HEAVY = {"ray", "torch", "transformers", "mlflow", "pandas", "deepspeed", "streamlit", "pyarrow", "sqlalchemy"}
SOURCES = sorted(path for package in ORDER for path in (ROOT / package).rglob("*.py"))


def imported_modules(source, module):
    """Absolute names of all that `source` imports, functions included; `module` is its own dotted name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            # `from pipelines import audit` imports a module too.
            yield from [base, *(f"{base}.{alias.name}" for alias in node.names)]


def wrong_imports(source, module):
    """The imports that point to the right in `cluster <- pipelines <- serve <- ui`."""
    allowed = ORDER[: ORDER.index(module.split(".")[0]) + 1]
    return [
        name
        for name in imported_modules(source, module)
        if name.split(".")[0] in ORDER and name.split(".")[0] not in allowed
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_point_to_the_left(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    assert wrong_imports(path.read_text(encoding="utf-8"), module) == []


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("cluster.jobs", "import pipelines.audit", ["pipelines.audit"]),
        ("pipelines.audit", "def work():\n    from serve.app import start", ["serve.app", "serve.app.start"]),
        ("serve.app", "from pipelines.audit import STAGE", []),
        ("pipelines.engines.x", "from ray import serve as ray_serve", []),
        ("serve.app", "if True:\n    import ui.cli", ["ui.cli"]),
    ],
)
def test_the_walk_sees_imports_wherever_they_stand(module, source, wrong):
    assert wrong_imports(source, module) == wrong


def loaded_by(module):
    """The heavy packages that importing `module` in a fresh interpreter brings."""
    code = f"import sys, {module}; print(' '.join(sorted({HEAVY!r} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("module", ["ui.cli", *STAGES.values()])
def test_commands_and_stages_import_nothing_heavy(module):
    assert loaded_by(module) == []


def test_help_needs_no_more_than_what_draws_it_and_holds_reports():
    code = (
        "import sys, ui.cli\n"
        "try: ui.cli.main(['--help'])\n"
        "except SystemExit: print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)\n"
        "assert 'pipelines.recipe' not in sys.modules, 'a recipe and its checks are half of what help takes'"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "The pipeline" in done.stdout
    foreign = {name for name in done.stderr.split() if name.isidentifier() and not name.startswith("_")}
    foreign -= {*sys.stdlib_module_names, *ORDER, "cython_runtime", "sitecustomize"}
    assert foreign <= {
        *("typer", "shellingham", "rich", "pygments", "markdown_it", "mdurl", "attr"),
        *("pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"),
        *("markupsafe", "psutil", "annotated_doc"),
    }


@pytest.mark.parametrize("module", ["pipelines.training.trainer", "pipelines.search.control"])
def test_a_driver_leaves_to_its_workers_what_they_alone_need(module):
    assert not {"torch", "transformers", "deepspeed"} & set(loaded_by(module))


@pytest.mark.cluster
def test_deepspeed_comes_without_mlflow_which_can_be_imported_afterwards():
    code = (
        "import sys; from pipelines.training.engine import import_deepspeed;"
        "assert import_deepspeed() is sys.modules['deepspeed'] and 'mlflow' not in sys.modules; import mlflow"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env=os.environ | {"DS_ACCELERATOR": "cpu"})


def test_every_stage_is_what_the_table_says_of_it():
    assert list(STAGES) == list(SUMMARIES) == list(GATES)
    for name in STAGES:
        stage = load_stage(name)
        assert (stage.name, stage.summary, stage.gates) == (name, SUMMARIES[name], GATES[name])


def test_the_measure_of_lightness_sees_what_is_heavy():
    assert "pyarrow" in loaded_by("pyarrow.fs")


def test_nothing_that_ray_ships_is_defined_in_main():
    for name, module in STAGES.items():
        last = (Path(ROOT) / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8").rstrip().splitlines()[-1]
        assert last.strip() == f"sys.exit({name}.main())", f"{module} ends with {last!r}"
