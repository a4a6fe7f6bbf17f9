"""Token ids to text, one at a time, with constant work for each.

A character may span several tokens, and a token may end inside a character. So bytes are held back
until the character is complete or has become impossible. The joined pieces are equal to the text of
all ids decoded at once. It does not know templates or sessions.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from falcon_mamba_app.text.stop_strings import StopStrings
from falcon_mamba_app.text.vocabulary import Vocabulary

MAX_INCOMPLETE_BYTES = 3  # of a four-byte character


class Detokenizer:
    """The text of one reply as it grows.

    `prompt_ids` matter where a prompt ends inside a character: the reply's first bytes then
    complete it, and the whole character belongs to the reply.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        stop: Sequence[str] = (),
        prompt_ids: Sequence[int] = (),
        skip_special_tokens: bool = True,
    ) -> None:
        self.num_characters = 0  # of all ids so far, those held back included
        shown = vocabulary.visible_bytes if skip_special_tokens else vocabulary.token_bytes
        self._bytes_of = shown
        self._stop_strings = StopStrings(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._begin_inside_a_character(prompt_ids)

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string has come; the reply ends before it."""
        return self._stop_strings.is_stopped

    def feed(self, token_id: int) -> str:
        """The text that may be shown after this id; often none."""
        text = self._decoder.decode(self._bytes_of(token_id))
        self.num_characters += len(text)
        return self._stop_strings.feed(text)

    def flush(self) -> str:
        """The rest, when no more ids come; an unfinished character becomes U+FFFD."""
        rest = self._decoder.decode(b"", final=True)
        return self._stop_strings.feed(rest) + self._stop_strings.flush()

    def _begin_inside_a_character(self, prompt_ids: Sequence[int]) -> None:
        tail = b""
        for token_id in reversed(prompt_ids):
            tail = self._bytes_of(token_id) + tail
            if len(tail) >= MAX_INCOMPLETE_BYTES:
                break
        if self._decoder.decode(_incomplete_end(tail)):
            self._decoder.reset()


def _incomplete_end(data: bytes) -> bytes:
    """The bytes at the end of `data` that begin a character and do not finish it."""
    for length in range(1, min(len(data), MAX_INCOMPLETE_BYTES) + 1):
        first = data[-length]
        if first >= 0xC0:  # a leading byte: 2, 3 or 4 bytes by its high bits
            wanted = 2 + (first >= 0xE0) + (first >= 0xF0)
            return data[-length:] if wanted > length else b""
        if first < 0x80:
            return b""
    return b""
