"""Messages are text that nobody vouches for: the chatbot gets them in a form that HTML cannot see.

Gradio puts a text without Markdown into the page as HTML. HTML begins with "<" or "&" and what
follows it at once; an invisible word joiner after each of them leaves it nothing to begin with.
assets/messages.js takes the joiners out, and draws the message; so does assets/page.js in copies.
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
