"""Addresses, read from the environment: where things are kept and which Ray is used.

Nothing here is opened; `pipelines.workspace` does that. No address is ever part of a recipe,
so that the same recipe runs on a laptop and on a cluster.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

VARIABLES = {
    "SLUICE_STORAGE": "folder or URI (s3://, gs://) for tables, checkpoints and models [~/.sluice]",
    "SLUICE_DATABASE": "SQLAlchemy URL of the records [sqlite in the storage folder]",
    "SLUICE_TRACKING": "MLflow tracking URI [sqlite in the storage folder]",
    "SLUICE_MODELS": "local folder for base models [models/ in the storage folder]",
    "RAY_ADDRESS": "an existing Ray cluster; unset: an embedded Ray is started",
}


@dataclass(frozen=True)
class Settings:
    """Where this process keeps and finds things."""

    storage: str
    """Folder or URI of the workspace."""
    database_url: str
    """SQLAlchemy URL."""
    tracking_uri: str
    """MLflow tracking URI."""
    models: Path
    """Local folder that holds base models."""
    ray_address: str | None
    """Address of a running Ray cluster, or None for an embedded one."""

    @classmethod
    def from_environment(cls) -> "Settings":
        """The settings that the environment names, with laptop defaults for the rest."""
        storage = os.environ.get("SLUICE_STORAGE") or str(Path.home() / ".sluice")
        remote = "://" in storage
        if not remote:
            storage = str(Path(storage).expanduser().absolute())
        # A bucket cannot hold SQLite: beside remote storage the local defaults stay at home.
        local = Path.home() / ".sluice" if remote else Path(storage)
        models = os.environ.get("SLUICE_MODELS")
        return cls(
            storage=storage,
            database_url=os.environ.get("SLUICE_DATABASE") or f"sqlite:///{local}/sluice.db",
            tracking_uri=os.environ.get("SLUICE_TRACKING") or f"sqlite:///{local}/mlflow.db",
            models=Path(models).expanduser().absolute() if models else local / "models",
            ray_address=os.environ.get("RAY_ADDRESS") or None,
        )

    def environment(self) -> dict[str, str]:
        """The same settings as environment variables, for Ray workers and jobs."""
        return {
            "SLUICE_STORAGE": self.storage,
            "SLUICE_DATABASE": self.database_url,
            "SLUICE_TRACKING": self.tracking_uri,
            "SLUICE_MODELS": str(self.models),
        }


def without_secrets(environment: dict[str, str]) -> dict[str, str]:
    """The variables whose values hold no password, token or key.

    Ray shows the environment of jobs and workers to whoever may look at the cluster, and writes it to its logs:
    an address with a secret stays out, and the nodes' own environment must hold it.
    """
    return {name: value for name, value in environment.items() if not _holds_secret(value)}


_PASSWORD = re.compile(r"[\w+.-]+://[^:/@]*:[^@]+@")
"""Any `user:password@`: SQLAlchemy takes passwords with slashes, which `urlsplit` does not see."""

_SECRET_PARAMETER = re.compile(
    r"(passw|pwd|token|secret|credential|(api|access|account|shared)_?key|\bkey|\bsig|signature|\bauth)\w*\s*=", re.I
)


def _holds_secret(value: str) -> bool:
    if _PASSWORD.match(value) or _SECRET_PARAMETER.search(unquote("".join(re.split("[?#]", value, maxsplit=1)[1:]))):
        return True
    try:
        parts = urlsplit(value)
        # A web address has no user names but tokens; before a database's host one stands without any secret.
        return bool(parts.password) or (parts.scheme in ("http", "https") and bool(parts.username))
    except ValueError:
        # No address that anyone can read: it may hold anything.
        return True
