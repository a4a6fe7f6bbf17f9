"""Splits the checkpoint's chat template into its own text and the places of the contents.

This separates people's text from the template's text: the first must never become markup, the
second must. Each conversation is rendered with marks in the contents' places, so its result depends
on no other conversation. It does not know token ids or sessions.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Protocol

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.protocol import Message
from falcon_mamba_app.text.markup import Markup

# From a private-use area: no template writes these, and no filter such as trim or upper changes
# them or digits. Marks beside contents also hold a number that cannot be guessed.
MARK_START, MARK_END = "\ue000", "\ue001"
MAX_SECRET = 10**18


class ChatTokenizer(Protocol):
    """The used part of a transformers tokenizer."""

    chat_template: Any

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any: ...


class CannotChat(Exception):
    """The reason why this template cannot be used: the end of a sentence that begins with the
    model.
    """


@dataclass(frozen=True, slots=True)
class Content:
    """The text that the template shows of the conversation's message number `place`."""

    place: int
    text: str


Part = str | Content  # a text of the template's own, or a content


class ChatTemplate:
    """Renders conversations. Raises InvalidRequest where the template refuses one."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        """Tries the template on a message, in every form that templates expect. Raises CannotChat
        if the user's text never appears.
        """
        if not tokenizer.chat_template:
            raise CannotChat("has no chat template")
        self._tokenizer = tokenizer
        self._kwargs: Mapping[str, Any] = {}
        self._as_parts = self.needs_system = False
        self._find_form()

    def with_kwargs(self, kwargs: Mapping[str, Any]) -> ChatTemplate:
        """The same template, with these values for its variables."""
        other = copy(self)
        other._kwargs = kwargs
        return other

    def _find_form(self) -> None:
        reasons = []
        for self._as_parts in (False, True):
            for self.needs_system in (False, True):
                messages = self.completed([Message("user", "Hello")])
                try:
                    shown = self.marked(messages)[1::2]
                except InvalidRequest as error:
                    reasons.append(str(error.__cause__ or error))
                    continue
                if len(messages) - 1 in shown:
                    return
                reasons.append("")
        first = " ".join(reasons[0].split())[:200]
        if isinstance(self._tokenizer.chat_template, dict):
            names = ", ".join(map(repr, self._tokenizer.chat_template))
            raise CannotChat(f"has chat templates for {names} only, and none for a plain chat")
        if first:
            raise CannotChat(f"has a chat template that fails on a plain message: {first}")
        raise CannotChat("has a chat template that leaves out what the user writes")

    def completed(self, messages: Sequence[Message]) -> list[Message]:
        """The messages in the form that the template needs: some require a system message."""
        has_system = bool(messages) and messages[0].role == "system"
        if self.needs_system and not has_system:
            return [Message("system", ""), *messages]
        return list(messages)

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt's whole text, up to the start of the reply."""
        conversation = [
            {
                "role": message.role,
                "content": [{"type": "text", "text": message.content}]
                if self._as_parts
                else message.content,
            }
            for message in messages
        ]
        try:
            rendered = self._tokenizer.apply_chat_template(
                conversation, **self._kwargs, add_generation_prompt=True, tokenize=False
            )
        except Exception as error:  # a template is a program: it can fail in any way
            reason = " ".join(str(error).split())[:300]
            raise InvalidRequest(
                f"the model's chat template refuses these messages: {reason}", param="messages"
            ) from error
        return str(rendered)

    def marked(self, messages: Sequence[Message]) -> list[str | int]:
        """The template's own texts and, between them, the numbers of the contents' messages.

        Texts are at even places, numbers at odd ones. A content may appear twice or never.
        """
        marks = [f"{MARK_START}{place}{MARK_END}" for place in range(len(messages))]
        rendered = self.render(
            [Message(m.role, mark) for m, mark in zip(messages, marks, strict=True)]
        )
        parts = re.split(f"{MARK_START}([0-9]+){MARK_END}", rendered)
        return [int(part) if place % 2 else part for place, part in enumerate(parts)]

    def take_apart(
        self,
        messages: Sequence[Message],
        marked: list[str | int],
        marked_ends: Callable[[str, str], str],
    ) -> list[Part] | None:
        """The conversation's text as the template writes it, with contents separate from the rest.

        `marked_ends` puts a mark after each added token of a text. None if the template cuts
        contents so that their place is lost.
        """
        return self._verbatim(messages, marked) or self._rewritten(messages, marked_ends)

    def harmless_whole(
        self, messages: Sequence[Message], marked: Sequence[str | int], markup: Markup
    ) -> list[Part] | None:
        """The whole text as if the template had written all of it, if no content makes markup."""
        if any(markup.first_in(message.content) for message in messages):
            return None
        rendered = self.render(messages)
        own = "".join(part if isinstance(part, str) else MARK_START for part in marked)
        return [rendered] if markup.ids_in(rendered) == markup.ids_in(own) else None

    def _verbatim(self, messages: Sequence[Message], marked: list[str | int]) -> list[Part] | None:
        """The parts, for templates that keep contents unchanged or trim all of them."""
        rendered = self.render(messages)
        contents = [message.content for message in messages]
        for shown in (contents, [content.strip() for content in contents]):
            if "".join(p if isinstance(p, str) else shown[p] for p in marked) == rendered:
                return [p if isinstance(p, str) else Content(p, shown[p]) for p in marked]
        return None

    def _rewritten(
        self, messages: Sequence[Message], marked_ends: Callable[[str, str], str]
    ) -> list[Part] | None:
        """The parts, for templates that change contents: each is rendered between two marks.

        The first mark is repeated after each text at which a template may cut a content, such as
        </think>.
        """
        secret = f"{secrets.randbelow(MAX_SECRET):018d}"
        marks = [
            (f"{MARK_START}{secret}{place}{MARK_END}", f"{MARK_START}{secret}{place}.{MARK_END}")
            for place in range(len(messages))
        ]
        between = [
            Message(message.role, _between(message.content, *pair, marked_ends=marked_ends))
            for message, pair in zip(messages, marks, strict=True)
        ]
        rendered = self.render(between)
        return _contents_between(re.split(rf"{MARK_START}{secret}([0-9]+\.?){MARK_END}", rendered))


