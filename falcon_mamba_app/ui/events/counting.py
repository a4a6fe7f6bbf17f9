"""How many tokens a text has that is about to be sent, how long it will be read where that is long,
and whether it is beyond the training.
"""

from __future__ import annotations

import asyncio
from typing import Any

import gradio as gr

from falcon_mamba_app.errors import FalconMambaError
from falcon_mamba_app.protocol import GenerationService, Text
from falcon_mamba_app.ui.conversation.exact_ids import digest
from falcon_mamba_app.ui.conversation.session import Session
from falcon_mamba_app.ui.conversation.sessions import Sessions
from falcon_mamba_app.ui.conversation.tree import Facts
from falcon_mamba_app.ui.events.chat_and_document import page_of
from falcon_mamba_app.ui.events.questions import Answer, answers, asked_of

MEASURED_TOKENS = 64  # fewer say more of the first step than of the speed
SHORT_CHARS = 20_000  # longer texts are read on a thread
TOLD_S = 2.0  # a text that is read sooner is not worth a word


class Counting:
    """Answers the composer's question, with the model's own tokenizer."""

    def __init__(
        self, service: GenerationService, sessions: Sessions, *, max_message_chars: int
    ) -> None:
        self._service, self._sessions = service, sessions
        self._max_chars = max_message_chars

    @answers
    async def count(self, data: gr.EventData, request: gr.Request) -> Answer:
        """The count and what it means; nothing where no tokenizer is here."""
        text, tokenizer = asked_of(data).get("text"), self._service.tokenizer
        if not isinstance(text, str) or tokenizer is None:
            return {}
        if len(text) > self._max_chars:
            words = f"{len(text):,} characters; this page accepts at most {self._max_chars:,}"
            return {"text": words, "warns": True}
        try:
            if len(text) > SHORT_CHARS:
                ids = await asyncio.to_thread(tokenizer.encode, Text(text))
            else:
                ids = tokenizer.encode(Text(text))
        except FalconMambaError as error:
            return {"text": str(error), "warns": True}
        session = self._sessions.shown_by(page_of(request))
        said = (session.context_tokens or 0) if session else 0
        replies = _facts(session) if session else []
        return self._in_words(said, len(ids), replies)

    @answers
    async def system(self, data: gr.EventData, request: gr.Request) -> Answer:
        """What the field's system prompt costs the conversation that is shown, if it is not the one
        under which that was read.
        """
        text, session = asked_of(data).get("text"), self._sessions.shown_by(page_of(request))
        if not isinstance(text, str) or session is None:
            return {"text": ""}
        facts = _facts(session)
        if not facts or not facts[-1].system or facts[-1].system == digest(text.strip()):
            return {"text": ""}
        return {"text": self._price_of_reading(facts)}

    def _price_of_reading(self, replies: list[Facts]) -> str:
        """Of all up to the last reply."""
        tokens = replies[-1].context_tokens
        again = "all of it" if tokens is None else f"its {tokens:,} tokens"
        words = f"The next message has this conversation read again from its first word, {again}"
        seconds = seconds_to_read(tokens, replies, self._service.stats().reading_tokens_per_s)
        if seconds is not None:
            words += ", in about a second" if seconds < 1.5 else f", in about {_duration(seconds)}"
        return f"{words}. With the prompt as it was, nothing is."

    def _in_words(self, said_tokens: int, num_tokens: int, replies: list[Facts]) -> dict[str, Any]:
        stats = self._service.stats()
        seconds = seconds_to_read(num_tokens, replies, stats.reading_tokens_per_s)
        model = stats.model
        trained = model.trained_context_tokens if model else None
        context = said_tokens + num_tokens
        words = f"{num_tokens:,} tokens"
        if seconds is not None and seconds >= TOLD_S:
            words += f", read in about {_duration(seconds)}"
        if trained is None or context <= trained:
            return {"text": words, "warns": False}
        times = context / trained
        beyond = f"{times:.1f} times" if times < 10 else f"{times:.0f} times"
        return {
            "text": f"{words}: with what was said {beyond} what the model was trained on "
            f"({trained:,}). It is read in full; recall fades",
            "warns": True,
        }


def _facts(session: Session) -> list[Facts]:
    """What is known of the replies that are shown."""
    return [node.facts for node in session.tree.path if node.facts is not None]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def seconds_to_read(
    num_tokens: int | None, replies: list[Facts], tokens_per_s: float | None
) -> float | None:
    """At the speed of the newest reply that has read enough to tell, else at the server's."""
    for facts in reversed(replies):
        if facts.prompt_tokens is None or facts.reused_tokens is None or not facts.prefill_s:
            continue
        num_read = facts.prompt_tokens - facts.reused_tokens
        if num_read >= MEASURED_TOKENS:
            tokens_per_s = num_read / facts.prefill_s
            break
    return num_tokens / tokens_per_s if num_tokens and tokens_per_s else None
