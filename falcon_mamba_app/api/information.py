"""The models, the health and the metrics of the service over HTTP."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from falcon_mamba_app import __version__
from falcon_mamba_app.api.names import ServedNames, ready_model
from falcon_mamba_app.api.prometheus import CONTENT_TYPE, MetricsPage
from falcon_mamba_app.api.reading import BodyReader
from falcon_mamba_app.api.schemas import Strict
from falcon_mamba_app.figures import Figures
from falcon_mamba_app.http.transport import json_response, sse_event
from falcon_mamba_app.protocol import GenerationService, ModelInfo

OWNER = "falcon-mamba-app"  # tells a copy of this app, which has sessions, from other servers
ABOUT_TOOLS = "by a prompt and a grammar; the model was not trained to call tools"


class LoadBody(Strict):
    """The body of POST /load_model."""

    model: str | None = None


class Information:
    """The models, the health and the metrics of the service."""

    def __init__(self, service: GenerationService, names: ServedNames, figures: Figures) -> None:
        self._service = service
        self._names = names
        self._created = int(time.time())
        self._metrics = MetricsPage(service, figures)

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        model = ready_model(self._service)
        entries = [self._entry(model, name) for name in self._names.listed(model)]
        return json_response({"object": "list", "data": entries})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{id}."""
        model = ready_model(self._service)
        name = self._names.answered(model, request.path_params["model_id"])
        return json_response(self._entry(model, name))

    async def load_model(self, request: Request) -> Response:
        """POST /load_model, for `transformers chat`: the one model is loaded already."""
        body = await BodyReader().read(request, LoadBody)
        model = ready_model(self._service)
        name = self._names.answered(model, body.model)
        told = {"status": "ready", "model": name, "cached": True}
        return Response(sse_event(told), media_type="text/event-stream")

    async def health(self, request: Request) -> Response:
        """GET /health: 200 if requests are served, otherwise 503 with the reason."""
        stats = self._service.stats()
        is_ready = stats.status == "ready"
        return json_response(
            {
                "status": stats.status,
                "detail": stats.detail,
                "progress": 1.0 if is_ready else stats.load_progress,
                "model": stats.model.id if stats.model else None,
                "version": __version__,
            },
            status=200 if is_ready else 503,
        )

    async def live(self, request: Request) -> Response:
        """GET /health/live: 503 if only a restart helps, otherwise 200, also while loading."""
        stats = self._service.stats()
        is_live = stats.status != "failed"
        answer = {"status": "live" if is_live else "failed", "detail": stats.detail}
        return json_response(answer, status=200 if is_live else 503)

    async def metrics(self, request: Request) -> Response:
        """GET /metrics, for Prometheus."""
        return Response(self._metrics.text(), media_type=CONTENT_TYPE)

    def _entry(self, model: ModelInfo, name: str) -> dict[str, Any]:
        """OpenAI's model object; all other facts are under "falcon_mamba"."""
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": OWNER,
            "max_model_len": model.max_prompt_tokens,  # vLLM's name, which clients read
            "falcon_mamba": {**asdict(model), "version": __version__, "tools": ABOUT_TOOLS},
        }
