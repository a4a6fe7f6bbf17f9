"""How sure the model was of each word of a reply, or of a text: how probable, and what else was.

For it the conversation is read once more, up to the reply's end. Its states stay as they are.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import gradio as gr

from falcon_mamba_app.errors import FalconMambaError, InvalidRequest
from falcon_mamba_app.protocol import (
    GenerationRequest,
    GenerationService,
    PromptScored,
    SamplingParams,
    Text,
    TokenLogprob,
)
from falcon_mamba_app.ui.conversation.begin_turn import admitted, check_length, sentence_for
from falcon_mamba_app.ui.conversation.sessions import Session, Sessions
from falcon_mamba_app.ui.conversation.tree import Node
from falcon_mamba_app.ui.events.answering import chat_request
from falcon_mamba_app.ui.events.chat_and_document import claim, page_of
from falcon_mamba_app.ui.events.questions import Answer, answers, asked_of
from falcon_mamba_app.ui.view.controls import ControlValues, values_of

ALTERNATIVES = 5
MAX_TOKENS = 20_000  # read again, each with its alternatives, for one look
MAX_TEXT_CHARS = 20_000  # of a free text, all of whose tokens are shown
TEXT = "text"  # in the place of a reply's id


class Probabilities:
    """Answers the page's question about one reply."""

    def __init__(
        self, service: GenerationService, sessions: Sessions, *, max_message_chars: int
    ) -> None:
        self._service, self._sessions = service, sessions
        self._max_chars = max_message_chars

    @answers
    async def look(self, data: gr.EventData, request: gr.Request, *controls: Any) -> Answer:
        """The reply's tokens, or why there are none."""
        asked = asked_of(data)
        shown: Answer = {"id": asked.get("id")}
        try:
            session = self._sessions.known(page_of(request))
            claim(self._sessions, session, request)
            session.refuse_if_busy()
            if asked.get("id") == TEXT:
                return {**shown, "tokens": await self._of_text(session, asked.get("text"))}
            reply = session.tree.node(asked.get("id"))
            if reply is None or reply.message.role != "assistant":
                raise InvalidRequest("this reply is no longer in the conversation")
            tokens = await self._scored(session, reply, values_of(controls))
        except FalconMambaError as error:
            return {**shown, "problem": sentence_for(error)}
        return {**shown, "tokens": shown_tokens(tokens, reply.message.content)}

    async def _scored(
        self, session: Session, reply: Node, values: ControlValues
    ) -> Sequence[TokenLogprob]:
        """All tokens up to the reply's end. Raises InvalidRequest, and what a service raises."""
        num_tokens = 0 if reply.facts is None else reply.facts.context_tokens or 0
        if num_tokens > MAX_TOKENS:
            raise InvalidRequest(
                f"the conversation has {num_tokens:,} tokens up to here; they are read again for "
                f"this, at most {MAX_TOKENS:,}"
            )
        messages = [node.message for node in reply.path()]
        request = chat_request(session, messages, values, max_chars=self._max_chars)
        return await self._score(session, request)

    async def _of_text(self, session: Session, text: Any) -> list[list[Any]]:
        """All tokens of the completion page's text. Raises InvalidRequest."""
        if not isinstance(text, str) or not text:
            raise InvalidRequest("there is no text yet")
        check_length(text, min(self._max_chars, MAX_TEXT_CHARS))
        request = GenerationRequest(prompt=Text(text), session_id=session.id)
        return shown_tokens(await self._score(session, request), text)

    async def _score(self, session: Session, request: GenerationRequest) -> Sequence[TokenLogprob]:
        request = replace(
            request,
            sampling=SamplingParams(max_new_tokens=0),
            score_prompt=ALTERNATIVES,
            form=None,
            is_aside=True,
        )
        async with aclosing(admitted(self._service, session, request)) as events:
            async for event in events:
                if isinstance(event, PromptScored):
                    return event.tokens
        return ()


def shown_tokens(tokens: Sequence[TokenLogprob], text: str) -> list[list[Any]]:
    """Those of the reply `text`, which is the end of all: text, probability, alternatives."""
    size = len(text.encode("utf-8", "replace"))
    first = len(tokens)
    while first > 0 and size > 0:
        first -= 1
        size -= len(tokens[first].token_bytes)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces = [decoder.decode(token.token_bytes) for token in tokens[first:]]
    if pieces and size < 0:  # a space that the template has put before the reply
        pieces[0] = pieces[0].encode("utf-8")[-size:].decode("utf-8", "replace")
    return [
        [piece, _probability(token), [[other.token, _probability(other)] for other in token.top]]
        for piece, token in zip(pieces, tokens[first:], strict=True)
    ]


def _probability(token: TokenLogprob) -> float | None:
    return None if token.logprob is None else round(math.exp(token.logprob), 4)
