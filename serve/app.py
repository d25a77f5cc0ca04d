"""The Serve application of a recipe: a gateway, and engines that hold what is promoted and its base."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cluster.errors import StageFailed, UserError
from cluster.settings import Settings
from pipelines.engines.protocol import EngineOptions
from pipelines.recipe import Cluster, Recipe
from pipelines.recipe_serve import Serve
from pipelines.workspace import Workspace
from serve.engines import EnginePerArm, ServeEngine
from serve.following import Follow, promoted
from serve.hosting import EngineReplica
from serve.listening import Address, start_proxy
from serve.service import ChatService, Hosted
from serve.tracing import is_wanted

if TYPE_CHECKING:
    from pipelines.models.candidate import Candidate
    from pipelines.records import DeploymentRow

REPLICA_HEADROOM = 64
"""Requests above batch and queue that a replica takes on, so that the engine's own bound is the one that refuses."""

ANSWER_S = 600
"""Seconds that an engine which is not needed any more has for the answers that it is in."""

STOPPING_S = 30
"""How long the end of a service is waited for; what has not ended by then ends without being waited for."""

UPSCALE_S = 5.0
"""Seconds for which more than the engines can take must be asked before another one is started."""


class Gateway:
    """The ingress deployment."""

    def __init__(self, engines: Any, hosted: Hosted, settings: Settings) -> None:
        """`engines`: the handle of the deployment that answers for all arms, or of each arm's own."""
        if isinstance(engines, dict):
            engine: Any = EnginePerArm({arm: ServeEngine(one, hosted.sleeps) for arm, one in engines.items()})
        else:
            engine = ServeEngine(engines, hosted.sleeps)
        self._service = ChatService(hosted, engine, Workspace(settings))
        # Opens the database now, and not under the first request.
        _ = self._service.in_force.watch.latest

    def __serve_build_asgi_app__(self) -> Any:
        """Called by Ray Serve on the replica."""
        from serve.gateway import build_gateway

        return build_gateway(self._service)

    def __del__(self) -> None:
        """Called by Ray Serve in the replica's graceful end, after its last request."""
        # An __init__ that failed leaves no service.
        if service := getattr(self, "_service", None):
            service.close()


@dataclass(frozen=True)
class ServerHandle:
    """A running service."""

    url: str
    recipe_name: str
    model_version: str
    watcher: dict[str, str]
    """How its watcher is found."""

    def wait(self) -> None:
        """Return when the service has ended; raise StageFailed when it can no longer answer."""
        from ray import serve as ray_serve

        while True:
            application = ray_serve.status().applications.get(self.recipe_name)
            if application is None:
                return
            if application.status in ("DEPLOY_FAILED", "NOT_STARTED"):
                raise StageFailed(f"The service ended: {application.message}")
            time.sleep(2)

    def stop(self) -> None:
        """End the service, if it still runs; Ray goes on."""
        from ray import serve as ray_serve

        _end_watcher(self.watcher)
        if not _serving():
            return
        ray_serve.delete(self.recipe_name, _blocking=False)
        deadline = time.monotonic() + STOPPING_S
        while self.recipe_name in ray_serve.status().applications and time.monotonic() < deadline:
            time.sleep(0.2)
        if not ray_serve.status().applications:
            ray_serve.shutdown()  # type: ignore[no-untyped-call]


