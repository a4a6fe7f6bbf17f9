"""The ids of a book, and of what stands on it.

A book is the beginning of a conversation's ids: the template's opening and the text, as far as it
was read. Any beginning of a book is a book, so reading may stop anywhere. A conversation on it goes
on with the end of that message, a short answer of the model's, and then its own messages; the text
of a book that is read after it is such a message too. A model without a template has the bare text,
which a plain prompt continues.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from falcon_mamba_app.errors import InvalidRequest, NotSupported, PromptTooLong
from falcon_mamba_app.protocol import (
    Continuation,
    Conversation,
    Message,
    ModelInfo,
    Prompt,
    Text,
    TokenIds,
    Tokenizer,
)

ANSWER = "I have read it."
PROBES = ("x", "y")
COUNTED_CHARACTERS = 50_000  # at a time, of a text that is too long for one prompt
MIN_ROOM = 16


@dataclass(frozen=True, slots=True)
class Standing:
    """How this model's conversations stand on a book: the ids between its text and the first
    message. None of them where it cannot chat, or cannot go on by ids.
    """

    tokenizer: Tokenizer
    model: ModelInfo
    closing: array[int] | None
    num_markup: int  # ids after a message's content

    @classmethod
    def of(cls, tokenizer: Tokenizer | None, model: ModelInfo) -> Standing:
        """Raises NotSupported where another server tokenises."""
        if tokenizer is None:
            raise NotSupported(
                "books are read by the server that has the model; ask the one behind --backend-url"
            )
        if not (model.has_chat_template and model.can_continue):
            return cls(tokenizer, model, None, 0)
        one, other = (tokenizer.encode(_alone(probe)) for probe in PROBES)
        answered = tokenizer.encode(
            Conversation([Message("user", PROBES[0]), Message("assistant", ANSWER)])
        )
        num_markup = _num_same(reversed(one), reversed(other))
        if answered[: len(one)] != one:
            return cls(tokenizer, model, None, 0)
        closing = array("i", answered[len(one) - num_markup :])
        return cls(tokenizer, model, closing, num_markup)

    @property
    def is_chat(self) -> bool:
        return self.closing is not None

    @property
    def max_tokens(self) -> int | None:
        """The longest book: there is room for a question after it."""
        limit = self.model.max_prompt_tokens
        return None if limit is None else limit - max(MIN_ROOM, min(1_024, limit // 8))

    def ids_of(self, name: str, text: str) -> array[int]:
        """The book's ids. Raises PromptTooLong, which says how long it is and may be."""
        whole = told(name, text)
        try:
            ids = self._encoded(whole)
        except PromptTooLong:
            raise self._too_long(self._counted(whole)) from None
        self.refuse_too_long(len(ids))
        return ids

    def refuse_too_long(self, num_tokens: int) -> None:
        """Raises PromptTooLong for more than the longest book."""
        if self.max_tokens is not None and num_tokens > self.max_tokens:
            raise self._too_long(num_tokens)

    def joined(self, ids: array[int], later: array[int]) -> array[int]:
        """The ids of a book that is read after another one, both as far as they were read: their
        texts are two messages of one conversation, with the answer between them.
        """
        if self.closing is None:
            return ids + array("i", self.tokenizer.encode(Text("\n\n"))) + later
        packed = self.closing.tobytes()
        before = self._before_text(_alone)
        after = self._before_text(lambda text: Continuation(packed, _alone(text)))
        return ids + array("i", after) + later[len(before) :]

    def _before_text(self, prompt_of: Callable[[str], Prompt]) -> list[int]:
        """The ids that stand before a message's text."""
        one, other = (self.tokenizer.encode(prompt_of(probe)) for probe in PROBES)
        return one[: _num_same(one, other)]

    def prompt_on(self, ids: array[int], prompt: Prompt) -> Prompt:
        """The prompt that follows the book. Raises InvalidRequest where it cannot."""
        if isinstance(prompt, Text):
            later = self.tokenizer.encode(prompt) if prompt else []
            return TokenIds([*ids, *later])
        if isinstance(prompt, TokenIds):
            return TokenIds([*ids, *prompt])
        if isinstance(prompt, Continuation):  # what it goes on from stands on the book already
            return prompt
        if self.closing is None:
            raise InvalidRequest(
                "no conversation of this model can stand on a book; /v1/completions can",
                param="book",
            )
        if prompt.template_kwargs:
            raise InvalidRequest(
                "the book was read without chat_template_kwargs; leave them out",
                param="chat_template_kwargs",
            )
        return Continuation((ids + self.closing).tobytes(), Conversation(_folded(prompt)))

    def _encoded(self, whole: str) -> array[int]:
        if self.closing is None:
            return array("i", self.tokenizer.encode(Text(whole)))
        ids = self.tokenizer.encode(_alone(whole))
        return array("i", ids[: len(ids) - self.num_markup])

    def _counted(self, whole: str) -> int:
        """The tokens of a text of any length, to within one in a thousand."""
        parts = range(0, len(whole), COUNTED_CHARACTERS)
        texts = (whole[at : at + COUNTED_CHARACTERS] for at in parts)
        return sum(len(self.tokenizer.encode(Text(text))) for text in texts)

    def _too_long(self, num_tokens: int) -> PromptTooLong:
        return PromptTooLong(
            f"the document has about {num_tokens:,} tokens; this server reads books of at most"
            f" {self.max_tokens or 0:,} (--max-prompt-tokens)",
            param="file",
        )


def told(name: str, text: str) -> str:
    """The text with its name above it, as the model reads it."""
    return f"{name}\n\n{text}"


def warning(num_tokens: int, num_pages: int, model: ModelInfo) -> str:
    """What to know before a long text is read; nothing where it is not too long."""
    trained = model.trained_context_tokens
    if trained is None or num_tokens <= trained:
        return ""
    page = max(1, num_pages * trained // num_tokens)
    return (
        f"{num_tokens:,} tokens are more than the {trained:,} that the model was trained on (page"
        f" {page} of {num_pages}): it reads all of them, but may recall the early pages badly"
    )


def _folded(messages: Sequence[Message]) -> list[Message]:
    """The messages without system messages at their beginning, which a template has no place for
    after a book: they stand before the first question.
    """
    rules: list[str] = []
    rest = list(messages)
    while rest and rest[0].role == "system":
        rules.append(rest.pop(0).content)
    if not rest:
        raise InvalidRequest("after the book there is no question yet", param="messages")
    if rules and rest[0].role == "user":
        rest[0] = Message("user", "\n\n".join([*rules, rest[0].content]))
    return rest


def _alone(text: str) -> Conversation:
    return Conversation([Message("user", text)])


def _num_same(one: Iterable[int], other: Iterable[int]) -> int:
    """How many ids are the same before the first that is not."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return sum(1 for _ in same)