def refuse_left_out(messages: Sequence[Message], shown: Collection[str | int]) -> None:
    """Raises InvalidRequest if the template leaves out a message: some skip system messages."""
    last = len(messages) - 1
    for place, message in enumerate(messages):
        must_be_shown = place == last or message.role == "system"
        if must_be_shown and message.content.strip() and place not in shown:
            what = "the last message" if place == last else "system messages"
            raise InvalidRequest(
                f"the model's chat template leaves out {what}; put it into a user message",
                param="messages",
            )


def _between(content: str, first: str, last: str, *, marked_ends: Callable[[str, str], str]) -> str:
    """The content between its marks; white space around it stays outside, where trim finds it."""
    core = content.strip()
    if not core:
        return content
    before, after = content[: content.index(core)], content[len(content.rstrip()) :]
    return f"{before}{first}{marked_ends(core, first)}{last}{after}"


def _contents_between(split: list[str]) -> list[Part] | None:
    """Parts from texts at even places and marks at odd ones: "3" opens a content, "3." closes it.
    None where they do not pair.
    """
    parts: list[Part] = [split[0]]
    opened: str | None = None
    for mark, text in zip(split[1::2], split[2::2], strict=True):
        if opened is None and not mark.endswith("."):
            opened = mark
            parts.append(Content(int(mark), text))
        elif opened is not None and mark == opened:
            parts[-1] = Content(int(mark), _text(parts[-1]) + text)
        elif opened is not None and mark == opened + ".":
            opened = None
            parts.append(text)
        else:
            return None
    return parts if opened is None else None


def _text(part: Part) -> str:
    return part if isinstance(part, str) else part.text
