"""Builds ids from left to right, from the template's text and people's text.

Contents and the template's plain text up to the next markup are one run. The tokenizer that knows
no markup reads the run as a whole, as the checkpoint's own would. It does not know messages.
"""

from __future__ import annotations

from collections.abc import Iterable

from falcon_mamba_app.text.markup import WHITE_SPACE, Markup, MarkupToken
from falcon_mamba_app.text.reply_log import PromptDigest
from falcon_mamba_app.text.slices import NO_LIMIT, TooManyTokens


class IdBuilder:
    """The ids of one prompt as it grows, `max_tokens` at most. Every method but `digest` may raise
    TooManyTokens.
    """

    def __init__(self, markup: Markup, *, max_tokens: int = NO_LIMIT) -> None:
        self._markup, self._max_tokens = markup, max_tokens
        self.token_ids: list[int] = []
        self._run: list[str] = []
        self._swallows_next_space = False  # the markup before this run does
        self._digest = PromptDigest()
        self._num_digested = 0

    def add_template_text(self, text: str) -> None:
        """A text of the template's own, in which markup counts."""
        for part in self._markup.split(text):
            if isinstance(part, str):
                self._run.append(part)
            else:
                self._close_before(part)

    def add_content(self, text: str) -> None:
        """A person's text, in which nothing is markup."""
        self._run.append(text)

    def add_ids(self, token_ids: Iterable[int]) -> None:
        """Add ids unchanged."""
        assert not self._run, "ids begin at a border"
        self.token_ids.extend(token_ids)
        self._swallows_next_space = False
        self._check_length()

    def close(self) -> None:
        """End the run: the next text is read separately."""
        text = "".join(self._run)
        if self._swallows_next_space:
            text = text.lstrip(WHITE_SPACE)
        self._run, self._swallows_next_space = [], False
        room = self._max_tokens - len(self.token_ids)
        self.token_ids += self._markup.encode_literal(text, max_tokens=room)
        self._check_length()

    def digest(self) -> bytes:
        """The hash of all ids so far; each id is hashed only once over all calls."""
        self._digest.extend(self.token_ids[self._num_digested :])
        self._num_digested = len(self.token_ids)
        return self._digest.value()

    def _close_before(self, markup: MarkupToken) -> None:
        if markup.swallows_before:
            self._run = ["".join(self._run).rstrip(WHITE_SPACE)]
        self.close()
        self.token_ids.append(markup.token_id)
        self._swallows_next_space = markup.swallows_after

    def _check_length(self) -> None:
        if len(self.token_ids) > self._max_tokens:
            raise TooManyTokens
