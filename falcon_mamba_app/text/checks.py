"""Refuses prompts that no tokenizer should see: empty ones, too long ones, halves of characters."""

from __future__ import annotations

from collections.abc import Sequence

from falcon_mamba_app.errors import InvalidRequest, PromptTooLong
from falcon_mamba_app.protocol import Message


def too_long(max_tokens: int) -> PromptTooLong:
    """The error of a prompt with more than `max_tokens` ids."""
    return PromptTooLong(
        f"This model's maximum context length is {max_tokens} tokens on this server"
        " (--max-prompt-tokens); the prompt has more"
    )


def check_messages(messages: Sequence[Message]) -> None:
    """Raises InvalidRequest."""
    if not messages:
        raise InvalidRequest("messages is empty; give at least one", param="messages")
    for message in messages:
        check_text(message.content, param="messages")


def check_text(text: str, *, param: str) -> None:
    """Raises InvalidRequest."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidRequest(
            "the text holds half of a surrogate pair, which is no character; send whole ones",
            param=param,
        ) from None


def check_ids(token_ids: Sequence[int], *, vocab_size: int) -> list[int]:
    """The caller's own ids. Raises InvalidRequest if the model does not know them all."""
    if not token_ids:
        raise InvalidRequest("the prompt has no token ids; give at least one", param="prompt")
    for place, token_id in enumerate(token_ids):
        if not 0 <= token_id < vocab_size:
            raise InvalidRequest(
                f"token id {token_id} at place {place} is not in the vocabulary;"
                f" allowed are 0 to {vocab_size - 1}",
                param="prompt",
            )
    return list(token_ids)
