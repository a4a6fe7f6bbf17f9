"""Settings that cannot go together, each refused with one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from falcon_mamba_app.errors import SettingsError
from falcon_mamba_app.settings.flags import flag
from falcon_mamba_app.settings.options import AUTO
from falcon_mamba_app.settings.sections import SECTIONS, Settings
from falcon_mamba_app.settings.storage import OFF

LOCAL_NAMES = {
    option.name
    for section in SECTIONS.values()
    for option in fields(section)
    if option.metadata["is_local"]
}


def refuse_contradictions(settings: Settings, given: Mapping[str, Any]) -> None:
    server, model = settings.server, settings.model
    if server.backend_url is not None:
        if not server.backend_url.startswith(("http://", "https://")):
            raise SettingsError(
                f"--backend-url is {server.backend_url!r}; it must start with http:// or https://"
            )
        for name in [name for name in given if name in LOCAL_NAMES]:
            raise SettingsError(
                f"{flag(name)} belongs to a model that runs here, not behind --backend-url"
            )
    elif server.backend_api_key is not None:
        raise SettingsError("--backend-api-key needs --backend-url")
    if settings.library.keep_conversations == "off":
        for name in [name for name in ("keep_days", "database_url") if given.get(name)]:
            raise SettingsError(f"{flag(name)} needs conversations; --keep-conversations is off")
    if settings.storage.state_store not in (AUTO, OFF):
        if server.backend_url is not None:
            raise SettingsError("--state-store belongs to a model that runs here, not behind a URL")
        if settings.platform.lends_gpus:
            raise SettingsError("--state-store: on ZeroGPU no state outlives its process")
    _refuse_lonely_copies(settings)
    unknown = [key for key, _ in server.key_weights if key not in server.api_key]
    if unknown:
        raise SettingsError(f"--key-weights names {len(unknown)} keys that --api-key does not have")
    if settings.people.user_header and not server.trusted_proxies:
        raise SettingsError(
            "--user-header needs --trusted-proxies: nobody else may say who somebody is"
        )
    if model.revision and Path(model.model).is_dir():
        raise SettingsError(f"--revision belongs to a hub model; {model.model} is a folder")
    if model.revision and model.model in ("auto", "nano"):
        raise SettingsError(f"--revision needs a hub model; --model is {model.model}")
    if model.double_quantization != "auto" and model.quantization in ("none", "int8"):
        raise SettingsError(
            f"--double-quantization {model.double_quantization} belongs to 4-bit matrices;"
            f" --quantization is {model.quantization}"
        )
    if model.device == "cpu" and model.dtype == "float16":
        raise SettingsError("--dtype float16 needs a GPU; on the CPU use float32 or bfloat16")
    if model.device == "cpu" and model.kernels in ("triton", "library"):
        raise SettingsError(
            f"--kernels {model.kernels} needs a GPU; on the CPU use auto, numba or reference"
        )
    if model.device == "cuda" and model.kernels == "numba":
        raise SettingsError(
            "--kernels numba runs on the CPU; on a GPU use auto, triton, library or reference"
        )


def _refuse_lonely_copies(settings: Settings) -> None:
    cluster, server = settings.cluster, settings.server
    if cluster.replica is not None and server.session_secret is None:
        raise SettingsError(
            "--replica needs a --session-secret, the same for all copies: with one of its own, a"
            " copy would not know the conversations of the others"
        )
    if cluster.replicas == 1:
        return
    if cluster.replica is not None:
        raise SettingsError("--replica names one copy; --replicas starts several, and names them")
    if server.share or settings.platform.lends_gpus:
        raise SettingsError("--replicas starts servers of its own; --share and ZeroGPU have one")
