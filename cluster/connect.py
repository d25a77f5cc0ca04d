"""Joining Ray: an existing cluster where one is named, else an embedded one with token authentication."""

import os
import secrets
from pathlib import Path
from typing import Any

from cluster.settings import Settings

EMBEDDED_CPUS = 8
"""Logical CPUs of the embedded Ray. Data tasks, workers and controllers each reserve one, and what
cannot be placed waits for ever: more than the laptop's cores, so that everything is placed."""

ROOT = Path(__file__).resolve().parent.parent
"""Folder that holds the four packages."""


def prepare_environment() -> None:
    """Set what must stand in the environment before Ray, DeepSpeed or MLflow are imported."""
    defaults = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        # Ray's bundled HAProxy is GPL: never started.
        "RAY_SERVE_ENABLE_HA_PROXY": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_DEDUP_LOGS": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", "0"),
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if not _has_gpu():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    protect_token()


def protect_token() -> Path:
    """Ray's token file, made if missing, readable by its owner alone (Ray itself writes it 0644)."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if "RAY_AUTH_TOKEN" in os.environ:
        return path
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(32))
    path.chmod(0o600)
    return path


def connect(settings: Settings) -> None:
    """Join the cluster that the settings name, or start the embedded Ray; nothing when already joined.

    Workers get the same workspace settings and import our packages from this folder.
    """
    prepare_environment()
    import ray

    if ray.is_initialized():
        return
    # Inside a Ray job the code came with the job's working_dir, and the address is set.
    inside_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    environment: dict[str, Any] = {"env_vars": settings.environment()}
    if settings.ray_address or inside_job:
        if not inside_job:
            environment |= {"working_dir": str(ROOT), "excludes": EXCLUDES}
        ray.init(address=settings.ray_address or "auto", runtime_env=environment, log_to_driver=False)
        return
    environment["env_vars"]["PYTHONPATH"] = str(ROOT)
    ray.init(
        # Without "local" Ray would join whatever cluster was last started on this machine.
        address="local",
        num_cpus=EMBEDDED_CPUS,
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        object_store_memory=512 * 2**20,
        runtime_env=environment,
        log_to_driver=False,
    )


EXCLUDES = [".venv/", ".git/", "tests/", "docs/", "*.db", ".sluice/"]
"""What of the folder never travels to a cluster."""


def has_gpu() -> bool:
    """Whether the joined Ray cluster has a GPU."""
    import ray

    return bool(ray.cluster_resources().get("GPU"))  # type: ignore[no-untyped-call]


def _has_gpu() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists()
