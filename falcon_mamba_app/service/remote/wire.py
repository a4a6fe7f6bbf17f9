"""Builds requests to an OpenAI-compatible server, and reads its models and errors.

These are pure functions. Servers differ in what they accept and report, so a `Backend` holds what
is known about this one. vLLM and this app fill missing fields from the checkpoint's own defaults,
so they get every field. An unknown server gets extension fields only if they change the reply.
"""

from __future__ import annotations

import json
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
    ChoiceForm,
    Continuation,
    Conversation,
    Form,
    GenerationRequest,
    GrammarForm,
    JsonForm,
    ModelInfo,
    RegexForm,
    SamplingParams,
    Text,
    TokenIds,
    sampling_field_names,
)
from falcon_mamba_app.service.remote.shapes import message_of

THIS_APP = "falcon-mamba-app"  # owned_by in /v1/models
VLLM = "vllm"
NEUTRAL = SamplingParams()
STANDARD_FIELDS = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
# Fields that are put into a body by code of their own.
TRANSLATED_FIELDS = ("seed", "stop", "max_new_tokens", "logit_bias", "logprobs")
EXTENSION_FIELDS = tuple(
    name for name in sampling_field_names() if name not in STANDARD_FIELDS + TRANSLATED_FIELDS
)
ERRORS_BY_CODE: dict[str, type[FalconMambaError]] = {
    kind.code: kind
    for kind in (PromptTooLong, NotSupported, NotFound, Overloaded, NotReady, EngineFailure)
}
# Fields that only this app needs; a reply is the same without them.
BOOKKEEPING_FIELDS = ("stream_options", "prompt_cache_key", "cache_salt", "cache_prompt")


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
        """Whether it takes our extensions, and can count tokens in every chunk."""
        return self.owner in (THIS_APP, VLLM)


def choose_model(listing: Any, wanted: str | None) -> Backend:
    """The wanted model, or the first. Raises BackendError if it is not served."""
    entries = _entries(listing)
    for entry in entries:
        if wanted in (None, "auto", entry["id"]):
            return Backend(str(entry.get("owned_by")), _model_info(entry))
    names = ", ".join(entry["id"] for entry in entries[:5]) or "none"
    what = "no model at all" if wanted in (None, "auto") else f"no model {wanted}; it has {names}"
    raise BackendError(f"the server behind --backend-url has {what}")


def _entries(listing: Any) -> list[dict[str, Any]]:
    """The models that have a name; some servers list them without the object around them."""
    listed = listing.get("data") or listing.get("models") if isinstance(listing, dict) else listing
    named = [entry for entry in listed or () if isinstance(entry, dict)]
    return [entry for entry in named if isinstance(entry.get("id"), str)]


def _model_info(entry: dict[str, Any]) -> ModelInfo:
    """All values of a copy of this app; of other servers the name and vLLM's length limit."""
    told = entry.get("falcon_mamba")
    if not isinstance(told, dict):
        limit = entry.get("max_model_len")
        max_tokens = limit if isinstance(limit, int) else None
        return ModelInfo(id=entry["id"], has_chat_template=True, max_prompt_tokens=max_tokens)
    values = {f.name: told[f.name] for f in fields(ModelInfo) if f.name in told}
    defaults = values.pop("default_sampling", {})
    known = {f.name: defaults[f.name] for f in fields(SamplingParams) if f.name in defaults}
    for name in ("stop", "stop_token_ids"):
        known[name] = tuple(known.get(name, ()))
    known["logit_bias"] = tuple(tuple(pair) for pair in known.get("logit_bias", ()))
    values["aliases"] = tuple(values.get("aliases", ()))
    return replace(
        ModelInfo(**values), default_sampling=SamplingParams(**known), can_continue=False
    )


