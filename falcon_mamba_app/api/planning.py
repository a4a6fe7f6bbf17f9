"""Plans the replies to a checked body.

A body asks for n replies to each of its prompts. Each reply becomes a GenerationRequest. The first
reply to a prompt leads; the others follow it and share its session, so they restore the state that
has read the prompt instead of reading it again. There is no HTTP here, and no shape of OpenAI's.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from falcon_mamba_app.api.fields import shown
from falcon_mamba_app.api.forms import form_of
from falcon_mamba_app.api.schemas import (
    NO_LIMIT,
    ChatBody,
    ChatMessage,
    CompletionBody,
    GenerationBody,
)
from falcon_mamba_app.api.tools import ToolUse, tool_use_of
from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.protocol import (
    BACKGROUND_WEIGHT,
    Conversation,
    Form,
    GenerationRequest,
    Message,
    ModelInfo,
    SamplingParams,
    Text,
    TokenIds,
    sampling_field_names,
)

DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's
SEED_RANGE = 2**64
TOKEN_ID = re.compile("[0-9]{1,10}")  # Python reads no number of 5,000 digits
# Log-probabilities per request: an answer of 300 MB, thirty times what harnesses ask for.
MAX_LOGPROBS_IN_ALL = 500_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedReply:
    """One reply. `follows` is the index of the reply whose state it starts from, None to lead."""

    index: int
    prompt_index: int
    request: GenerationRequest
    follows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All replies of one body. `ephemeral_session` is to be forgotten when they are written."""

    replies: tuple[PlannedReply, ...]
    ephemeral_session: str | None = None

    @property
    def session_id(self) -> str | None:
        """The session that is kept afterwards, if any."""
        return None if self.ephemeral_session else self.replies[0].request.session_id

    def reusing(self, reuse_id: str | None) -> Plan:
        """The same replies, which may begin from states of the owner's earlier requests."""
        return self._with(lambda request: replace(request, reuse_id=reuse_id))

    def of_owner(self, owner: str, weight: float) -> Plan:
        """The same replies, counted in the owner's share of the service."""
        return self._with(
            lambda request: replace(
                request, owner=owner + request.owner, weight=weight * request.weight
            )
        )

    def in_background(self) -> Plan:
        """The same replies, in a line of their own behind everybody's."""
        return self._with(
            lambda request: replace(request, owner=" batch", weight=BACKGROUND_WEIGHT)
        )

    def _with(self, change: Callable[[GenerationRequest], GenerationRequest]) -> Plan:
        changed = (replace(reply, request=change(reply.request)) for reply in self.replies)
        return replace(self, replies=tuple(changed))


def plan_chat(body: ChatBody, model: ModelInfo, session_id: str | None) -> Plan:
    """The replies to a conversation."""
    messages, form = conversation_of(body.messages), _form(body)
    if tools := tool_use(body):
        messages, form = tools.told(messages), tools.form(form)
    if body.chat_template_kwargs:
        messages = messages.with_template_kwargs(body.chat_template_kwargs)
    field = "max_completion_tokens" if body.max_tokens is None else "max_tokens"
    max_new_tokens = getattr(body, field)
    refuse_too_many_tokens(field, max_new_tokens, model)
    sampling = sampling_of(
        body, model, max_new_tokens, logprobs=(body.top_logprobs or 0) if body.logprobs else None
    )
    request = GenerationRequest(
        prompt=messages,
        sampling=sampling,
        session_id=session_id,
        form=form,
        score_prompt=body.prompt_logprobs,
        tells_ids=bool(body.return_token_ids),
    )
    return _plan([request], num_each=body.n or 1, is_stored=body.store)


def tool_use(body: ChatBody) -> ToolUse | None:
    """What the body asks for in tools."""
    return tool_use_of(body.tools, body.tool_choice, are_parallel=body.parallel_tool_calls)


def conversation_of(messages: list[ChatMessage]) -> Conversation:
    """The messages as the model's template knows them."""
    return Conversation(
        Message("system" if m.role == "developer" else m.role, m.content) for m in messages
    )


def plan_completion(body: CompletionBody, model: ModelInfo, session_id: str | None) -> Plan:
    """The replies to each prompt, prompt by prompt."""
    max_new_tokens = DEFAULT_COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
    refuse_too_many_tokens("max_tokens", max_new_tokens, model)
    sampling = sampling_of(body, model, max_new_tokens, logprobs=body.logprobs)
    if body.echo and body.logprobs is not None and max_new_tokens == 1:
        # Clients that score a prompt this way cut off the one new token, so it must be there.
        sampling = replace(sampling, ignore_eos=True)
    form = _form(body)
    requests = [
        GenerationRequest(
            prompt=prompt,
            sampling=sampling,
            session_id=session_id,
            score_prompt=_score_prompt(body, prompt),
            tells_ids=bool(body.return_token_ids),
            form=form,
        )
        for prompt in body.prompt
    ]
    return _plan(requests, num_each=body.n or 1, is_stored=body.store)


