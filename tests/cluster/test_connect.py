"""Joining Ray: environment, token, what is said inside a job, and two clusters on one machine."""

import json
import os
import stat
import subprocess
import sys
from types import SimpleNamespace

import pytest

from cluster import connect as connecting
from cluster.connect import object_store_bytes, prepare_environment, protect_token, worker_environment
from cluster.errors import UserError
from cluster.packages import PACKAGES, ROOT, copy_packages
from cluster.settings import Settings


@pytest.fixture
def token_path(tmp_path, monkeypatch):
    path = tmp_path / "ray" / "auth_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    for name in ("RAY_AUTH_TOKEN", "RAY_ADDRESS", connecting.JOB_CONFIG):
        monkeypatch.delenv(name, raising=False)
    return path


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_token_is_made_for_its_owner_alone(token_path):
    protect_token()
    assert mode(token_path) == 0o600
    assert len(token_path.read_text()) == 64
    assert [path.name for path in token_path.parent.iterdir()] == ["auth_token"]


def test_a_token_that_stands_is_kept_and_closed_to_others(token_path):
    token_path.parent.mkdir()
    token_path.write_text("mine")
    token_path.chmod(0o644)
    protect_token()
    assert (token_path.read_text(), mode(token_path)) == ("mine", 0o600)


