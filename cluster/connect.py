"""Joining Ray: an existing cluster where one is named, else an embedded one with token authentication."""

import functools
import json
import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import psutil

from cluster.errors import UserError
from cluster.packages import ROOT as ROOT
from cluster.packages import python_path
from cluster.settings import Settings, without_secrets
from cluster.worker_entry import FORKS

EMBEDDED_CPUS = 8
"""Logical CPUs of the embedded Ray. Data tasks, workers and controllers each reserve one, and what
cannot be placed waits for ever: more than the laptop's cores, so that everything is placed."""


PROCESS_DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's bundled HAProxy is GPL: never started.
    "RAY_SERVE_ENABLE_HA_PROXY": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYTHONHASHSEED": "0",
    # Threads that wait spin for a moment and then sleep. Spinning on, two processes on the same cores held each other
    # up until a training step took 60 times as long; asleep at once, a step alone took half as long again.
    "GOMP_SPINCOUNT": "1000",
}
"""What every process of ours starts with, here and on the nodes, unless its environment says otherwise."""


ALONE = {
    # Of one machine nothing is taken away; the actor that would notice takes seconds to start, for every training.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
"""What the processes of the embedded Ray start with besides, unless the environment says otherwise."""


STARTS = 3
"""How often the embedded Ray is started: a node waits 15 s for its agents, and they may miss that on a machine at work
or where all must first be read from a slow disk."""


def prepare_environment() -> None:
    """Set what must stand in the environment before Ray, DeepSpeed or MLflow are imported."""
    for name, value in PROCESS_DEFAULTS.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if not _has_gpu():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    name_operators_folder()
    protect_token()


def name_operators_folder() -> None:
    """Let torch keep compiled operators in this Python's environment; before torch looks for one.

    In torch's common folder the operators of two environments overwrite each other.
    """
    if os.access(sys.prefix, os.W_OK):
        os.environ.setdefault("TORCH_EXTENSIONS_DIR", f"{sys.prefix}/.torch_extensions")


def worker_environment(settings: Settings) -> dict[str, str]:
    """Environment of drivers and workers on a cluster that was started without us; secrets are the nodes' to know."""
    defaults = {name: os.environ.get(name, value) for name, value in PROCESS_DEFAULTS.items()}
    return defaults | without_secrets(settings.environment())


def protect_token() -> Path:
    """Ray's token file, readable by its owner alone (Ray itself writes it 0644).

    Made when it is missing, unless a cluster is named: that one has a token already, and another would be wrong.
    """
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if "RAY_AUTH_TOKEN" in os.environ or os.environ.get("RAY_AUTH_MODE", "token") != "token":
        return path
    if not path.exists():
        if "RAY_ADDRESS" in os.environ or inside_job():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two processes may start at once: the token is written beside, and the first link to it stays.
        descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=".auth_token-")
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(32))
        with suppress(FileExistsError):
            os.link(partial, path)
        os.unlink(partial)
    # A secret that a platform mounts read-only is the platform's to protect.
    with suppress(OSError):
        path.chmod(0o600)
    return path


def connect(settings: Settings) -> None:
    """Join the cluster that the settings name, or start the embedded Ray; nothing when already joined.

    Workers get the same workspace settings and our packages; of a cluster's nodes, an address with a secret
    must stand in their own environment. Raises UserError when the cluster is away.
    """
    prepare_environment()
    import ray

    if ray.is_initialized():
        return
    if inside_job():
        # The code came with the job's working_dir; what the job's environment says already may not be said again.
        said = _job_environment()
        missing = {name: value for name, value in worker_environment(settings).items() if name not in said}
        ray.init(address="auto", runtime_env={"env_vars": missing}, log_to_driver=False, logging_level=logging.WARNING)
    elif settings.ray_address:
        _join(settings, settings.ray_address)
    else:
        _start_embedded(settings)


def inside_job() -> bool:
    """Whether this process is the driver of a Ray job: Ray hands it the job's configuration and address."""
    return JOB_CONFIG in os.environ


def starts_its_own(settings: Settings) -> bool:
    """Whether `connect` starts a Ray on this machine, rather than joining one."""
    return not settings.ray_address and not inside_job()


JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray's job supervisor for the entrypoint alone (ray._private.runtime_env.constants)."""


def _job_environment() -> dict[str, str]:
    job = json.loads(os.environ[JOB_CONFIG])
    return dict((job.get("runtime_env") or {}).get("env_vars") or {})


def _join(settings: Settings, address: str) -> None:
    import ray

    from cluster.jobs import away, check_reachable
    from cluster.packages import copy_packages

    if address.startswith(("http://", "https://")):
        raise UserError(
            f"RAY_ADDRESS={address} takes jobs, and a stage cannot join a cluster through it.",
            "`sluice submit STAGE RECIPE` runs the stage there; unset RAY_ADDRESS to run it here.",
        )
    check_reachable(address)
    with tempfile.TemporaryDirectory(prefix="sluice-packages-") as folder:
        copy_packages(Path(folder))
        environment = {"working_dir": folder, "env_vars": worker_environment(settings)}
        try:
            # Ray packs and uploads the folder before init returns.
            ray.init(address=address, runtime_env=environment, log_to_driver=False, logging_level=logging.WARNING)
        except ConnectionError as error:
            raise away(address) from error