def _form(body: ChatBody | CompletionBody) -> Form | None:
    return form_of(body.response_format, body.structured_outputs)


def _score_prompt(body: CompletionBody, prompt: Text | TokenIds) -> int | None:
    """Alternatives to ask for beside each token of the prompt, None for no scoring.

    An echo without logprobs is scored too if only the model knows the text, or if the request asks
    for nothing else.
    """
    is_needed = isinstance(prompt, TokenIds) or body.max_tokens == 0
    echoed = 0 if body.logprobs is None and is_needed else body.logprobs
    asked = (body.prompt_logprobs, echoed if body.echo else None)
    return max((number for number in asked if number is not None), default=None)


def refuse_too_many_tokens(field: str, value: int | None, model: ModelInfo) -> None:
    """Raises InvalidRequest for more new tokens than this server writes."""
    limit = model.max_new_tokens
    if value is not None and limit is not None and value > limit:
        raise InvalidRequest(
            f"{field} is {value}; this server writes at most {limit} tokens", param=field
        )


def sampling_of(
    body: GenerationBody,
    model: ModelInfo,
    max_new_tokens: int | None,
    *,
    logprobs: int | None,
) -> SamplingParams:
    """The body's sampling parameters; the model's defaults for the rest."""
    defaults = model.default_sampling
    given: dict[str, Any] = {
        name: getattr(body, name)
        for name in sampling_field_names()
        if name not in ("logprobs", "max_new_tokens") and getattr(body, name) is not None
    }
    if "stop_token_ids" in given:
        given["stop_token_ids"] = tuple(given["stop_token_ids"])
    if "logit_bias" in given:
        given["logit_bias"] = _biases(given["logit_bias"])
    if "stop" in given:
        given["stop"] = tuple(given["stop"])
    if given.get("top_p") == 0:  # only the likeliest token
        given |= {"top_p": 1.0, "temperature": 0.0}
    if max_new_tokens == NO_LIMIT:
        max_new_tokens = model.max_new_tokens or defaults.max_new_tokens
    if max_new_tokens is None:
        max_new_tokens = min(
            defaults.max_new_tokens, model.max_new_tokens or defaults.max_new_tokens
        )
    return replace(defaults, **given, max_new_tokens=max_new_tokens, logprobs=logprobs)


def _refuse_too_many_logprobs(requests: list[GenerationRequest], *, num_each: int) -> None:
    sampling = requests[0].sampling
    if sampling.logprobs is None:
        return
    num_replies = len(requests) * num_each
    asked = num_replies * sampling.max_new_tokens * (1 + sampling.logprobs)
    if asked > MAX_LOGPROBS_IN_ALL:
        raise InvalidRequest(
            f"{num_replies} replies of {sampling.max_new_tokens} tokens with {sampling.logprobs}"
            f" alternatives each are {asked:,} log-probabilities; one request may ask for"
            f" {MAX_LOGPROBS_IN_ALL:,}",
            param="logprobs",
        )


def _biases(given: dict[str, float]) -> tuple[tuple[int, float], ...]:
    """Biases by token id. JSON's names are texts."""
    wrong = next((name for name in given if not TOKEN_ID.fullmatch(name)), None)
    if wrong is not None:
        raise InvalidRequest(
            f'logit_bias names {shown(wrong)}; it takes token ids, as in {{"50": -100}}',
            param="logit_bias",
        )
    return tuple((int(name), float(bias)) for name, bias in given.items())


def _plan(requests: list[GenerationRequest], *, num_each: int, is_stored: bool | None) -> Plan:
    _refuse_too_many_logprobs(requests, num_each=num_each)
    session_id = requests[0].session_id
    ephemeral_session = secrets.token_hex(16) if num_each > 1 and session_id is None else None
    replies: list[PlannedReply] = []
    for prompt_index, request in enumerate(requests):
        leader = replace(
            request,
            session_id=session_id or ephemeral_session,
            keeps_state=session_id is not None and is_stored is not False,
        )
        leader_index = len(replies)
        replies.append(PlannedReply(index=leader_index, prompt_index=prompt_index, request=leader))
        for number in range(1, num_each):
            follower = replace(
                leader, sampling=_with_another_seed(leader.sampling, number), score_prompt=None
            )
            replies.append(
                PlannedReply(
                    index=len(replies),
                    prompt_index=prompt_index,
                    request=follower,
                    follows=leader_index,
                )
            )
    return Plan(replies=tuple(replies), ephemeral_session=ephemeral_session)


def _with_another_seed(sampling: SamplingParams, number: int) -> SamplingParams:
    """`sampling` with the seed moved by `number`, within 64 signed bits; no seed stays no seed."""
    if sampling.seed is None:
        return sampling
    moved = (sampling.seed + number + SEED_RANGE // 2) % SEED_RANGE - SEED_RANGE // 2
    return replace(sampling, seed=moved)
