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
from serve.experimentation.watcher import end_watcher, start_watcher
from serve.following import Follow, promoted
from serve.hosting import EngineReplica
from serve.listening import Address, check_on_head, end_proxy, start_proxy
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

GATEWAY_CPUS = 1

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

        end_watcher(self.watcher)
        if not _serving():
            return
        ray_serve.delete(self.recipe_name, _blocking=False)
        deadline = time.monotonic() + STOPPING_S
        while self.recipe_name in ray_serve.status().applications and time.monotonic() < deadline:
            time.sleep(0.2)
        if not ray_serve.status().applications:
            end_proxy(STOPPING_S)


def start(recipe: Recipe, workspace: Workspace, where: Address) -> ServerHandle:
    """Serve what is promoted for `recipe`, ready to answer when this returns.

    Raises GateClosed when nothing is promoted, UserError when its files changed, other machines could ask without a
    key, the certificate is of no use, the environment names no right collector, there is no room for the engines here,
    the port is taken, or Ray Serve runs already at another address or for another recipe.
    """
    if recipe.serve.keys == "off" and not where.is_here_alone:
        raise UserError(
            f"{recipe.name} cannot listen at {where.host!r}: other machines would reach it, and serve.keys is off.",
            "Set serve.keys=required and make keys with `sluice keys add`, or listen at 127.0.0.1 alone.",
        )
    # A collector that no trace would reach is better said now than in a replica's log.
    is_wanted()
    deployment, arms = promoted(recipe.name, workspace)
    from cluster.connect import connect, starts_its_own

    is_here = starts_its_own(workspace.settings)
    if is_here:
        # Here the replica runs on this machine, and what it lacks is better said at once.
        if recipe.cluster.engine == "vllm":
            from pipelines.engines.vllm_package import check_installed

            check_installed()
        arms = {arm: one.here(workspace) for arm, one in arms.items()}
    connect(workspace.settings)
    if is_here:
        check_room(recipe, len(arms))
    else:
        check_on_head(where)
    from ray import serve as ray_serve
    from ray.serve.exceptions import RayServeException

    # It tells its driver of each step, and of an address with http though it speaks https.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    start_proxy(where)
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
    watcher = start_watcher(recipe.name, workspace.settings)
    return ServerHandle(where.url, recipe.name, deployment.model_version, watcher)


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
        ray_actor_options={"num_cpus": GATEWAY_CPUS},
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


def check_room(recipe: Recipe, arms: int) -> None:
    """Raise UserError when the embedded Ray, which no machine will join, cannot have the engines that must be there."""
    import ray

    served = recipe.serve
    engines = max(1, served.min_replicas) * (arms if served.engine_per_candidate else 1)
    one, there = replica_options(recipe.cluster), ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpus, cpus = engines * one.get("num_gpus", 0), engines * one["num_cpus"] + GATEWAY_CPUS
    if gpus > there.get("GPU", 0) or cpus > there["CPU"]:
        what = f"{gpus} GPUs" if gpus > there.get("GPU", 0) else f"{cpus} CPUs"
        raise UserError(
            f"{recipe.name}: {engines} engines and a gateway take {what}, more than Ray has on this machine.",
            "Lower serve.min_replicas, or set serve.engine_per_candidate=false: one engine then holds all candidates.",
        )


def replica_options(cluster: Cluster) -> dict[str, Any]:
    """What the engine's replica asks of Ray, which has been joined: a GPU where training would take one."""
    from cluster.connect import uses_gpu

    if cluster.use_gpu is False:
        # Ray leaves a node's GPUs in sight of an actor that asks for none, and torch would take one.
        return {"num_cpus": 1, "runtime_env": {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}}
    return {"num_cpus": 1} | ({"num_gpus": 1} if uses_gpu(cluster.use_gpu, cluster.accelerator_type) else {})


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
