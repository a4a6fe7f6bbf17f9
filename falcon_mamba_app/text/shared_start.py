"""Finds the end of the part that a prompt shares with other prompts: its system message.

The template itself decides: the prompt is compared with the ids of the same system message before
another question. It does not know states.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.protocol import Conversation, Message, Prompt
from falcon_mamba_app.text.chat import PromptEncoder

# No question begins with it, so no part of the question counts as shared.
ANOTHER_QUESTION = Message("user", "\x02")


def system_end(encoder: PromptEncoder, prompt: Prompt, token_ids: Sequence[int]) -> int:
    """The number of ids of the prompt's system message; 0 if it has none."""
    if not isinstance(prompt, Conversation) or len(prompt) < 2 or prompt[0].role != "system":
        return 0
    try:
        others = encoder.encode(
            Conversation((prompt[0], ANOTHER_QUESTION)).with_template_kwargs(prompt.template_kwargs)
        )
    except InvalidRequest:
        return 0
    in_common = takewhile(lambda pair: pair[0] == pair[1], zip(token_ids, others, strict=False))
    return sum(1 for _ in in_common)