def request_body(request: GenerationRequest, backend: Backend) -> tuple[str, dict[str, Any]]:
    """The endpoint and the body. Scoring is requested as a whole answer, the rest as a stream."""
    is_chat = isinstance(request.prompt, Conversation)
    body: dict[str, Any] = {"model": backend.model.id, **_sampling_fields(request, backend)}
    match request.prompt:
        case Conversation() as messages:
            body["messages"] = [{"role": m.role, "content": m.content} for m in messages]
        case Text() as text:
            body["prompt"] = text
        case TokenIds() as token_ids:
            body["prompt"] = token_ids
        case Continuation():
            raise AssertionError("a model whose `can_continue` is false was asked to continue ids")
    if isinstance(request.prompt, Conversation) and request.prompt.template_kwargs:
        body["chat_template_kwargs"] = dict(request.prompt.template_kwargs)
    if request.tells_ids:
        if not backend.is_known:
            raise NotSupported(
                "return_token_ids cannot be asked of the server behind --backend-url",
                param="return_token_ids",
            )
        body["return_token_ids"] = True
    if request.form is not None:
        body |= form_fields(request.form, backend)
    if backend.has_sessions and request.session_id is not None and not request.is_aside:
        body["prompt_cache_key"] = request.session_id
    if backend.has_sessions:  # for that server all our visitors are one
        body |= {"cache_salt": request.reuse_id} if request.reuse_id else {"cache_prompt": False}
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


def form_fields(form: Form, backend: Backend) -> dict[str, Any]:
    """The form as the server takes it: OpenAI's field knows schemas only."""
    match form:
        case JsonForm(schema=schema, is_lenient=is_lenient):
            named = {"name": "reply", "schema": json.loads(schema), "strict": not is_lenient}
            return {"response_format": {"type": "json_schema", "json_schema": named}}
        case RegexForm(pattern=pattern):
            structured: dict[str, Any] = {"regex": pattern}
        case ChoiceForm(choices=choices):
            structured = {"choice": list(choices)}
        case GrammarForm(grammar=grammar):
            structured = {"grammar": grammar}
    if not backend.is_known:
        raise NotSupported(
            f"{next(iter(structured))} cannot be asked of the server behind --backend-url;"
            " a JSON Schema can",
            param="structured_outputs",
        )
    return {"structured_outputs": structured}


def _sampling_fields(request: GenerationRequest, backend: Backend) -> dict[str, Any]:
    sampling = request.sampling
    chosen: dict[str, Any] = {name: getattr(sampling, name) for name in STANDARD_FIELDS}
    chosen["max_tokens"] = sampling.max_new_tokens
    for name in EXTENSION_FIELDS:
        value = getattr(sampling, name)
        if backend.is_known or value != getattr(NEUTRAL, name):
            chosen[name] = value
    if sampling.logit_bias:
        chosen["logit_bias"] = {str(token_id): bias for token_id, bias in sampling.logit_bias}
    if sampling.seed is not None:
        chosen["seed"] = sampling.seed
    if sampling.stop:
        chosen["stop"] = list(sampling.stop)
    if sampling.logprobs is not None and isinstance(request.prompt, Conversation):
        chosen |= {"logprobs": True, "top_logprobs": sampling.logprobs}
    elif sampling.logprobs is not None:
        chosen["logprobs"] = sampling.logprobs
    return chosen


def not_asked_for(request: GenerationRequest) -> tuple[str, ...]:
    """Fields of the request's body that may be left out, because they change nothing."""
    sampling = request.sampling
    neutral = (*STANDARD_FIELDS, *EXTENSION_FIELDS)
    same = (name for name in neutral if getattr(sampling, name) == getattr(NEUTRAL, name))
    return (*BOOKKEEPING_FIELDS, *same)


def error_from(status: int, data: bytes) -> FalconMambaError:
    """Our error for the server's answer."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    return error_from_body(status, body)


def error_from_body(status: int, body: Any) -> FalconMambaError:
    """Our error for a status and the value of its body, or of an event in mid-stream.

    OpenAI's servers wrap it as {"error": …}; older vLLM does not.
    """
    told = body.get("error", body) if isinstance(body, dict) else None
    told = told if isinstance(told, dict) else {}
    message = " ".join(message_of(body).split()) or f"it answered {status}"
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