def _start_embedded(settings: Settings) -> None:
    import ray

    # The node's processes inherit our environment, which nobody else sees. A runtime environment Ray would show, and
    # start each worker twice for it: once to read it, once to work.
    alone = {name: os.environ.get(name, value) for name, value in ALONE.items()}
    inherited = alone | settings.environment() | {"PYTHONPATH": python_path()}
    if _forks():
        # Those that start before anybody asked for them could not be forked.
        inherited |= {FORKS: _forks_path(), "RAY_prestart_worker_first_driver": "0"}
    for left in reversed(range(STARTS)):
        try:
            with _node_of_its_own(), exported(inherited):
                ray.init(
                    # Without "local" Ray would join whatever cluster was last started on this machine.
                    address="local",
                    num_cpus=max(EMBEDDED_CPUS, os.cpu_count() or 1),
                    # It would take a second and a half of each command's start, on a port that nobody is told.
                    include_dashboard=False,
                    object_store_memory=object_store_bytes(psutil.virtual_memory().total),
                    log_to_driver=False,
                    logging_level=logging.WARNING,
                )
            return
        except Exception as error:
            # Ray has no type for it.
            if "timed out during startup" not in str(error):
                raise
            ray.shutdown()
            if not left:
                raise UserError(
                    f"Ray did not start on this machine, {STARTS} times.",
                    "Stop what else is at work here and try again; /tmp/ray/session_latest/logs says what Ray did.",
                ) from error


def object_store_bytes(memory_bytes: int) -> int:
    """Room for shared objects: a thirty-second of the memory, which streaming data fit in, within sane bounds."""
    return min(max(memory_bytes // 32, 256 * 2**20), 4 * 2**30)


@contextmanager
def exported(variables: dict[str, str]) -> Iterator[None]:
    """Let the processes that are started meanwhile inherit these variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def preload_workers(*modules: str) -> None:
    """Let the workers of the embedded Ray be forked from a process that has imported `modules`, once for all of them.

    On a cluster, and where there is a GPU (its driver does not survive a fork), they import it for themselves.
    """
    if not (_is_embedded() and _forks()):
        return
    import ray

    from cluster.forked_workers import fork_workers

    node = ray._private.worker.global_worker.node
    assert node is not None
    # Where it cannot be had they start as they always did, only more slowly.
    with suppress(OSError):
        fork_workers(_forks_path(), modules, python_path(), Path(node.get_logs_dir_path(), "forked_workers.log"))


def _forks() -> bool:
    return os.environ.get("SLUICE_FORK_WORKERS") != "0" and not _has_gpu()


@functools.cache
def _forks_path() -> str:
    """The socket of the process that workers are forked from, in a folder that comes with it."""
    # Unix sockets allow 107 characters.
    return f"{os.environ.get('RAY_TMPDIR') or '/tmp'}/sluice-{secrets.token_hex(4)}/workers"


@contextmanager
def _node_of_its_own() -> Iterator[None]:
    """Let the node start our workers, its agent listen on a free port, and no process be there that nobody needs.

    `ray.init` has no arguments for them. It gives every agent the same port; where two share a host, the second has no
    agent, and a `ray start --head` beside us would take no jobs. Logs that no driver prints need no monitor, and no
    node will ever come to this one for an autoscaler to start.
    """
    from ray._private.parameter import RayParams

    from cluster import worker_entry

    original = RayParams.__init__
    RayParams.__init__ = functools.partialmethod(  # type: ignore[assignment, method-assign]
        original,
        dashboard_agent_listen_port=0,
        worker_path=worker_entry.__file__,
        include_log_monitor=False,
        no_monitor=True,
    )
    try:
        yield
    finally:
        RayParams.__init__ = original  # type: ignore[method-assign]


def has_gpu() -> bool:
    """Whether the joined Ray cluster has a GPU."""
    import ray

    return bool(ray.cluster_resources().get("GPU"))  # type: ignore[no-untyped-call]


def uses_gpu(wanted: bool | Literal["auto"], accelerator_type: str | None = None) -> bool:
    """Whether `cluster.use_gpu` asks the joined Ray cluster for GPUs; also for some that it has yet to start.

    The clusters of `ray up` do not tell which nodes they could start: there, to name the type is to ask for it.
    """
    if wanted != "auto":
        return wanted
    return has_gpu() or (accelerator_type is not None and not _is_embedded())


def _is_embedded() -> bool:
    """Whether this process started the Ray that it has joined: no node will ever come to that one."""
    import ray

    node = ray._private.worker.global_worker.node
    return bool(node and node.head)


def _has_gpu() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists()
