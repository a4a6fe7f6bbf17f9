"""What the model really reads for the next reply: conversation or text, with all markup."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import gradio as gr

from falcon_mamba_app.errors import FalconMambaError, InvalidRequest, NotSupported
from falcon_mamba_app.protocol import GenerationRequest, GenerationService, Message, Text, Tokenizer
from falcon_mamba_app.ui.conversation.begin_turn import sentence_for
from falcon_mamba_app.ui.conversation.session import Session
from falcon_mamba_app.ui.conversation.sessions import Sessions
from falcon_mamba_app.ui.events.answering import chat_request
from falcon_mamba_app.ui.events.chat_and_document import claim, page_of
from falcon_mamba_app.ui.view.controls import ControlValues, values_of

MAX_SHOWN = 4_000  # tokens; of a longer prompt its two ends
# A token of markup; words that look like it are several tokens.
MARKUP = re.compile(r"<\|?[^<>\s]+\|?>")


class ShownPrompt:
    """Answers the page's question about the prompt, before anything is sent."""

    def __init__(
        self, service: GenerationService, sessions: Sessions, *, max_message_chars: int
    ) -> None:
        self._service, self._sessions = service, sessions
        self._max_chars = max_message_chars

    async def look(self, data: gr.EventData, request: gr.Request, *controls: Any) -> dict[str, Any]:
        """The prompt in pieces, or why there is none."""
        asked: dict[str, Any] = data._data if isinstance(data._data, dict) else {}
        shown: dict[str, Any] = {"turn": asked.get("turn")}
        try:
            session = self._sessions.known(page_of(request))
            claim(self._sessions, session, request)
            tokenizer = self._service.tokenizer
            if tokenizer is None:
                raise NotSupported("the server behind this one has the tokenizer")
            generation = self._request(session, asked, values_of(controls))
            if session.book is not None:
                generation = await session.book.request_on(generation)
            ids = await asyncio.to_thread(tokenizer.encode, generation.prompt)
            return {**shown, **await asyncio.to_thread(shown_prompt, ids, tokenizer)}
        except FalconMambaError as error:
            return {**shown, "problem": sentence_for(error)}

    def _request(
        self, session: Session, asked: dict[str, Any], values: ControlValues
    ) -> GenerationRequest:
        """The one that would be sent with what is in the box now. Raises InvalidRequest."""
        text = asked.get("text")
        if not isinstance(text, str) or len(text) > self._max_chars:
            raise InvalidRequest(f"a text has at most {self._max_chars:,} characters here")
        if asked.get("of") == "text":
            return GenerationRequest(prompt=Text(text))
        messages = session.tree.messages
        if text.strip():
            messages = [*messages, Message("user", text)]
        if not messages:
            raise InvalidRequest("write a message first: the model has nothing to read yet")
        return chat_request(session, messages, values, max_chars=self._max_chars)


def shown_prompt(ids: Sequence[int], tokenizer: Tokenizer) -> dict[str, Any]:
    """How many tokens, and pieces of text, each with whether it is markup."""
    if len(ids) <= MAX_SHOWN:
        return {"tokens": len(ids), "left_out": 0, "pieces": pieces(ids, tokenizer)}
    half, num_left_out = MAX_SHOWN // 2, len(ids) - MAX_SHOWN
    first, last = pieces(ids[:half], tokenizer), pieces(ids[-half:], tokenizer)
    return {
        "tokens": len(ids),
        "left_out": num_left_out,
        "pieces": [*first, [f" … {num_left_out:,} tokens … ", 2], *last],
    }


def pieces(ids: Sequence[int], tokenizer: Tokenizer) -> list[list[Any]]:
    """Runs of ids as texts: 1 beside those of markup, 0 beside words."""
    texts = tokenizer.texts(ids)
    kinds = [int(MARKUP.fullmatch(text) is not None) for text in texts]
    runs = groupby(zip(kinds, ids, strict=True), key=lambda pair: pair[0])
    return [[tokenizer.decode([token_id for _, token_id in run]), kind] for kind, run in runs]
