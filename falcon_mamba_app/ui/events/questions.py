"""What a part of the page asks: each question has a number, which the answer brings back.

Answers overtake each other, and Gradio tells a page nothing of an answer that is as the one before
was. By its number the page knows which question an answer is to, and no two are the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, ParamSpec

import gradio as gr

P = ParamSpec("P")
Answer = dict[str, Any]


def asked_of(data: gr.EventData) -> Answer:
    """What the page has sent; nothing of what is no object."""
    return data._data if isinstance(data._data, dict) else {}


def answers(handler: Callable[P, Awaitable[Answer]]) -> Callable[P, Awaitable[Answer]]:
    """An event function whose answer has its question's number."""

    @wraps(handler)
    async def answer(*args: P.args, **kwargs: P.kwargs) -> Answer:
        shown = await handler(*args, **kwargs)
        (number,) = (asked_of(arg).get("asked") for arg in args if isinstance(arg, gr.EventData))
        return {**shown, "asked": number} if isinstance(number, int) else shown

    return answer
