"""Where a prompt leaves what other prompts begin with too: behind the system message.

Asked of the template itself: the ids of the same system message before another question have so
many ids in common with the prompt's. It does not know states.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.protocol import Conversation, Message, Prompt
from falcon_mamba_app.text.chat import PromptEncoder

# No question begins with it, so nothing of the question is taken for the beginning.
ANOTHER_QUESTION = Message("user", "\x02")


def system_end(encoder: PromptEncoder, prompt: Prompt, token_ids: Sequence[int]) -> int:
    """How many of the prompt's ids are its system message's; 0 where it has none."""
    if not isinstance(prompt, Conversation) or len(prompt) < 2 or prompt[0].role != "system":
        return 0
    try:
        others = encoder.encode(Conversation((prompt[0], ANOTHER_QUESTION)))
    except InvalidRequest:
        return 0
    in_common = takewhile(lambda pair: pair[0] == pair[1], zip(token_ids, others, strict=False))
    return sum(1 for _ in in_common)
