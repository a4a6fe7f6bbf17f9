"""Texts that the model continues, to token ids. It knows no messages and no templates."""

from __future__ import annotations

from collections.abc import Sequence

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.text.checks import check_text
from falcon_mamba_app.text.markup import Markup
from falcon_mamba_app.text.plain_prompts import PlainPromptLog
from falcon_mamba_app.text.slices import NO_LIMIT


class PlainText:
    """Encodes plain prompts; of a session's prompt that grows, only what is new."""

    def __init__(self, markup: Markup, *, model_id: str, start_ids: Sequence[int]) -> None:
        """`start_ids` stand for an empty text."""
        self._markup, self._model_id, self._start_ids = markup, model_id, list(start_ids)
        self._log = PlainPromptLog()

    def forget(self, session_id: str) -> bool:
        """Drop the session's recorded ids. Returns whether there were any."""
        return self._log.forget(session_id)

    def encode(
        self, text: str, session_id: str | None = None, *, max_tokens: int = NO_LIMIT
    ) -> list[int]:
        """The ids of a text to continue. Markup in it counts, and the tokenizer adds its own
        beginning and end, if any; these alone are the ids of an empty text. Raises TooManyTokens.

        Within a session only the new part of a text is tokenised; the ids are the same as without.
        """
        check_text(text, param="prompt")
        known = self._log.longest_prefix(session_id, text) if session_id else None
        read, start = ([], 0) if known is None else (known.token_ids.tolist(), len(known.text) - 1)
        rest = text[start:]
        border = self._markup.border(rest) if session_id else 0
        read += self._markup.encode_parsing(rest[:border], max_tokens=max_tokens - len(read))
        if session_id and border:
            self._log.record(session_id, text[: start + border + 1], read)
        read += self._markup.encode_parsing(rest[border:], max_tokens=max_tokens - len(read))
        token_ids = self._markup.framed(read) or self._start_ids
        if not token_ids:
            raise InvalidRequest(
                f"the prompt is empty, and {self._model_id} has no token for the beginning of a"
                " text; write at least one character",
                param="prompt",
            )
        return list(token_ids)
