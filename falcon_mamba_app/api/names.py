"""The names of the one model, and the check of the name in a request."""

from __future__ import annotations

from falcon_mamba_app.api.fields import shown
from falcon_mamba_app.errors import EngineFailure, NotReady
from falcon_mamba_app.http.errors import ModelNotFound
from falcon_mamba_app.protocol import GenerationService, ModelInfo

# Names that clients send if their user chose no model: Hugging Face's, TGI's examples, and others.
THE_ONLY_ONE = ("", "auto", "default", "dummy", "tgi")


def ready_model(service: GenerationService) -> ModelInfo:
    """The loaded model. Raises NotReady or EngineFailure if nothing can be generated."""
    stats = service.stats()
    if stats.status == "loading":
        raise NotReady(f"the model is still loading{': ' if stats.detail else ''}{stats.detail}")
    if stats.status == "failed" or stats.model is None:
        raise EngineFailure(stats.detail or "the server has stopped generating")
    return stats.model


class ServedNames:
    """The operator's names for the model, otherwise the model's own."""

    def __init__(self, configured: tuple[str, ...] = ()) -> None:
        self._configured = configured

    def listed(self, model: ModelInfo) -> tuple[str, ...]:
        """The names in /v1/models; answers carry the first one."""
        return self._configured or (model.id,)

    def answered(self, model: ModelInfo, asked: str | None) -> str:
        """The name for the answer to a request that names `asked`. Raises ModelNotFound."""
        listed = self.listed(model)
        wanted = (asked or "").strip().casefold()
        for name in listed:
            if name.casefold() == wanted:
                return name
        others = (*THE_ONLY_ONE, *(name.casefold() for name in (model.id, *model.aliases)))
        if wanted in others:
            return listed[0]
        raise ModelNotFound(
            f"the model {shown(asked)} does not exist here; this server has {', '.join(listed)}"
        )
