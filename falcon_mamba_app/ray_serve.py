"""The app under Ray Serve: whole copies as replicas, one GPU each.

`serve run deploy/ray/serve.yaml` starts it. Ray reads HTTP; it starts, watches, replaces and scales
the replicas, and brings requests with the same `x-session-id` to the same one while the replicas
stay the same. After that a conversation moves, with its library and its stored state. Needs the
extra `ray`; nothing else of the app imports this.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import shlex
from typing import Any, ClassVar

from pydantic import BaseModel
from ray import serve
from ray.serve.config import (
    AutoscalingConfig,
    AutoscalingContext,
    AutoscalingPolicy,
    RequestRouterConfig,
)
from ray.util.metrics import Gauge
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from falcon_mamba_app.errors import EngineFailure
from falcon_mamba_app.middleware.departure import Departure
from falcon_mamba_app.server import build
from falcon_mamba_app.settings import load_settings

ROUTER = "ray.serve.experimental.consistent_hash_router:ConsistentHashRouter"
# Requests of one replica. An open page holds three, most of them idle; the engine has a queue.
MAX_REQUESTS = 1_000
CLOSING_S = 20.0  # beyond the drain: states are written
ROWS, PLACES = "rows", "places"  # what each replica tells the autoscaler
FULL = 0.75  # of all places; with more rows, running or waiting, another replica is wanted
TOLD_EVERY_S = 5.0


class Arguments(BaseModel):
    """`args` of the application in Ray's configuration."""

    options: str = ""  # as on the command line; variables count too
    gpus: float = 1
    cpus: float = 1
    min_replicas: int = 1
    max_replicas: int = 1


class Replica:
    """One copy of the app in a process of Ray's. It is ready when its model is."""

    asgi_app: ClassVar[Any]  # of the one replica in this process

    async def __init__(self, options: str) -> None:  # type: ignore[misc]  # Ray waits for it
        name = re.sub("[^a-z0-9]", "", serve.get_replica_context().replica_id.unique_id.lower())
        settings = load_settings([*shlex.split(options), f"--replica={name[:16]}"], os.environ)
        self._served = await build(settings, lambda share, what: None)
        await self._served.service.start()
        proxies = settings.server.trusted_proxies
        app: Any = Departure(self._served.app, root_path=settings.server.base_path)
        Replica.asgi_app = ProxyHeadersMiddleware(app, list(proxies)) if proxies else app
        self._telling = asyncio.create_task(self._tell())

    async def __del__(self) -> None:
        """Ray has let the replies end: write what other replicas will need."""
        self._telling.cancel()
        await self._served.close()

    async def check_health(self) -> None:
        """Raises EngineFailure, and Ray replaces the replica."""
        stats = self._served.service.stats()
        if stats.status == "failed":
            raise EngineFailure(stats.detail)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        stats = self._served.service.stats()
        rows = (stats.running or 0) + (stats.waiting or 0)
        return {ROWS: rows, PLACES: stats.max_running or 1}

    async def _tell(self) -> None:
        """Ray's own /metrics has each replica's figures; the app's would be those of any one."""
        gauges = {
            name: Gauge(f"falcon_mamba_{name}", description=f"Sequences {name} in a replica")
            for name in ("running", "waiting")
        }
        while True:
            stats = self._served.service.stats()
            for name, gauge in gauges.items():
                gauge.set(getattr(stats, name) or 0)
            await asyncio.sleep(TOLD_EVERY_S)


def replicas_for_rows(context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
    """As many replicas as the rows of all fill; one fewer only if the others have room to spare.

    Ray's own count of requests would count every open page.
    """
    told = context.aggregated_metrics or {}
    rows, places = (list((told.get(name) or {}).values()) for name in (ROWS, PLACES))
    now = context.current_num_replicas
    wanted = now
    if places:
        each = FULL * sum(places) / len(places)
        needed = math.ceil(sum(rows) / each)
        wanted = needed if needed > now or sum(rows) < each * (now - 1) / 2 else now
        wanted = max(wanted, now - 1)
    low, high = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
    return min(high, max(low, wanted)), {}


def _asgi_app() -> Any:
    return Replica.asgi_app


def app(args: Arguments) -> serve.Application:
    """What the configuration imports."""
    drain_s = load_settings([*shlex.split(args.options)], os.environ).cluster.drain_s
    scaling: dict[str, Any] = {"num_replicas": args.min_replicas}
    if args.max_replicas > args.min_replicas:
        policy = AutoscalingPolicy(policy_function=f"{__name__}:{replicas_for_rows.__name__}")
        scaling = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=args.min_replicas, max_replicas=args.max_replicas, policy=policy
            )
        }
    deployment = serve.deployment(
        name="FalconMamba",
        max_ongoing_requests=MAX_REQUESTS,
        graceful_shutdown_timeout_s=drain_s + CLOSING_S,
        ray_actor_options={"num_gpus": args.gpus, "num_cpus": args.cpus},
        request_router_config=RequestRouterConfig(request_router_class=ROUTER),
        **scaling,
    )
    return deployment(serve.ingress(_asgi_app)(Replica)).bind(args.options)
