"""A title for a kept conversation, by the model itself, while nobody waits for it.

It is asked for aside, from the conversation's own state: the conversation reads nothing again and
does not know of it. Until there is one, and wherever the model gives none, the first words serve.
"""

from __future__ import annotations

import re
from contextlib import aclosing
from dataclasses import replace

from falcon_mamba_app.errors import FalconMambaError
from falcon_mamba_app.protocol import GenerationService, Message, SamplingParams, TextDelta
from falcon_mamba_app.ui.conversation.begin_turn import admitted
from falcon_mamba_app.ui.conversation.sessions import Session
from falcon_mamba_app.ui.conversation.shelf import MAX_TITLE_CHARS
from falcon_mamba_app.ui.events.answering import chat_request
from falcon_mamba_app.ui.view.controls import ControlValues

QUESTION = (
    "What would be a good title for this conversation? Answer with the title alone, in at most six"
    " words and in the language of the conversation."
)
MAX_CHARS = 20_000  # of the conversation: a title comes early or not at all
MAX_WORDS = 9
# Six words in most languages' tokens; a model that goes on has not understood.
SAMPLING = SamplingParams(temperature=0.0, max_new_tokens=32)


class Titles:
    """Asks the model, at most once a conversation, and only a model that has learned to answer."""

    def __init__(self, service: GenerationService) -> None:
        self._service = service

    def is_wanted(self, session: Session) -> bool:
        """Whether the conversation has had a reply, and everybody is idle."""
        stats = self._service.stats()
        model, messages = stats.model, session.messages
        if model is None or not model.has_chat_template or model.is_bundled:
            return False
        is_idle = session.turn is None and not stats.running and not stats.waiting
        has_reply = len(messages) > 1 and messages[-1].role == "assistant"
        is_short = sum(len(message.content) for message in messages) <= MAX_CHARS
        return is_idle and has_reply and is_short and not session.was_titled

    async def title_for(self, session: Session) -> str | None:
        """The model's title, or None: it gave none, or the conversation has gone on meanwhile."""
        session.was_titled = True
        asked = [*session.messages, Message("user", QUESTION)]
        values = ControlValues(system_prompt=session.system_prompt)
        written: list[str] = []
        try:
            request = replace(
                chat_request(session, asked, values, max_chars=len(QUESTION)),
                sampling=SAMPLING,
                is_aside=True,
            )
            async with aclosing(admitted(self._service, session, request)) as events:
                async for event in events:
                    if session.turn is not None:
                        session.was_titled = False  # another time
                        return None
                    if isinstance(event, TextDelta):
                        written.append(event.text)
        except FalconMambaError:
            return None  # the first words are a title too
        return tidied("".join(written))


def tidied(text: str) -> str | None:
    """The title in what a model has written; None where that is something else."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    line = re.sub(r"^(title|titel|titre)\s*:\s*", "", line, flags=re.IGNORECASE)
    title = line.strip(" \t*#_\"'`“”„«»‘’").rstrip(".。:;,")
    has_words = any(char.isalnum() for char in title)
    if not has_words or len(title) > MAX_TITLE_CHARS or len(title.split()) > MAX_WORDS:
        return None
    return title