def start(
    recipe: Recipe,
    workspace: Workspace,
    host: str = "127.0.0.1",
    port: int = 8000,
    certificate: str | None = None,
    key: str | None = None,
) -> ServerHandle:
    """Serve what is promoted for `recipe`, ready to answer when this returns.

    `certificate` and `key` are PEM files on the machine that listens, the head's; without them it is HTTP.

    Raises GateClosed when nothing is promoted, UserError when its files changed, other machines could ask without a
    key, the certificate is of no use, the environment names no right collector, the port is taken, or Ray Serve runs
    already at another address or for another recipe.
    """
    address = Address(host, port, certificate, key)
    if recipe.serve.keys == "off" and not address.is_here_alone:
        raise UserError(
            f"{recipe.name} cannot listen at {host!r}: other machines would reach it, and serve.keys is off.",
            "Set serve.keys=required and make keys with `sluice keys add`, or listen at 127.0.0.1 alone.",
        )
    from cluster.connect import connect, inside_job

    is_here = not workspace.settings.ray_address and not inside_job()
    address.check_tls(on_this_machine=is_here)
    # A collector that no trace would reach is better said now than in a replica's log.
    is_wanted()
    deployment, arms = promoted(recipe.name, workspace)
    if is_here:
        # Here the replica runs on this machine, and what it lacks is better said at once.
        if recipe.cluster.engine == "vllm":
            from pipelines.engines.vllm_package import check_installed

            check_installed()
        arms = {arm: one.here(workspace) for arm, one in arms.items()}
    connect(workspace.settings)
    from ray import serve as ray_serve
    from ray.serve.exceptions import RayServeException

    # It tells its driver of each step, and of http whatever it speaks.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    start_proxy(address)
    application = build(recipe, workspace.settings, deployment, arms)
    try:
        ray_serve.run(application, name=recipe.name, route_prefix="/")
    except RayServeException as error:
        others = [name for name in ray_serve.status().applications if name != recipe.name]
        raise _not_deployed(recipe.name, others, error) from error
    except RuntimeError as error:
        message = ray_serve.status().applications[recipe.name].message if _deployed(recipe.name) else str(error)
        ray_serve.delete(recipe.name)
        raise StageFailed(f"{recipe.name} could not be served: {message}", "Its replica's log says more.") from error
    _start_watcher(recipe.name, workspace.settings)
    return ServerHandle(
        address.url,
        recipe.name,
        deployment.model_version,
        watcher_of(recipe.name, workspace.settings),
    )


def build(recipe: Recipe, settings: Settings, deployment: "DeploymentRow", arms: "dict[str, Candidate]") -> Any:
    """The Serve application; Ray has been joined."""
    from ray import serve as ray_serve

    served = recipe.serve
    accepted = served.max_batch_size + served.max_queued_requests + REPLICA_HEADROOM
    hosted = Hosted(
        recipe_name=recipe.name,
        seed=f"{recipe.name}:{recipe.seed}",
        models={arm: candidate.model_id for arm, candidate in arms.items()},
        weights={arm: served.weights.get(arm, 0.0) for arm in ("base", "tuned")},
        max_new_tokens=served.max_new_tokens,
        log_prompts=served.log_prompts,
        created=int(deployment.created_at.timestamp()),
        keys=served.keys,
        model_version=deployment.model_version,
        holdout=served.holdout,
        shadow=served.shadow,
        keep_texts_days=served.keep_texts_days,
        sleeps=served.min_replicas == 0,
        cors_origins=served.cors_origins,
    )
    engine: Any = ray_serve.deployment(
        EngineReplica,
        **replicas(served),
        ray_actor_options=replica_options(recipe.cluster),
        max_ongoing_requests=accepted,
        # At the gateway, while there is no engine or all are full.
        max_queued_requests=max(REPLICA_HEADROOM, served.max_batch_size + served.max_queued_requests),
        health_check_timeout_s=120,
    )
    follow = Follow(recipe.name, settings, deployment.model_version)
    trained = deployment.content["recipe"]["train"]

    def engine_of(name: str, own: "dict[str, Candidate]") -> Any:
        options = engine_options(recipe, trained, own, arms["base"].base_folder)
        return engine.options(name=name).bind(own, options, replace(follow, arms=tuple(own)))

    bound: Any
    if served.engine_per_candidate:
        bound = {arm: engine_of(f"engine-{arm}", {arm: one}) for arm, one in arms.items()}
    else:
        bound = engine_of("engine", arms)
    gateway: Any = ray_serve.deployment(
        ray_serve.ingress()(Gateway),
        name="gateway",
        num_replicas=1,
        ray_actor_options={"num_cpus": 1},
        max_ongoing_requests=4 * accepted * served.max_replicas * (len(arms) if served.engine_per_candidate else 1),
        # Longer than that of an engine which does not scale, whose end ends the last streams: then their interactions
        # are written.
        graceful_shutdown_timeout_s=20,
    )
    return gateway.bind(bound, hosted, settings)


