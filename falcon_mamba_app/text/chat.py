"""Prompts to token ids: conversations by the checkpoint's own template, plain text, given ids.

Ids are built from left to right: the template's text, a content, the template's text, and so on. A
reply that the model wrote goes in with the ids it was written with, so the ids of one turn and its
reply are the beginning of the next turn's ids. What a person wrote never becomes a special token.
It does not know states, slots or HTTP.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.protocol import Conversation, Message, Prompt, Text, TokenIds
from falcon_mamba_app.text.markup import Markup
from falcon_mamba_app.text.plain_prompts import PlainPromptLog
from falcon_mamba_app.text.reply_log import PromptDigest, ReplyLog
from falcon_mamba_app.text.template import ChatTemplate
from falcon_mamba_app.text.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

PROBE = (
    Message("user", "What is a state?"),
    Message("assistant", "It is what was read."),
    Message("user", "Thank you."),
)


class PromptEncoder:
    """Encodes every kind of prompt that a GenerationRequest can hold. Safe to call from threads."""

    def __init__(
        self,
        tokenizer: Any,
        *,
        model_id: str,
        vocab_size: int,
        eos_token_ids: Collection[int],
        reply_log: ReplyLog,
    ) -> None:
        """`tokenizer` is a transformers fast tokenizer. `vocab_size` is the model's: its embeddings
        may have rows that the tokenizer does not use. Raises CheckpointError.

        `end_of_turn_id` is what the template closes the assistant's turns with, or None; a reply
        should end there as it does at the `eos_token_ids`.
        """
        self._model_id, self._vocab_size = model_id, vocab_size
        ids = (tokenizer.bos_token_id, tokenizer.eos_token_id)
        self._start_ids = [token_id for token_id in ids if token_id is not None]
        self._reply_log = reply_log
        self._plain_prompts = PlainPromptLog()
        self.vocabulary = Vocabulary(tokenizer.backend_tokenizer)
        self._template = ChatTemplate(tokenizer) if tokenizer.chat_template else None
        scaffold = _probe_scaffold(self._template)
        self._markup = Markup(tokenizer.backend_tokenizer, "".join(scaffold))
        self.end_of_turn_id = self._end_of_turn_id(scaffold)
        self._end_ids = frozenset(eos_token_ids) | {self.end_of_turn_id}
        self._can_take_apart = not scaffold or self._agrees_with_the_whole()
        if self._template is not None and not self._can_take_apart:
            logger.warning("the chat template cannot be taken apart; replies are tokenised anew")

    def _end_of_turn_id(self, scaffold: list[str]) -> int | None:
        after_the_reply = self._markup.split(scaffold[2]) if scaffold else []
        first = after_the_reply[0] if after_the_reply else None
        return first if isinstance(first, int) else None

    def encode(self, prompt: Prompt, session_id: str | None = None) -> list[int]:
        """The ids of any prompt. Raises InvalidRequest."""
        match prompt:
            case Text():
                return self.encode_text(prompt, session_id)
            case TokenIds():
                return self.check_ids(prompt)
            case Conversation():
                return self.encode_messages(prompt, session_id)

    def forget(self, session_id: str) -> bool:
        """Drop what is kept of the session's ids; whether there was anything."""
        had_replies = self._reply_log.forget(session_id)
        return self._plain_prompts.forget(session_id) or had_replies

    def encode_text(self, text: str, session_id: str | None = None) -> list[int]:
        """A text to continue. Special tokens in it count, and the tokenizer adds its own beginning
        if it has one; an empty text is the beginning (or end) of text alone.

        Within a session, a text that has grown begins with the ids that its beginning had.
        """
        _check_text(text, param="prompt")
        if session_id is None:
            return self._encode_new_text(text)
        known = self._plain_prompts.longest_prefix(session_id, text) if text else None
        if known is None:
            token_ids = self._encode_new_text(text)
        else:
            rest = text[len(known.text) :]
            token_ids = known.token_ids.tolist()
            recorded, rest = self._recorded(
                session_id, PromptDigest(token_ids).value(), (rest, rest)
            )
            token_ids += recorded + self._markup.encode_parsing(rest, add_special_tokens=False)
        self._plain_prompts.record(session_id, text, token_ids)
        return token_ids

    def _encode_new_text(self, text: str) -> list[int]:
        token_ids = self._markup.encode_parsing(text, add_special_tokens=True)
        if not (token_ids or self._start_ids):
            raise InvalidRequest(
                f"the prompt is empty, and {self._model_id} has no token for the beginning of a"
                " text; write at least one character",
                param="prompt",
            )
        return token_ids or self._start_ids[:1]

    def check_ids(self, token_ids: Sequence[int]) -> list[int]:
        """The caller's own ids, if the model knows them all."""
        if not token_ids:
            raise InvalidRequest("the prompt has no token ids; give at least one", param="prompt")
        for place, token_id in enumerate(token_ids):
            if not 0 <= token_id < self._vocab_size:
                raise InvalidRequest(
                    f"token id {token_id} at place {place} is not in the vocabulary;"
                    f" allowed are 0 to {self._vocab_size - 1}",
                    param="prompt",
                )
        return list(token_ids)

    def encode_messages(
        self, messages: Sequence[Message], session_id: str | None = None
    ) -> list[int]:
        """A conversation that waits for the assistant, by the checkpoint's own template."""
        if self._template is None:
            raise InvalidRequest(
                f"{self._model_id} has no chat template; use a plain prompt (/v1/completions)",
                param="messages",
            )
        _check_messages(messages)
        parts = self._template.take_apart(messages) if self._can_take_apart else None
        if parts is None:
            logger.info("the chat template rewrites contents; %d messages whole", len(messages))
            return self._encode_whole(self._template, messages)
        return self._encode_parts(messages, *parts, session_id=session_id)

    def _encode_parts(
        self,
        messages: Sequence[Message],
        scaffold: list[str],
        contents: list[str],
        *,
        session_id: str | None = None,
    ) -> list[int]:
        ids = _IdBuilder(self._markup)
        for message, text, content in zip(messages, scaffold, contents, strict=False):
            ids.add_template_text(text)
            if message.role == "assistant":
                # A border: the prompt that this replies to ended here.
                ids.close()
                recorded, rest = self._recorded(
                    session_id, ids.digest(), (content, message.content)
                )
                ids.add_ids(recorded)
                ids.add_content(rest)
                ids.close()
            else:
                ids.add_content(content)
        ids.add_template_text(scaffold[-1])
        ids.close()
        return ids.token_ids

    def _encode_whole(self, template: ChatTemplate, messages: Sequence[Message]) -> list[int]:
        """For templates that cannot be taken apart: contents may then not spell special tokens."""
        for message in messages:
            token = self._markup.first_in(message.content)
            if token is not None:
                raise InvalidRequest(
                    f"a message contains {token!r}, which this model's template cannot quote;"
                    " write it differently",
                    param="messages",
                )
        return self._markup.encode_parsing(template.render(messages), add_special_tokens=False)

    def _agrees_with_the_whole(self) -> bool:
        """Whether building from parts gives what the tokenizer gives for the rendered text."""
        assert self._template is not None
        parts = self._template.take_apart(PROBE)
        assert parts is not None
        whole = self._encode_whole(self._template, PROBE)
        return self._encode_parts(PROBE, *parts) == whole

    def _recorded(
        self, session_id: str | None, prompt_digest: bytes, texts: tuple[str, str]
    ) -> tuple[list[int], str]:
        """The ids the model wrote for (the beginning of) this reply, and the text that is left.

        `texts` are the reply as the template shows it, perhaps trimmed, and as it was sent.
        """
        shown, sent = texts
        best: tuple[list[int], str] = ([], shown)
        for reply in self._reply_log.find(session_id, prompt_digest) if session_id else ():
            token_ids = self._without_end(reply)
            if self.vocabulary.decode(token_ids) in (sent, shown):
                return token_ids, ""
            kept, rest = self._beginning(token_ids, shown)
            if len(kept) > len(best[0]):
                best = kept, rest
        return best

    def _without_end(self, token_ids: list[int]) -> list[int]:
        """The template closes the turn itself, with the model's last token or with another."""
        while token_ids and token_ids[-1] in self._end_ids:
            token_ids.pop()
        return token_ids

    def _beginning(self, token_ids: list[int], text: str) -> tuple[list[int], str]:
        """As many of the ids as `text` begins with, and the text that is left after them."""
        data, position, cuts = text.encode(), 0, [0]
        for token_id in token_ids:
            token = self.vocabulary.visible_bytes(token_id)
            if not data.startswith(token, position):
                break
            position += len(token)
            cuts.append(position)
        while _is_inside_a_character(data, cuts[-1]):
            cuts.pop()
        return token_ids[: len(cuts) - 1], data[cuts[-1] :].decode()


