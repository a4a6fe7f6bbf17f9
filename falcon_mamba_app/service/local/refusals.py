"""Refuses requests beyond the limits of this server, or of its model. It knows no tokenizer."""

from __future__ import annotations

from falcon_mamba_app.errors import InvalidRequest, PromptTooLong
from falcon_mamba_app.protocol import GenerationRequest, Text
from falcon_mamba_app.settings import EngineLimits

MAX_PROMPT_SCORES = 500_000  # an answer of 300 MB


def refuse_beyond_limits(
    request: GenerationRequest, limits: EngineLimits, *, vocab_size: int
) -> None:
    """Raises InvalidRequest for what can be seen before the prompt is tokenised."""
    if not isinstance(request.prompt, Text):  # a message or an id is at least one token
        refuse_too_long(len(request.prompt), "messages or ids", limits)
    for token_id, _ in request.sampling.logit_bias:
        if token_id >= vocab_size:
            raise InvalidRequest(
                f"logit_bias names token {token_id}; the model's ids end at {vocab_size - 1}",
                param="logit_bias",
            )
    asked, limit = request.sampling.max_new_tokens, limits.max_new_tokens
    if asked > limit:
        raise InvalidRequest(
            f"{asked} new tokens were asked for; this server allows at most {limit}"
            " (--max-new-tokens)",
            param="max_tokens",
        )
    if asked == 0 and request.score_prompt is None and not request.only_reads:
        raise InvalidRequest(
            "0 new tokens make no reply; ask for at least 1, or for the prompt to be scored",
            param="max_tokens",
        )


def refuse_too_long(length: int, unit: str, limits: EngineLimits) -> None:
    """Raises PromptTooLong."""
    limit = limits.max_prompt_tokens
    if length > limit:
        raise PromptTooLong(
            f"This model's maximum context length is {limit} tokens on this server"
            f" (--max-prompt-tokens); the prompt has {length} {unit}"
        )


def refuse_too_many_scores(num_tokens: int, num_alternatives: int | None) -> None:
    """Raises InvalidRequest."""
    asked = 0 if num_alternatives is None else num_tokens * (1 + num_alternatives)
    if asked > MAX_PROMPT_SCORES:
        raise InvalidRequest(
            f"a prompt of {num_tokens} tokens with {num_alternatives} alternatives each has"
            f" {asked:,} log-probabilities; one request may ask for {MAX_PROMPT_SCORES:,}",
            param="logprobs",
        )
