"""What goes to and comes from an OpenAI-compatible server: bodies, models, errors, event streams.

Pure functions. Servers differ in what they accept and tell, so a `Backend` says what is known of
this one. vLLM and this app fill fields that are left out from the checkpoint's own defaults, so
they are sent every field; a stranger is sent its extensions only where they matter.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, fields, replace
from typing import Any

from falcon_mamba_app.errors import (
    BackendError,
    EngineFailure,
    FalconMambaError,
    InvalidRequest,
    NotFound,
    NotReady,
    NotSupported,
    Overloaded,
    PromptTooLong,
)
from falcon_mamba_app.protocol import (
    Conversation,
    GenerationRequest,
    ModelInfo,
    SamplingParams,
    Text,
    TokenIds,
)

THIS_APP = "falcon-mamba-app"  # owned_by in /v1/models
VLLM = "vllm"
NEUTRAL = SamplingParams()
STANDARD_FIELDS = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
EXTENSION_FIELDS = ("top_k", "min_p", "repetition_penalty", "ignore_eos")
ERRORS_BY_CODE: dict[str, type[FalconMambaError]] = {
    kind.code: kind
    for kind in (PromptTooLong, NotSupported, NotFound, Overloaded, NotReady, EngineFailure)
}
MAX_LINE_BYTES = 64 * 2**20  # a scored prompt is one long line


@dataclass(frozen=True, slots=True)
class Backend:
    """The server and the model that was chosen on it."""

    owner: str
    model: ModelInfo

    @property
    def has_sessions(self) -> bool:
        return self.owner == THIS_APP

    @property
    def is_known(self) -> bool:
        """It takes our extensions, and counts tokens in every chunk when asked to."""
        return self.owner in (THIS_APP, VLLM)


def choose_model(listing: Any, wanted: str | None) -> Backend:
    """The wanted model, or the first. Raises BackendError if it is not served."""
    entries = [entry for entry in listing["data"] if isinstance(entry["id"], str)]
    for entry in entries:
        if wanted in (None, "auto", entry["id"]):
            return Backend(str(entry.get("owned_by")), _model_info(entry))
    names = ", ".join(entry["id"] for entry in entries[:5]) or "none at all"
    raise BackendError(f"the server behind --backend-url has no model {wanted}; it has {names}")


def _model_info(entry: dict[str, Any]) -> ModelInfo:
    """All that a copy of this app tells; of others only the name and vLLM's length limit."""
    told = entry.get("falcon_mamba")
    if not isinstance(told, dict):
        limit = entry.get("max_model_len")
        max_tokens = limit if isinstance(limit, int) else None
        return ModelInfo(id=entry["id"], has_chat_template=True, max_prompt_tokens=max_tokens)
    values = {f.name: told[f.name] for f in fields(ModelInfo) if f.name in told}
    defaults = values.pop("default_sampling", {})
    known = {f.name: defaults[f.name] for f in fields(SamplingParams) if f.name in defaults}
    known["stop"] = tuple(known.get("stop", ()))
    return replace(ModelInfo(**values), default_sampling=SamplingParams(**known))


def request_body(request: GenerationRequest, backend: Backend) -> tuple[str, dict[str, Any]]:
    """The endpoint and what to send there. Scoring is asked for whole, the rest as a stream."""
    is_chat = isinstance(request.prompt, Conversation)
    body: dict[str, Any] = {"model": backend.model.id, **_sampling_fields(request, backend)}
    match request.prompt:
        case Conversation() as messages:
            body["messages"] = [{"role": m.role, "content": m.content} for m in messages]
        case Text() as text:
            body["prompt"] = text
        case TokenIds() as token_ids:
            body["prompt"] = token_ids
    if backend.has_sessions and request.session_id is not None:
        body["prompt_cache_key"] = request.session_id
    if request.score_prompt is None:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
        if backend.is_known:
            body["stream_options"]["continuous_usage_stats"] = True
    elif is_chat:
        raise NotSupported("only a plain prompt can be scored behind --backend-url")
    else:
        body["echo"] = True
        body["logprobs"] = max(request.score_prompt, request.sampling.logprobs or 0)
    return ("chat/completions" if is_chat else "completions"), body


def _sampling_fields(request: GenerationRequest, backend: Backend) -> dict[str, Any]:
    sampling = request.sampling
    chosen: dict[str, Any] = {name: getattr(sampling, name) for name in STANDARD_FIELDS}
    chosen["max_tokens"] = sampling.max_new_tokens
    for name in EXTENSION_FIELDS:
        value = getattr(sampling, name)
        if backend.is_known or value != getattr(NEUTRAL, name):
            chosen[name] = value
    if sampling.seed is not None:
        chosen["seed"] = sampling.seed
    if sampling.stop:
        chosen["stop"] = list(sampling.stop)
    if sampling.logprobs is not None and isinstance(request.prompt, Conversation):
        chosen |= {"logprobs": True, "top_logprobs": sampling.logprobs}
    elif sampling.logprobs is not None:
        chosen["logprobs"] = sampling.logprobs
    return chosen


def error_from(status: int, data: bytes) -> FalconMambaError:
    """Our error for the server's answer."""
    try:
        body = json.loads(data)
    except ValueError:
        body = None
    return error_from_body(status, body)


def error_from_body(status: int, body: Any) -> FalconMambaError:
    """Our error for a status and the value of its body, or of an event in mid-stream.

    OpenAI's servers wrap it as {"error": …}; older vLLM does not.
    """
    told = body.get("error", body) if isinstance(body, dict) else None
    told = told if isinstance(told, dict) else {"message": told}
    message = " ".join(str(told.get("message") or f"it answered {status}").split())
    if status in (401, 403):
        return BackendError(
            f"the server behind --backend-url refused the key ({status}); set --backend-api-key"
        )
    kind = ERRORS_BY_CODE.get(str(told.get("code")))
    if kind is not None and issubclass(kind, InvalidRequest):
        return kind(message, param=_text_or_none(told.get("param")))
    if kind is not None:
        return kind(message)
    if status in (400, 413, 422):
        return InvalidRequest(message, param=_text_or_none(told.get("param")))
    if status in (429, 503):
        return Overloaded(f"the server behind --backend-url is busy: {message}")
    return BackendError(f"the server behind --backend-url failed: {message}")


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


async def lines(parts: AsyncIterator[bytes]) -> AsyncGenerator[str, None]:
    """The lines of an event stream, which end at a line feed and at nothing else.

    httpx's own iterator also splits at U+2028 and the like, which servers send inside JSON.
    """
    rest = bytearray()
    async for part in parts:
        rest += part
        if b"\n" not in part:
            if len(rest) > MAX_LINE_BYTES:
                raise BackendError(
                    "the server behind --backend-url sent a line of more than"
                    f" {MAX_LINE_BYTES} bytes"
                )
            continue
        *whole, last = rest.split(b"\n")
        rest = last
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
    if rest:
        yield rest.decode(errors="replace")
