"""The error that the owner of a failed sequence gets, and its log line."""

from __future__ import annotations

import logging

from falcon_mamba_app.engine.events import Failed
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.errors import (
    InvalidRequest,
    Overloaded,
    ReplyFailure,
    is_lack_of_memory,
    origin_of,
)

logger = logging.getLogger(__name__)


def after_error(seq: Sequence, error: Exception) -> Failed:
    """The work for the sequence raised `error`, which may be its owner's to read."""
    if isinstance(error, InvalidRequest):
        return Failed(seq.seq_id, error)
    if is_lack_of_memory(error):
        reason = str(error).partition("\n")[0]
        message = f"the device ran out of memory in mid-step: {reason}"
        return Failed(seq.seq_id, Overloaded(message))
    logger.error("one reply given up: %s", origin_of(error))
    kind = type(error).__name__
    message = f"this reply failed inside the engine ({kind}); the server's log says where"
    return Failed(seq.seq_id, ReplyFailure(message))


def without_numbers(seq: Sequence) -> Failed:
    """The model gave the sequence logits that are not finite."""
    logger.warning(
        "the model's logits are not finite after %d tokens; one reply given up",
        seq.num_computed_tokens,
    )
    message = (
        "the model computed no number to choose the next token by (its weights are damaged, or its"
        " values exceed this precision), so the reply ends here; --dtype float32 or bfloat16 has"
        " the wider range"
    )
    return Failed(seq.seq_id, ReplyFailure(message))
