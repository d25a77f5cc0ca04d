"""MLflow's model registry: a version for each promoted model, its lineage in tags, `champion` on the one in production.

Versions are registered by the address of their files: nothing is copied, and no model flavour is loaded.
"""

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cluster.errors import UserError
from cluster.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient

CHAMPION = "champion"
"""Alias of the version in production."""

FINGERPRINT_TAG = "sluice.model_fingerprint"
REPORT_TAG = "sluice.evaluate_key"


def register(settings: Settings, name: str, content: dict[str, Any]) -> str:
    """The version of the model whose lineage is `content`: the one that is there for it, or a new one."""
    with _client(settings) as client:
        found = _find(client, name, content)
        if found is not None:
            return found
        _create_model(client, name)
        train = content["train"]
        created = client.create_model_version(
            name,
            source=train["model"],
            run_id=train.get("run_id") or None,
            tags=_tags(content),
            description=f"{train['method']} fine-tuning of {train['base']}, data version {content['data']['version']}",
        )
        return str(created.version)


def set_champion(settings: Settings, name: str, version: str | None) -> None:
    """Move the alias `champion` to `version`; None: no version has it."""
    with _client(settings) as client:
        if version is None:
            client.delete_registered_model_alias(name, CHAMPION)
        else:
            client.set_registered_model_alias(name, CHAMPION, version)


def champion(settings: Settings, name: str) -> str | None:
    """The version that the alias `champion` names, or None."""
    with _client(settings) as client:
        models = client.search_registered_models(filter_string=f"name = '{name}'")
        if not models:
            return None
        version = models[0].aliases.get(CHAMPION)
        return None if version is None else str(version)


def version_tags(settings: Settings, name: str, version: str) -> dict[str, str]:
    """The tags of a version: its lineage as text."""
    with _client(settings) as client:
        return dict(client.get_model_version(name, version).tags)


def _tags(content: dict[str, Any]) -> dict[str, str]:
    reports, train = content["reports"], content["train"]
    # Reports of earlier releases recorded neither.
    served = {f"sluice.{name}": train[name] for name in ("chat_template", "generation_config") if train.get(name)}
    return served | {
        FINGERPRINT_TAG: train["model_fingerprint"],
        REPORT_TAG: reports["evaluate"]["key"],
        "sluice.base": train["base"],
        "sluice.base_fingerprint": train["base_fingerprint"],
        "sluice.method": train["method"],
        "sluice.data": json.dumps(content["data"]),
        "sluice.recipe": json.dumps(content["recipe"]),
        "sluice.reports": json.dumps(reports),
        "sluice.waivers": json.dumps(content["waivers"]),
    }


def _find(client: "MlflowClient", name: str, content: dict[str, Any]) -> str | None:
    wanted = _tags(content)
    for version in client.search_model_versions(f"name = '{name}'"):
        # The same files on the same evidence are the same version; a new waiver is new evidence.
        if all(version.tags.get(key) == wanted[key] for key in (FINGERPRINT_TAG, REPORT_TAG, "sluice.waivers")):
            return str(version.version)
    return None


def _create_model(client: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, tags={"sluice.recipe_name": name})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


@contextmanager
def _client(settings: Settings) -> "Iterator[MlflowClient]":
    """A client of the registry, which stands beside the runs; its refusals become sentences."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        yield MlflowClient(tracking_uri=settings.tracking_uri, registry_uri=settings.tracking_uri)
    except MlflowException as error:
        raise UserError(
            f"The model registry refused: {str(error).splitlines()[0]}",
            "Check SLUICE_TRACKING; a tracking server accepts models from shared storage (SLUICE_STORAGE) alone.",
        ) from error