def engine_options(
    recipe: Recipe, trained: Mapping[str, Any], arms: "Mapping[str, Candidate]", base_folder: str
) -> EngineOptions:
    """How the engine of these arms is set up, where `tuned` was trained as `trained` says over the base. Pure."""
    bases = {one.base_folder for one in arms.values()}
    return EngineOptions(
        recipe.cluster.engine,
        trained["dtype"],
        recipe.serve.max_batch_size,
        recipe.serve.max_queued_requests,
        int(trained.get("lora_r") or 0) if "tuned" in arms else 0,
        # Where `tuned` has weights of its own, one more: the next version's, which comes while the last answers.
        len(bases) + (bases != {base_folder}),
    )


def replicas(served: Serve) -> dict[str, Any]:
    """How many engines, as Ray Serve is told. Pure."""
    if served.min_replicas == served.max_replicas:
        return {"num_replicas": served.max_replicas, "graceful_shutdown_timeout_s": 10}
    return {
        # Whichever is the newest ends, at work or not.
        "graceful_shutdown_timeout_s": ANSWER_S,
        "autoscaling_config": {
            "min_replicas": served.min_replicas,
            # At least one is seen to answer before the service is called ready.
            "initial_replicas": max(1, served.min_replicas),
            "max_replicas": served.max_replicas,
            "target_ongoing_requests": served.max_batch_size,
            "upscale_delay_s": UPSCALE_S,
            "downscale_delay_s": served.idle_after_s,
        },
    }


def replica_options(cluster: Cluster) -> dict[str, Any]:
    """What the engine's replica asks of Ray, which has been joined: a GPU where training would take one."""
    from cluster.connect import uses_gpu

    if cluster.use_gpu is False:
        # Ray leaves a node's GPUs in sight of an actor that asks for none, and torch would take one.
        return {"num_cpus": 1, "runtime_env": {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}}
    return {"num_cpus": 1} | ({"num_gpus": 1} if uses_gpu(cluster.use_gpu, cluster.accelerator_type) else {})


def watcher_of(recipe_name: str, settings: Settings) -> dict[str, str]:
    """How the actor that watches a recipe's experiments is found in its Ray: another one for each workspace."""
    from pipelines.fingerprint import fingerprint

    of = fingerprint(settings.database_url, settings.tracking_uri, settings.storage)[:12]
    return {"name": f"watcher-{recipe_name}-{of}", "namespace": "sluice"}


def _start_watcher(recipe_name: str, settings: Settings) -> None:
    """Let an actor watch the experiments: none of Serve's, so that it goes on whatever becomes of the service."""
    import ray

    from serve.experimentation.watcher import Watcher

    actor: Any = ray.remote(Watcher).options(
        **watcher_of(recipe_name, settings), lifetime="detached", get_if_exists=True, num_cpus=0, max_restarts=-1
    )
    actor.remote(settings, recipe_name)


def _end_watcher(watcher: dict[str, str]) -> None:
    """End the watcher unless an experiment runs: that one is watched until Ray ends."""
    import ray
    from ray.exceptions import RayError

    try:
        actor: Any = ray.get_actor(**watcher)
        idle: Any = ray.get(actor.is_idle.remote(), timeout=5)
        if idle:
            ray.kill(actor)
    except (ValueError, RayError):
        # It is gone, or does not answer: nothing depends on it.
        return


def _not_deployed(name: str, others: list[str], error: Exception) -> UserError:
    """What Serve's own refusal of an application means."""
    # An error of Serve's controller comes wrapped, with a traceback for its text.
    reason = getattr(error, "cause", None) or error
    if others:
        return UserError(
            f"{name} cannot be served beside {', '.join(others)}: {reason}", "End the other service first (Ctrl-C)."
        )
    return StageFailed(f"{name} could not be served: {reason}", "The log of Ray Serve says more.")


def _serving() -> bool:
    from ray import serve as ray_serve
    from ray.serve.exceptions import RayServeException

    try:
        return bool(ray_serve.status().proxies)
    except RayServeException:
        return False


def _deployed(name: str) -> bool:
    from ray import serve as ray_serve

    return name in ray_serve.status().applications
