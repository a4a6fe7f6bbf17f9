"""Messages are untrusted text: the chatbot gets them in a form that is never parsed as HTML.

Gradio inserts a text without Markdown into the page as HTML. Markup needs "<" or "&" and, directly
after it, more characters. So an invisible word joiner after each of these prevents markup.
assets/messages.js removes the joiners and draws the message; assets/page.js removes them in copies.
"""

from __future__ import annotations

import re

JOINER = "\u2060"

_MARKS = re.compile("[<&]")
_JOINED = re.compile(f"([<&]){JOINER}")


def shown(text: str) -> str:
    """The text for the chatbot: as HTML it is the same text, and nothing else."""
    return _MARKS.sub(lambda mark: mark.group() + JOINER, text)


def typed(text: str) -> str:
    """The text that `shown` was made from."""
    return _JOINED.sub(r"\1", text)
