"""The implementations of the GenerationService, and the one place that chooses between them.

Each knows nothing of the page and of HTTP's server side. `local` runs a model in this process;
`zero_gpu` does so in processes that borrow a GPU for one reply; `remote` speaks to another server.
"""

from __future__ import annotations

from falcon_mamba_app.checkpoint.progress import OnProgress, unheard
from falcon_mamba_app.protocol import GenerationService
from falcon_mamba_app.settings import Settings


def build_service(settings: Settings, on_progress: OnProgress = unheard) -> GenerationService:
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
    if settings.platform.lends_gpus:
        from falcon_mamba_app.service.zero_gpu.build import build_on_zero_gpu

        return build_on_zero_gpu(settings)
    from falcon_mamba_app.service.local.build import build_local, state_files

    return build_local(
        settings.model,
        settings.engine,
        state_files(settings),
        idle_s=settings.storage.state_idle_s,
        on_progress=on_progress,
    )
