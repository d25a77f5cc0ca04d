"""The Serve application of a recipe: a gateway, and an engine that holds what is promoted beside its base."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from cluster.errors import StageFailed, UserError
from cluster.settings import Settings
from pipelines.engines.protocol import EngineOptions
from pipelines.recipe import Cluster, Recipe, Serve
from pipelines.workspace import Workspace
from serve.following import Follow, promoted
from serve.hosting import EngineReplica, Event, Options, Prompt, Refused
from serve.service import ChatService, Hosted
from serve.tracing import is_wanted

if TYPE_CHECKING:
    from pipelines.models.candidate import Candidate
    from pipelines.records import DeploymentRow

REPLICA_HEADROOM = 64
"""Requests above batch and queue that a replica takes on, so that the engine's own bound is the one that refuses."""

WAKING_S = 900
"""Seconds that an engine may take to wake before the service is called broken: large models load for minutes."""

ANSWER_S = 600
"""Seconds that an engine which is not needed any more has for the answers that it is in."""

STOPPING_S = 30
"""How long the end of a service is waited for; what has not ended by then ends without being waited for."""

UPSCALE_S = 5.0
"""Seconds for which more than the engines can take must be asked before another one is started."""


class ServeEngine:
    """The engine deployment, as the gateway sees it."""

    def __init__(self, handle: Any, sleeps: bool = False) -> None:
        """`sleeps`: whether no replica at all is as it should be while nobody asks."""
        self._stream, self._call, self._sleeps = handle.options(stream=True), handle, sleeps
        self._unheard: dict[object, float] = {}
        """Requests of which no replica has said anything yet -> since when."""

    async def answer(self, arm: str, prompt: Prompt, options: Options) -> AsyncIterator[Event]:
        """Started and then pieces, or Refused; closing it cancels the request on the replica."""
        from ray.exceptions import TaskCancelledError
        from ray.serve.exceptions import BackPressureError

        events = self._stream.answer.remote(arm, prompt, options)
        this = object()
        self._unheard[this] = time.monotonic()
        try:
            async for event in events:
                self._unheard.pop(this, None)
                yield event
        except BackPressureError as error:
            yield Refused("overloaded", str(error))
        except TaskCancelledError:
            # Serve's name for a client that left while the request was on its way to the replica.
            raise asyncio.CancelledError from None
        finally:
            self._unheard.pop(this, None)
            events.cancel()

    async def health(self) -> dict[str, Any]:
        """What all replicas say; asking wakes none.

        Raises what the last one raised when none answers, DeploymentUnavailableError when there is none and should be:
        also when one that is to wake has not for WAKING_S.
        """
        from ray.serve.exceptions import DeploymentUnavailableError

        try:
            said = await self._call.broadcast("health").results_async(return_exceptions=True)
        except DeploymentUnavailableError:
            if not self._sleeps or time.monotonic() - min(self._unheard.values(), default=math.inf) > WAKING_S:
                raise
            return together([]) | {"waiting": len(self._unheard)}
        found = [one for one in said if isinstance(one, dict)]
        if not found:
            raise said[-1]
        return together(found)


