"""Prompts to token ids: conversations by the checkpoint's own template, plain text, given ids.

Ids are built from left to right: the template's text, a content, the template's text, and so on. A
reply of the model keeps the ids that the model sampled. So the ids of one turn and its reply are
the beginning of the next turn's ids. Text of a person never becomes markup.
It does not know states, slots or HTTP.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.protocol import (
    Continuation,
    Conversation,
    Message,
    Prompt,
    Text,
    TokenIds,
)
from falcon_mamba_app.text.checks import check_ids, check_messages, too_long
from falcon_mamba_app.text.id_builder import IdBuilder
from falcon_mamba_app.text.markup import Markup
from falcon_mamba_app.text.plain_text import PlainText
from falcon_mamba_app.text.reply_log import ReplyLog
from falcon_mamba_app.text.slices import NO_LIMIT, TooManyTokens
from falcon_mamba_app.text.template import (
    CannotChat,
    ChatTemplate,
    Content,
    Part,
    refuse_left_out,
)
from falcon_mamba_app.text.turn_ends import end_of_turn
from falcon_mamba_app.text.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

PROBE = (
    Message("user", "What is a state?"),
    Message("assistant", "It is what was read."),
    Message("user", " Thank you.\n"),  # with something to trim
)
NO_KWARGS: Mapping[str, Any] = MappingProxyType({})
BEFORE = PROBE[:2]  # stands for whatever came before a continuation
# A conversation with fewer characters per allowed token is rendered before its length is checked:
# 1 MB by default, copied a few times.
MAX_CHARACTERS_RENDERED_PER_TOKEN = 8


class PromptEncoder:
    """Encodes every kind of prompt that a GenerationRequest can hold. Safe to call from threads.

    The template closes the assistant's turns with the token `end_of_turn_id`, or else with the text
    `end_of_turn_text`; a reply should end before either. `cannot_chat` is a sentence that says why
    this model has no conversations, or None.
    """

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
        """
        self._model_id, self._vocab_size = model_id, vocab_size
        self._reply_log = reply_log
        self.vocabulary = Vocabulary(tokenizer.backend_tokenizer)
        self._markup = Markup(tokenizer.backend_tokenizer)
        starts = (tokenizer.bos_token_id, tokenizer.eos_token_id)
        start_ids = [token_id for token_id in starts if token_id is not None]
        self._plain = PlainText(self._markup, model_id=model_id, start_ids=start_ids[:1])
        self._template: ChatTemplate | None = None
        self.cannot_chat: str | None = None
        try:
            self._template = ChatTemplate(tokenizer)
        except CannotChat as reason:
            self.cannot_chat = f"{model_id} {reason}"
            logger.info("no chat, texts are continued: %s", self.cannot_chat)
        self.end_of_turn_id: int | None = None
        self.end_of_turn_text: str | None = None
        self._trims_contents = self._reads_whole = self.can_continue = False
        if self._template is not None:
            self._look_at_template(self._template)
        self._end_ids = frozenset(eos_token_ids) | {self.end_of_turn_id}

    def _look_at_template(self, template: ChatTemplate) -> None:
        """Learn from a short conversation how turns end, and whether its parts join correctly."""
        messages = template.completed(PROBE)
        try:
            parts = self._take_apart(template, messages)
        except InvalidRequest as error:
            logger.warning("the chat template takes no second turn: %s", error)
            return
        self.end_of_turn_id, self.end_of_turn_text = end_of_turn(self._markup, messages, parts)
        if self.end_of_turn_id is None:
            logger.warning(
                "the chat template closes turns with no token of its own; replies end at %r and at"
                " the checkpoint's end of text",
                self.end_of_turn_text or "nothing else",
            )
        last = parts[-2]
        self._trims_contents = not isinstance(last, Content) or last.text != PROBE[-1].content
        whole = self._markup.encode_parsing(template.render(messages))
        self._reads_whole = self._encode_parts(messages, parts).token_ids != whole
        if self._reads_whole:
            logger.warning("the tokenizer joins texts over turns; replies are tokenised anew")
        self.can_continue = not self._reads_whole and self._is_the_same_after_any_start(template)

    def _is_the_same_after_any_start(self, template: ChatTemplate) -> bool:
        """Whether a turn adds the same ids, however the conversation began."""
        later = [Message("user", "And now?"), Message("assistant", "Now."), Message("user", "So?")]
        try:
            ids = [
                self._ids_after(before, later)
                for before in (BEFORE, [Message("system", "Be kind."), *BEFORE], [*BEFORE] * 2)
            ]
        except (InvalidRequest, ValueError):
            return False
        return ids[0] == ids[1] == ids[2]

    def encode(
        self, prompt: Prompt, session_id: str | None = None, *, max_tokens: int = NO_LIMIT
    ) -> Sequence[int]:
        """The ids of any prompt. Raises InvalidRequest, and PromptTooLong beyond `max_tokens`,
        without tokenising more than necessary.
        """
        try:
            match prompt:
                case Text():
                    return self.encode_text(prompt, session_id, max_tokens=max_tokens)
                case TokenIds():
                    return self.check_ids(prompt)
                case Conversation():
                    return self.encode_messages(
                        prompt, session_id, max_tokens=max_tokens, kwargs=prompt.template_kwargs
                    )
                case Continuation():
                    return self.encode_continuation(prompt, max_tokens=max_tokens)
        except TooManyTokens:
            raise too_long(max_tokens) from None

    def forget(self, session_id: str) -> bool:
        """Drop the session's recorded ids. Returns whether there were any."""
        had_replies = self._reply_log.forget(session_id)
        return self._plain.forget(session_id) or had_replies

    def encode_text(
        self, text: str, session_id: str | None = None, *, max_tokens: int = NO_LIMIT
    ) -> list[int]:
        """The ids of a text to continue. Raises TooManyTokens."""
        return self._plain.encode(text, session_id, max_tokens=max_tokens)

    def check_ids(self, token_ids: Sequence[int]) -> list[int]:
        """The caller's own ids. Raises InvalidRequest if the model does not know them all."""
        return check_ids(token_ids, vocab_size=self._vocab_size)

    def encode_messages(
        self,
        messages: Sequence[Message],
        session_id: str | None = None,
        *,
        max_tokens: int = NO_LIMIT,
        kwargs: Mapping[str, Any] = NO_KWARGS,
    ) -> list[int]:
        """The ids of a conversation up to the assistant's turn, by the checkpoint's own template
        with `kwargs` for its variables. If it ends with the assistant's words, the reply continues
        them. Raises TooManyTokens.
        """
        if self._template is None:
            raise InvalidRequest(
                f"{self.cannot_chat}; use a plain prompt (/v1/completions)", param="messages"
            )
        check_messages(messages)
        *before, last = messages
        if last.role == "assistant":
            begun = self.encode_messages(before, session_id, max_tokens=max_tokens, kwargs=kwargs)
            room = max_tokens - len(begun)
            own = self._recorded(last, last.content, None, IdBuilder(self._markup))
            return begun + (own or self._markup.encode_literal(last.content, max_tokens=room))
        template = self._template.with_kwargs(kwargs)
        messages = template.completed(messages)
        self._refuse_much_too_long(messages, max_tokens)
        parts = self._take_apart(template, messages)
        ids = self._encode_parts(messages, parts, session_id=session_id, max_tokens=max_tokens)
        return ids.token_ids

    def encode_continuation(
        self, prompt: Continuation, *, max_tokens: int = NO_LIMIT
    ) -> array[int]:
        """The ids given, and those of what came after them. Raises TooManyTokens."""
        check_messages(prompt.messages)
        *before, last = prompt.messages
        ids = array("i", prompt.packed_ids)
        begun = last.content if last.role == "assistant" else None
        read = before if begun is not None else prompt.messages
        if read or begun is None:
            ids.extend(self._ids_after(BEFORE, read, max_tokens=max_tokens - len(ids)))
        if begun is not None:
            ids.extend(self._markup.encode_literal(begun, max_tokens=max_tokens - len(ids)))
        return ids

    def _ids_after(
        self, before: Sequence[Message], messages: Sequence[Message], *, max_tokens: int = NO_LIMIT
    ) -> list[int]:
        """The ids that `messages` add to a conversation that ended with the assistant's words."""
        assert self._template is not None, "the model has no conversations"
        whole = self._template.completed([*before, *messages])
        reply = len(whole) - len(messages) - 1
        self._refuse_much_too_long(messages, max_tokens)
        parts = self._take_apart(self._template, whole)
        places = [part.place if isinstance(part, Content) else None for part in parts]
        after = parts[places.index(reply) + 1 :]
        return self._encode_parts(whole, after, max_tokens=max_tokens).token_ids

    def reply_as_shown(
        self, reply_ids: Sequence[int], text: str, stop_token_ids: Collection[int] = ()
    ) -> Sequence[int]:
        """A reply's ids as the next turn has them: without its end, and those of its text where a
        stop string has cut it.
        """
        end = len(reply_ids)
        while end and (reply_ids[end - 1] in self._end_ids or reply_ids[end - 1] in stop_token_ids):
            end -= 1
        kept, decode = reply_ids[:end], self.vocabulary.decode
        is_whole = text in (decode(kept), decode(kept, skip_special_tokens=False))
        return kept if is_whole else self._markup.encode_literal(text)

    def refuse_characters(self, prompt: Prompt, *, max_tokens: int) -> None:
        """Raises PromptTooLong at once for texts with too many characters to fit in any case."""
        contents: list[str] = [prompt] if isinstance(prompt, Text) else []
        if isinstance(prompt, Continuation):
            prompt = prompt.messages
        if isinstance(prompt, Conversation) and not self._trims_contents:
            contents = [message.content for message in prompt]
        try:
            self._markup.refuse_characters(sum(map(len, contents)), max_tokens)
        except TooManyTokens:
            raise too_long(max_tokens) from None

    def _refuse_much_too_long(self, messages: Sequence[Message], max_tokens: int) -> None:
        """Check the length before rendering copies large contents. Raises TooManyTokens."""
        num_characters = sum(len(message.content) for message in messages)
        if num_characters <= MAX_CHARACTERS_RENDERED_PER_TOKEN * max_tokens:
            return
        for message in messages:
            content = message.content.strip() if self._trims_contents else message.content
            max_tokens -= self._markup.count_at_least(content, max_tokens=max_tokens)

    def _take_apart(self, template: ChatTemplate, messages: Sequence[Message]) -> Sequence[Part]:
        """The conversation's text by the template, with people's words separate from its own."""
        marked = template.marked(messages)
        refuse_left_out(messages, marked[1::2])
        if self._reads_whole and (whole := template.harmless_whole(messages, marked, self._markup)):
            return whole
        parts = template.take_apart(messages, marked, self._markup.marked_ends)
        parts = parts or template.harmless_whole(messages, marked, self._markup)
        if parts is None:
            raise InvalidRequest(
                "a message contains one of the model's control tokens, and this model's template"
                " changes messages so that they cannot be quoted; write it differently",
                param="messages",
            )
        return parts

    def _encode_parts(
        self,
        messages: Sequence[Message],
        parts: Sequence[Part],
        *,
        session_id: str | None = None,
        max_tokens: int = NO_LIMIT,
    ) -> IdBuilder:
        ids = IdBuilder(self._markup, max_tokens=max_tokens)
        for part in parts:
            if isinstance(part, str):
                ids.add_template_text(part)
            elif messages[part.place].role != "assistant":
                ids.add_content(part.text)
            else:
                # Borders before and after: here the prompt of this reply ended, then the reply.
                ids.close()
                recorded = self._recorded(messages[part.place], part.text, session_id, ids)
                if recorded is None:
                    ids.add_content(part.text)
                else:
                    ids.add_ids(recorded)
                ids.close()
        ids.close()
        return ids

    def _recorded(
        self, message: Message, shown: str, session_id: str | None, ids: IdBuilder
    ) -> list[int] | None:
        """The model's own ids of a reply that came back as the template shows it, perhaps trimmed,
        or as it was sent. None for a shortened or edited text: only whole replies have a saved
        state.
        """
        known = self._reply_log.find(session_id, ids.digest()) if session_id else []
        for token_ids in (array("i", message.packed_ids).tolist(), *known):
            while token_ids and token_ids[-1] in self._end_ids:
                token_ids.pop()  # the template closes the turn itself
            if token_ids and min(token_ids) < 0:
                continue
            if self.vocabulary.decode(token_ids) in (shown, message.content):
                return token_ids
        return None
