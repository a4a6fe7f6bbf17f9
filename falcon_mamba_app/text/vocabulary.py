"""The bytes and the text of each token of a byte-level BPE vocabulary.

Everything that turns ids into text starts here, so that a streamed reply, its log-probabilities and
its recorded text agree to the byte. It does not know messages, templates or streams.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import Decoder

from falcon_mamba_app.errors import CheckpointError
from falcon_mamba_app.text.borders import byte_characters


class Vocabulary:
    """Token ids to bytes. Special tokens have their own text, but add nothing to a reply."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises CheckpointError for a tokenizer that is not byte-level."""
        if not _is_byte_level(tokenizer.decoder):
            raise CheckpointError(
                "the tokenizer is not byte-level BPE, which all published Mamba-1 models use;"
                " this app reads no other kind"
            )
        self._tokenizer = tokenizer
        self._added = {
            token_id: token.content
            for token_id, token in tokenizer.get_added_tokens_decoder().items()
        }
        self._special_ids = frozenset(
            token_id
            for token_id, token in tokenizer.get_added_tokens_decoder().items()
            if token.special
        )
        self._byte_of = {text: byte for byte, text in enumerate(byte_characters())}

    def visible_bytes(self, token_id: int) -> bytes:
        """The bytes that the token adds to a reply: none for special tokens and unused ids."""
        return b"" if token_id in self._special_ids else self.token_bytes(token_id)

    def token_bytes(self, token_id: int) -> bytes:
        """The token's own bytes, markup included; a multi-byte character may be cut in two."""
        token = self._added.get(token_id) or self._tokenizer.id_to_token(token_id)
        if token is None:
            return b""
        try:
            return bytes(self._byte_of[character] for character in token)
        except KeyError:  # an added token's content is text already
            return token.encode("utf-8")

    def token_text(self, token_id: int) -> str:
        """The token's own text, for people; bytes that are no whole character become U+FFFD."""
        return self.token_bytes(token_id).decode("utf-8", "replace")

    def encode(self, text: str) -> list[int]:
        """The ids of a text by the tokenizer alone, without a beginning and without markup."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, token_ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """The text of a whole reply, special tokens left out or shown."""
        shown = self.visible_bytes if skip_special_tokens else self.token_bytes
        return b"".join(map(shown, token_ids)).decode("utf-8", "replace")


def _is_byte_level(decoder: Decoder | None) -> bool:
    if decoder is None:
        return False
    state: dict[str, Any] = json.loads(decoder.__getstate__())
    steps = state["decoders"] if state["type"] == "Sequence" else [state]
    return [step["type"] for step in steps] == ["ByteLevel"]
