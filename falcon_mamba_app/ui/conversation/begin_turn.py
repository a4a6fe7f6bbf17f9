"""Starts a session's next reply, and turns every error into a sentence.

The chat, the completion page and the page's endpoints all start replies here. So a session never
has two replies in progress, and no page shows a stack trace.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from falcon_mamba_app.errors import FalconMambaError, InvalidRequest, origin_of
from falcon_mamba_app.metrics import num_tokens_of_work
from falcon_mamba_app.protocol import (
    GenerationEvent,
    GenerationRequest,
    GenerationService,
    ServiceStats,
)
from falcon_mamba_app.ui.conversation.recording import Recording
from falcon_mamba_app.ui.conversation.sessions import Session
from falcon_mamba_app.ui.conversation.turn import ALONE_S, UPDATE_INTERVAL_S, Target, Turn

PERSON_WEIGHT = 4.0  # a person at the page; a program's request has 1
REPLIES_AT_FULL_RATE = 12
MESSAGES_AT_FULL_RATE = 200

logger = logging.getLogger(__name__)

UNEXPECTED = "Something went wrong on the server. The message was not answered; please try again."


def begin_turn(
    service: GenerationService,
    session: Session,
    request: GenerationRequest,
    target: Target,
    *,
    alone_s: float = ALONE_S,
    recording: Recording | None = None,
) -> Turn:
    """Start the session's next reply; `recording` writes it into the library. Raises Busy."""
    session.refuse_if_busy()
    events = admitted(service, session, request)
    if recording is not None:
        events = recording.follow(events)
    session.turn = Turn(events, target, alone_s=alone_s)
    return session.turn


async def admitted(
    service: GenerationService, session: Session, request: GenerationRequest
) -> AsyncGenerator[GenerationEvent, None]:
    """The service's events, within the limits of the session's visitor."""
    visitor = session.visitor
    with visitor.replies(session.id):
        if session.book is not None:
            request = await session.book.request_on(request)
        request = replace(request, owner=visitor.line(session.id), weight=PERSON_WEIGHT)
        async with aclosing(service.generate(request)) as events:
            async for event in events:
                visitor.count_tokens(num_tokens_of_work(event))
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


def sentence_for(error: BaseException) -> str:
    """The sentence for the visitor. Unexpected errors are logged, and not shown."""
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
