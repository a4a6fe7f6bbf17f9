"""Makes ids of prompts, and refuses ids for which the model has no embedding.

A tokenizer may know more tokens than the table has rows, if tokens were added and the table was not
resized. Every other fault of a tokenizer or a chat template becomes an error here too, of the
request that caused it.
"""

from __future__ import annotations

import logging
from array import array
from typing import Any

import torch

from falcon_mamba_app.errors import FalconMambaError, InvalidRequest, origin_of
from falcon_mamba_app.protocol import Continuation, Conversation, GenerationRequest
from falcon_mamba_app.text.chat import PromptEncoder

logger = logging.getLogger(__name__)


def encoded(
    encoder: PromptEncoder, request: GenerationRequest, *, max_tokens: int, vocab_size: int
) -> array[int]:
    """The prompt's ids, each below `vocab_size`. Raises InvalidRequest, and PromptTooLong beyond
    `max_tokens`.
    """
    param = "messages" if isinstance(request.prompt, Conversation | Continuation) else "prompt"
    try:
        token_ids = encoder.encode(request.prompt, request.session_id, max_tokens=max_tokens)
    except FalconMambaError:
        raise
    except BaseException as error:
        if not _is_fault_of_input(error):
            raise
        logger.warning("a prompt cannot be encoded: %s", origin_of(error))
        raise InvalidRequest(
            f"the model's tokenizer or chat template cannot encode this ({type(error).__name__});"
            " write it differently",
            param=param,
        ) from error
    # Packed once: what follows takes microseconds then, where a list of 100,000 takes milliseconds.
    token_ids = token_ids if isinstance(token_ids, array) else array("i", token_ids)
    smallest, largest = _range_of(token_ids)
    if not 0 <= smallest <= largest < vocab_size:
        foreign = next(token_id for token_id in token_ids if not 0 <= token_id < vocab_size)
        text = encoder.vocabulary.token_text(foreign) if foreign >= 0 else ""
        raise InvalidRequest(
            f"the prompt comes to hold {text!r}, token {foreign} of the tokenizer; the model has no"
            f" such token, its ids end at {vocab_size - 1}: write it without",
            param=param,
        )
    return token_ids


def _range_of(token_ids: array[int]) -> tuple[int, int]:
    """The smallest and the largest id; of 100,000 in 20 µs."""
    low, high = torch.frombuffer(token_ids, dtype=torch.int32).aminmax()
    return int(low), int(high)


def tell_of_tokens_beyond(tokenizer: Any, vocab_size: int) -> None:
    """Log one line if the tokenizer has ids that the model does not have."""
    beyond = [
        (token_id, token)
        for token, token_id in tokenizer.get_vocab().items()
        if token_id >= vocab_size
    ]
    if beyond:
        logger.warning(
            "the tokenizer has %d tokens beyond the model's %d, %r (id %d) first; prompts that hold"
            " one are refused",
            len(beyond),
            vocab_size,
            *reversed(min(beyond)),
        )


def _is_fault_of_input(error: BaseException) -> bool:
    """True for any Exception, and for a panic of the tokenizer's Rust code, which is none."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"