def test_no_token_is_made_up_for_a_cluster_that_has_one(token_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    protect_token()
    assert not token_path.exists()


def test_the_environment_is_set_and_what_stood_there_stays(token_path, monkeypatch):
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "7")
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    prepare_environment()
    assert os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "7"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert worker_environment(Settings.from_environment())["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "7"


def test_the_object_store_is_a_share_of_the_memory_within_bounds():
    gib = 2**30
    assert object_store_bytes(2 * gib) == gib // 4
    assert object_store_bytes(32 * gib) == gib
    assert object_store_bytes(2048 * gib) == 4 * gib


def test_an_address_for_jobs_is_none_to_join(monkeypatch, workspace):
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(UserError, match="a stage cannot join a cluster through it") as caught:
        connecting.connect(Settings.from_environment())
    assert "sluice submit" in caught.value.remedy


def test_the_packages_travel_without_what_stands_beside_them(tmp_path):
    (tmp_path / "job").mkdir()
    copy_packages(tmp_path / "job")
    assert sorted(path.name for path in (tmp_path / "job").iterdir()) == sorted(PACKAGES)
    for name in PACKAGES:
        sent = {str(path.relative_to(tmp_path / "job")) for path in (tmp_path / "job" / name).rglob("*.py")}
        assert sent == {str(path.relative_to(ROOT)) for path in (ROOT / name).rglob("*.py")}
    assert not list((tmp_path / "job").rglob("__pycache__"))


def test_packages_in_the_working_folder_come_before_installed_ones(tmp_path):
    copy_packages(tmp_path)
    program = "import cluster, pipelines, serve, ui; print(pipelines.__file__)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(tmp_path / "pipelines" / "__init__.py")


SECRET_DATABASE = "postgresql+pg8000://sluice:hunter2@db/sluice"


@pytest.fixture
def initialised(monkeypatch, tmp_path, token_path):
    """What `ray.init` was called with, and the environment that a node started by it would inherit."""
    seen = {}

    def note(**options):
        seen.update(options, inherited=dict(os.environ))

    monkeypatch.setattr("ray.init", note)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setenv("SLUICE_STORAGE", str(tmp_path))
    monkeypatch.delenv("SLUICE_MODELS", raising=False)
    monkeypatch.setenv("SLUICE_DATABASE", SECRET_DATABASE)
    return seen


def test_inside_a_job_the_databases_password_is_not_said_to_ray(initialised, monkeypatch, tmp_path):
    said = {"runtime_env": {"env_vars": {"SLUICE_STORAGE": str(tmp_path)}}}
    monkeypatch.setenv(connecting.JOB_CONFIG, json.dumps(said))
    connecting.connect(Settings.from_environment())
    told = initialised["runtime_env"]["env_vars"]
    assert "hunter2" not in str(told)
    assert "SLUICE_TRACKING" in told and "SLUICE_STORAGE" not in told


def test_a_joined_cluster_is_not_told_the_databases_password(initialised, monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    connecting.connect(Settings.from_environment())
    told = initialised["runtime_env"]["env_vars"]
    assert "hunter2" not in str(told)
    assert told["SLUICE_STORAGE"] == str(tmp_path)


def test_the_embedded_rays_workers_inherit_the_settings_and_ray_is_told_none(initialised, tmp_path):
    settings = Settings.from_environment()
    connecting.connect(settings)
    assert "runtime_env" not in initialised
    inherited = initialised["inherited"]
    assert inherited["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT)
    assert inherited["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] == "0"
    assert {name: inherited[name] for name in settings.environment()} == settings.environment()
    assert "SLUICE_MODELS" not in os.environ, "only while the node starts"


TOO_SLOW = Exception("The current node timed out during startup. This could happen because ...")


@pytest.mark.parametrize("failures", [0, 2])
def test_a_node_whose_agents_were_too_slow_is_started_again(initialised, monkeypatch, failures):
    coming = iter([TOO_SLOW] * failures)

    def start(**options):
        for error in coming:
            raise error
        initialised["started"] = True

    monkeypatch.setattr("ray.init", start)
    connecting.connect(Settings.from_environment())
    assert initialised["started"] and next(coming, None) is None


def test_a_node_that_never_starts_is_a_sentence_and_what_else_goes_wrong_is_told_at_once(initialised, monkeypatch):
    tried = []

    def start(**options):
        tried.append(options)
        raise tried_error

    monkeypatch.setattr("ray.init", start)
    tried_error = TOO_SLOW
    with pytest.raises(UserError, match="did not start on this machine, 3 times"):
        connecting.connect(Settings.from_environment())
    assert len(tried) == connecting.STARTS
    tried_error = ValueError("something else")
    with pytest.raises(ValueError, match="something else"):
        connecting.connect(Settings.from_environment())
    assert len(tried) == connecting.STARTS + 1


@pytest.mark.parametrize(
    ("wanted", "gpus", "named", "embedded", "used"),
    [
        ("auto", 1, None, False, True),
        ("auto", 0, None, False, False),
        ("auto", 0, "A100", False, True),  # workers scaled to zero
        ("auto", 0, "A100", True, False),  # a laptop: no node will come
        (True, 0, None, True, True),
        (False, 8, "A100", False, False),
    ],
)
def test_a_named_type_of_gpu_is_asked_for_even_when_no_node_has_one_yet(
    monkeypatch, wanted, gpus, named, embedded, used
):
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 4.0} | ({"GPU": float(gpus)} if gpus else {}))
    monkeypatch.setattr("ray._private.worker.global_worker.node", SimpleNamespace(head=embedded))
    assert connecting.uses_gpu(wanted, named) is used


# A driver in a process of its own, because a process joins one Ray only.
DRIVER = """
import json, os
from cluster.connect import connect
from cluster.settings import Settings
connect(Settings.from_environment())
import ray

@ray.remote(num_cpus=0.1)
def seen():
    import pipelines
    return pipelines.__file__, os.environ["SLUICE_STORAGE"], os.getcwd()

node = ray._private.worker.global_worker.node
print(json.dumps({"worker": ray.get(seen.remote()), "address": ray.get_runtime_context().gcs_address,
                  "agent": node.dashboard_agent_listen_port}))
"""


def run_driver(cwd, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLUICE_"))}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=cwd,
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def port(address):
    return address.rpartition(":")[2]


@pytest.mark.cluster
def test_a_driver_joins_a_named_cluster_and_its_workers_get_our_packages(ray_head, tmp_path):
    seen = run_driver(
        ROOT,
        RAY_ADDRESS=ray_head.gcs_address,
        RAY_AUTH_TOKEN_PATH=str(ray_head.token_path),
        SLUICE_STORAGE=str(tmp_path),
    )
    packages, storage, folder = seen["worker"]
    assert port(seen["address"]) == port(ray_head.gcs_address)
    assert storage == str(tmp_path)
    assert packages.startswith(folder), "from the packed folder, not from the place it was packed in"
    assert not packages.startswith(str(ROOT))


@pytest.mark.cluster
def test_an_embedded_ray_starts_beside_a_head_and_takes_neither_its_port_nor_its_jobs(ray_head, tmp_path):
    import tempfile

    with tempfile.TemporaryDirectory(prefix="sl", dir="/tmp") as scratch:
        seen = run_driver(
            ROOT, RAY_TMPDIR=scratch, RAY_AUTH_TOKEN_PATH=str(tmp_path / "token"), SLUICE_STORAGE=str(tmp_path)
        )
    assert port(seen["address"]) != port(ray_head.gcs_address)
    assert seen["agent"] != 52365
    assert seen["worker"][0] == str(ROOT / "pipelines" / "__init__.py")
    assert mode(tmp_path / "token") == 0o600


@pytest.mark.cluster
def test_inside_a_job_nothing_is_packed_again_and_settings_reach_the_workers(at_head, tmp_path):
    """The driver runs in a job whose environment holds some of our settings already."""
    from cluster.jobs import Jobs, JobState

    folder = tmp_path / "job"
    folder.mkdir()
    copy_packages(folder)
    (folder / "driver.py").write_text(DRIVER)
    (folder / "recipe.yaml").write_text("")
    jobs = Jobs()
    name = f"inside-{os.urandom(4).hex()}"
    jobs.submit(name, "driver", folder, {"SLUICE_STORAGE": str(tmp_path / "here")})
    log = []
    job = jobs.follow(name, log.append)
    assert job.state is JobState.SUCCEEDED, "".join(log)
    seen = json.loads("".join(log).splitlines()[-1])
    packages, storage, cwd = seen["worker"]
    assert storage == str(tmp_path / "here")
    assert packages.startswith(cwd)
    assert "working_dir_files" in cwd