def together(replicas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What replicas say of themselves as one: sums, and of several versions the one that most have. Pure."""
    found: dict[str, Any] = {"replicas": len(replicas)}
    for name in ("generated_tokens", "running", "waiting"):
        found[name] = sum(one[name] for one in replicas)
    versions = sorted(one["version"] for one in replicas if "version" in one)
    if versions:
        found["version"] = max(versions, key=versions.count)
        for name in ("loading", "trouble"):
            found[name] = next((one[name] for one in replicas if one[name]), "")
    return found


class Gateway:
    """The ingress deployment."""

    def __init__(self, engine: Any, hosted: Hosted, settings: Settings) -> None:
        self._service = ChatService(hosted, ServeEngine(engine, hosted.sleeps), Workspace(settings))
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


def start(recipe: Recipe, workspace: Workspace, host: str = "127.0.0.1", port: int = 8000) -> ServerHandle:
    """Serve what is promoted for `recipe`, ready to answer when this returns.

    Raises GateClosed when nothing is promoted, UserError when its files changed, other machines could ask without a
    key, the environment names no right collector, the port is taken, or Ray Serve runs already at another address or
    for another recipe.
    """
    _check_exposed(recipe, host)
    # A collector that no trace would reach is better said now than in a replica's log.
    is_wanted()
    deployment, arms = promoted(recipe.name, workspace)
    from cluster.connect import connect, inside_job

    if not workspace.settings.ray_address and not inside_job():
        # Here the replica runs on this machine, and what it lacks is better said at once.
        if recipe.cluster.engine == "vllm":
            from pipelines.engines.vllm_package import check_installed

            check_installed()
        arms = {arm: one.here(workspace) for arm, one in arms.items()}
    connect(workspace.settings)
    from ray import serve as ray_serve
    from ray.serve.exceptions import RayServeException

    _start_proxy(host, port)
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
        f"http://{_reachable(host)}:{port}",
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
    )
    engine: Any = ray_serve.deployment(
        EngineReplica,
        name="engine",
        **replicas(served),
        ray_actor_options=replica_options(recipe.cluster),
        max_ongoing_requests=accepted,
        # At the gateway, while there is no engine or all are full.
        max_queued_requests=max(REPLICA_HEADROOM, served.max_batch_size + served.max_queued_requests),
        health_check_timeout_s=120,
    )
    gateway: Any = ray_serve.deployment(
        ray_serve.ingress()(Gateway),
        name="gateway",
        num_replicas=1,
        ray_actor_options={"num_cpus": 1},
        max_ongoing_requests=4 * accepted * served.max_replicas,
        # Longer than that of an engine which does not scale, whose end ends the last streams: then their interactions
        # are written.
        graceful_shutdown_timeout_s=20,
    )
    follow = Follow(recipe.name, settings, deployment.model_version)
    bound = engine.bind(arms, engine_options(recipe, deployment.content["recipe"]["train"], arms), follow)
    return gateway.bind(bound, hosted, settings)


def engine_options(recipe: Recipe, trained: Mapping[str, Any], arms: "Mapping[str, Candidate]") -> EngineOptions:
    """How the engine is set up for arms that were trained as `trained` says. Pure."""
    bases = len({one.base_folder for one in arms.values()})
    return EngineOptions(
        recipe.cluster.engine,
        trained["dtype"],
        recipe.serve.max_batch_size,
        recipe.serve.max_queued_requests,
        int(trained.get("lora_r") or 0),
        # Where the arms have weights of their own, one more: the next version's, which comes while the last answers.
        bases + (bases > 1),
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


def _check_exposed(recipe: Recipe, host: str) -> None:
    """Raise UserError when whoever reaches `host` from another machine could ask without a key."""
    if recipe.serve.keys == "required":
        return
    try:
        here = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        # A name may lead anywhere, tomorrow too.
        here = False
    if not here:
        raise UserError(
            f"{recipe.name} cannot listen at {host!r}: other machines would reach it, and serve.keys is off.",
            "Set serve.keys=required and make keys with `sluice keys add`, or listen at 127.0.0.1 alone.",
        )


def _start_proxy(host: str, port: int) -> None:
    """Start Serve's HTTP proxy. Raises UserError when another process has the port, or Serve has another address."""
    import socket

    from ray import serve as ray_serve

    if running := _running_address():
        # Serve would go on at its address without a word, and this service with it.
        _check_address(running, (host, port))
    else:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise UserError(
                    f"Port {port} of {host} cannot be used: {error.strerror}.", "Choose another: `--port NUMBER`."
                ) from None
    ray_serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port, "keep_alive_timeout_s": 75})


def _running_address() -> tuple[str | None, int] | None:
    """Host and port of the Serve that this Ray cluster runs; None when it runs none. No host: it has no HTTP."""
    # Ray's public status leaves the address out, and what `start` is given is ignored once Serve runs.
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    return None if client is None else (client.http_config.host, client.http_config.port)


def _check_address(running: tuple[str | None, int], asked: tuple[str, int]) -> None:
    if running == asked:
        return
    host, port = running
    if host is None:
        raise UserError("Ray Serve runs in this cluster without HTTP.", "End it first: `serve shutdown`.")
    raise UserError(
        f"Ray Serve runs in this cluster already, at {host}:{port}; it cannot listen at {asked[0]}:{asked[1]} too.",
        f"Say `--host {host} --port {port}`, or end what is served there first.",
    )


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


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::") else host
