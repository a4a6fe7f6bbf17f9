"""The checkpoint's chat template, taken apart into its own text and the places of the contents.

Only so can what a person wrote be told from what the template wrote: the one must never become
special tokens, the other must. It does not know token ids or sessions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from jinja2 import TemplateError

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.protocol import Message

# From a private-use area: no template writes these, and no filter such as trim touches them.
MARK_START, MARK_END = "\ue000", "\ue001"


class ChatTokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    chat_template: Any

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any: ...


class ChatTemplate:
    """Renders conversations. Raises InvalidRequest where the template refuses one."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt's whole text, up to where the reply begins."""
        conversation = [{"role": m.role, "content": m.content} for m in messages]
        try:
            rendered = self._tokenizer.apply_chat_template(
                conversation, add_generation_prompt=True, tokenize=False
            )
        except (TemplateError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InvalidRequest(
                f"the model's chat template refuses these messages: {reason}", param="messages"
            ) from error
        return str(rendered)

    def take_apart(self, messages: Sequence[Message]) -> tuple[list[str], list[str]] | None:
        """The template's own texts, one more than messages, and the contents between them.

        None where the template rewrites contents (other than by trimming them all), drops or moves
        them: then nothing but the whole rendering is right.
        """
        scaffold = self._scaffold(messages)
        if scaffold is None:
            return None
        rendered = self.render(messages)
        contents = [message.content for message in messages]
        for candidate in (contents, [content.strip() for content in contents]):
            if _interleave(scaffold, candidate) == rendered:
                return scaffold, candidate
        return None

    def _scaffold(self, messages: Sequence[Message]) -> list[str] | None:
        marks = [f"{MARK_START}{place}{MARK_END}" for place in range(len(messages))]
        rest = self.render([Message(m.role, mark) for m, mark in zip(messages, marks, strict=True)])
        scaffold = []
        for mark in marks:
            before, found, rest = rest.partition(mark)
            if not found:
                return None
            scaffold.append(before)
        scaffold.append(rest)
        return None if any(MARK_START in text for text in scaffold) else scaffold


def _interleave(scaffold: list[str], contents: list[str]) -> str:
    pairs = zip(scaffold, contents, strict=False)
    return "".join(text for pair in pairs for text in pair) + scaffold[-1]
