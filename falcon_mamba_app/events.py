"""The events of one reply from a service.

All other modules import them from `protocol`, which states their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token and the natural logarithm of its probability under the model, before any sampling
    parameter.

    `logprob` is None for the first token of a prompt, which nothing predicts. `token_id` is None
    where a server behind --backend-url does not tell it. `offset` counts the characters of the
    reply's text before the token, which may show nothing there; of other tokens it is None.
    `rank` is 1 for the likeliest token, None where it is not known.
    """

    token_id: int | None
    token: str
    token_bytes: bytes
    logprob: float | None
    top: tuple[TokenLogprob, ...] = ()
    offset: int | None = None
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """Every slot is taken. `position` 1 is the next to be admitted."""

    position: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request has a slot. `reused_tokens` of `prompt_tokens` come from a snapshot and are not
    read again.

    None means "not known": only a service in front of a foreign server says so. `prompt_ids` are
    told where the request `tells_ids`.
    """

    prompt_tokens: int | None
    reused_tokens: int | None
    prompt_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PrefillProgress:
    """`computed_tokens` of `prompt_tokens` have been read, the reused ones included."""

    computed_tokens: int
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class PromptScored:
    """The prompt's tokens with their log-probabilities, in order. Sent once, when `score_prompt`
    was asked for.
    """

    tokens: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the reply. `completion_tokens` counts all tokens of the reply so far, shown
    or held back.

    `logprobs` and `token_ids`, where asked for, tell every token once, in order; `text` may be
    empty beside them.
    """

    text: str
    completion_tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The reply is complete. Times in seconds, measured by the service.

    `reason` is "stop" for end-of-sequence or a stop string, "length" for max_new_tokens.
    `ttft_s` runs from the call of `generate` to the first token; `decode_s` from the first token to
    the last. Prompt counts are None where a foreign server does not tell them.

    `packed_ids`, told within a session where the ids are known, are those of prompt and reply, as
    32-bit integers: a `Continuation` of this reply begins with them.
    """

    reason: FinishReason
    prompt_tokens: int | None
    reused_tokens: int | None
    completion_tokens: int
    ttft_s: float | None = None
    decode_s: float | None = None
    packed_ids: bytes | None = None


GenerationEvent = Waiting | Accepted | PrefillProgress | PromptScored | TextDelta | Finished