def _is_inside_a_character(data: bytes, position: int) -> bool:
    """Whether cutting UTF-8 here would cut a character: what follows then is a continuation."""
    return position < len(data) and data[position] & 0xC0 == 0x80


class _IdBuilder:
    """Ids from left to right. Text is tokenised in the longest runs between special tokens, as the
    tokenizer itself would, unless `close` sets a border.
    """

    def __init__(self, markup: Markup) -> None:
        self._markup = markup
        self.token_ids: list[int] = []
        self._run = ""
        self._digest = PromptDigest()
        self._num_digested = 0

    def add_template_text(self, text: str) -> None:
        for part in self._markup.split(text):
            if isinstance(part, int):
                self.close()
                self.token_ids.append(part)
            else:
                self._run += part

    def add_content(self, text: str) -> None:
        """A message's content, or the end of it."""
        self._run += text

    def add_ids(self, token_ids: Iterable[int]) -> None:
        assert not self._run, "ids begin at a border"
        self.token_ids.extend(token_ids)

    def close(self) -> None:
        self.token_ids += self._markup.encode_literal(self._run)
        self._run = ""

    def digest(self) -> bytes:
        """Of all ids so far; each id is hashed once however often this is asked."""
        self._digest.extend(self.token_ids[self._num_digested :])
        self._num_digested = len(self.token_ids)
        return self._digest.value()


def _probe_scaffold(template: ChatTemplate | None) -> list[str]:
    """What the template writes around a short conversation; nothing where that is not to be had."""
    if template is None:
        return []
    try:
        parts = template.take_apart(PROBE)
    except InvalidRequest:
        return []
    return parts[0] if parts else []


def _check_messages(messages: Sequence[Message]) -> None:
    if not messages:
        raise InvalidRequest("messages is empty; give at least one", param="messages")
    if messages[-1].role == "assistant":
        raise InvalidRequest(
            "the last message is the assistant's; end with a user message, or use"
            " /v1/completions to continue a text",
            param="messages",
        )
    for message in messages:
        _check_text(message.content, param="messages")


def _check_text(text: str, *, param: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidRequest(
            "the text holds half of a surrogate pair, which is no character; send whole ones",
            param=param,
        ) from None
