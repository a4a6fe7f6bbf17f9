"""A session's turn from request to last word; what can go wrong becomes a sentence.

The chat, the completion page and the API endpoints all write through here, so that one session
never has two replies in the making and no page ever sees a stack trace.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from falcon_mamba_app.errors import FalconMambaError, InvalidRequest, origin_of
from falcon_mamba_app.metrics import ReplyMeter
from falcon_mamba_app.protocol import (
    GenerationEvent,
    GenerationRequest,
    GenerationService,
    ServiceStats,
)
from falcon_mamba_app.ui.sessions import Session
from falcon_mamba_app.ui.turn import UPDATE_INTERVAL_S, Reply, Turn

REPLIES_AT_FULL_RATE = 12
MESSAGES_AT_FULL_RATE = 200

logger = logging.getLogger(__name__)

UNEXPECTED = "Something went wrong on the server. The message was not answered; please try again."


async def write_reply(
    service: GenerationService, session: Session, request: GenerationRequest
) -> AsyncGenerator[Reply, None]:
    """The reply as it grows: first "starting", last a phase that is over. Raises Busy before the
    first, and nothing later.

    From the first to the last the session is busy. Closing it closes the service's generator. It
    ends without another word when the session was interrupted, since the conversation it wrote for
    is gone.
    """
    session.refuse_if_busy()
    started_s = time.monotonic()
    reply = Reply(meter=ReplyMeter(started_s=started_s))
    turn = session.turn = Turn(_admitted(service, session, request))
    try:
        yield reply
        interval_s = update_interval_s(service.stats(), num_messages=len(session.messages))
        async with aclosing(turn.batches(interval_s)) as batches:
            async for events in batches:
                if session.turn is not turn:
                    return
                reply.apply_all(events, now_s=time.monotonic())
                if not reply.is_over:
                    yield reply
        if session.turn is not turn:
            return
        if reply.phase != "finished":
            reply.phase = "stopped"
    except Exception as error:
        reply.phase, reply.error = "failed", sentence_for(error)
    finally:
        if session.turn is turn:
            session.turn = None
    yield reply


async def _admitted(
    service: GenerationService, session: Session, request: GenerationRequest
) -> AsyncGenerator[GenerationEvent, None]:
    """The service's events, within what the session's visitor may have."""
    with session.visitor.replies(session.id):
        async with aclosing(service.generate(request)) as events:
            async for event in events:
                yield event


def update_interval_s(stats: ServiceStats, *, num_messages: int) -> float:
    """Seconds between updates of one page: longer when many replies are written at a time, and
    behind a long conversation.

    An update costs the server 1 to 3 ms (benchmarks/page.py), so all pages together take at most
    about a third of one core; at 400 messages it costs the browser 40 ms.
    """
    crowd = (stats.running or 0) / REPLIES_AT_FULL_RATE
    length = num_messages / MESSAGES_AT_FULL_RATE
    return UPDATE_INTERVAL_S * max(1.0, crowd, length)


def sentence_for(error: Exception) -> str:
    """What to tell the visitor. Errors nobody foresaw are logged, and not shown."""
    if isinstance(error, FalconMambaError):
        text = str(error)
        return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
    logger.error("a reply failed: unexpected %s", origin_of(error))
    return UNEXPECTED


def check_length(text: str, max_chars: int) -> None:
    """Raises InvalidRequest with both numbers when the text is too long for one message."""
    if len(text) > max_chars:
        raise InvalidRequest(
            f"The message has {len(text):,} characters; this page accepts at most {max_chars:,}",
            param="message",
        )
