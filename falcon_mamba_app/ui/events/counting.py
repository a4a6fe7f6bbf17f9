"""How many tokens a text has that is about to be sent, and whether that is beyond the training."""

from __future__ import annotations

import asyncio
from typing import Any

import gradio as gr

from falcon_mamba_app.errors import FalconMambaError
from falcon_mamba_app.protocol import GenerationService, Text
from falcon_mamba_app.ui.conversation.sessions import Sessions
from falcon_mamba_app.ui.events.chat_and_document import page_of
from falcon_mamba_app.ui.view.updates import SKIP

SHORT_CHARS = 20_000  # longer texts are read on a thread


class Counting:
    """Answers the composer's question, with the model's own tokenizer."""

    def __init__(
        self, service: GenerationService, sessions: Sessions, *, max_message_chars: int
    ) -> None:
        self._service, self._sessions = service, sessions
        self._max_chars = max_message_chars

    async def count(self, data: gr.EventData, request: gr.Request) -> Any:
        """The count and what it means; nothing where no tokenizer is here."""
        text = data._data.get("text") if isinstance(data._data, dict) else None
        tokenizer = self._service.tokenizer
        if not isinstance(text, str) or tokenizer is None:
            return SKIP
        if len(text) > self._max_chars:
            words = f"{len(text):,} characters; this page accepts at most {self._max_chars:,}"
            return {"chars": len(text), "text": words, "warns": True}
        try:
            if len(text) > SHORT_CHARS:
                ids = await asyncio.to_thread(tokenizer.encode, Text(text))
            else:
                ids = tokenizer.encode(Text(text))
        except FalconMambaError as error:
            return {"chars": len(text), "text": str(error), "warns": True}
        session = self._sessions.shown_by(page_of(request))
        said = (session.context_tokens or 0) if session else 0
        return {"chars": len(text), **self._in_words(said, len(ids))}

    def _in_words(self, said_tokens: int, num_tokens: int) -> dict[str, Any]:
        model = self._service.stats().model
        trained = model.trained_context_tokens if model else None
        context = said_tokens + num_tokens
        words = f"{num_tokens:,} tokens"
        if trained is None or context <= trained:
            return {"text": words, "warns": False}
        times = context / trained
        beyond = f"{times:.1f} times" if times < 10 else f"{times:.0f} times"
        return {
            "text": f"{words}: with what was said {beyond} what the model was trained on "
            f"({trained:,}). It is read in full; recall fades",
            "warns": True,
        }
