"""The implementations of the GenerationService, and the one place that chooses between them."""

from __future__ import annotations

from falcon_mamba_app.protocol import GenerationService
from falcon_mamba_app.settings import Settings


def build_service(settings: Settings, *, on_zero_gpu: bool = False) -> GenerationService:
    """The service that the settings describe, not started yet.

    For a model that runs here, its checkpoint has been found and checked when this returns. Raises
    CheckpointError or SettingsError with one line that says what to do.
    """
    if settings.server.backend_url:
        from falcon_mamba_app.service.remote.service import RemoteService

        model = settings.model.model
        return RemoteService(
            settings.server.backend_url,
            model=None if model == "auto" else model,
            api_key=settings.server.backend_api_key,
            max_new_tokens=settings.engine.max_new_tokens,
        )
    if on_zero_gpu:
        from falcon_mamba_app.service.zero_gpu.service import build_on_zero_gpu

        return build_on_zero_gpu(settings)
    from falcon_mamba_app.service.local.service import LocalService

    return LocalService(settings.model, settings.engine)
