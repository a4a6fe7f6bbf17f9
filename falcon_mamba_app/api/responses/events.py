"""The stream of a response: its events are numbered, and each follows from the record alone.

So a reader may come at any time, begin after any number, and sees what the first reader saw.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

from falcon_mamba_app.api.responses.record import Json, Record, Status

# The last event's name by the status; OpenAI has none for a cancelled response.
LAST = {
    "completed": "response.completed",
    "incomplete": "response.incomplete",
    "failed": "response.failed",
    "cancelled": "response.incomplete",
}
_BEGINNING: list[tuple[str, Status]] = [
    ("response.created", "in_progress"),
    ("response.in_progress", "in_progress"),
]
_BEGINNING_IN_BACKGROUND: list[tuple[str, Status]] = [
    ("response.created", "queued"),
    ("response.queued", "queued"),
    ("response.in_progress", "in_progress"),
]


def event(record: Record, number: int) -> Json | None:
    """Event `number` of the stream; None if it has not happened, or never will."""
    beginning = _BEGINNING_IN_BACKGROUND if record.is_background else _BEGINNING
    if number < len(beginning):
        name, status = beginning[number]
        if record.status == "queued" and status != "queued":
            return None
        return {"type": name, "sequence_number": number, "response": record.to_json(status=status)}
    at = number - len(beginning)
    if not record.has_item:
        return _last(record, number) if record.is_over and at == 0 else None
    if at < 2:
        return _opening(record, number)[at]()
    at -= 2
    if at < len(record.pieces):
        return _delta(record, at, number)
    at -= len(record.pieces)
    closing = _closing(record, number)
    return closing[at]() if record.is_over and at < len(closing) else None


def _delta(record: Record, place: int, number: int) -> Json:
    piece = record.pieces[place]
    name = "response.output_text.delta"
    return {**_of_part(record, name, number), "delta": piece.text, "logprobs": piece.logprobs}


def _opening(record: Record, number: int) -> list[Callable[[], Json]]:
    item: Json = {
        "id": record.item_id,
        "type": "message",
        "role": "assistant",
        "status": "in_progress",
        "content": [],
    }
    part: Json = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    return [
        lambda: _of_item("response.output_item.added", item, number),
        lambda: {**_of_part(record, "response.content_part.added", number), "part": part},
    ]


def _closing(record: Record, number: int) -> list[Callable[[], Json]]:
    item = record.item()
    part = item["content"][0]
    text = {"text": part["text"], "logprobs": part["logprobs"]}
    return [
        lambda: {**_of_part(record, "response.output_text.done", number), **text},
        lambda: {**_of_part(record, "response.content_part.done", number), "part": part},
        lambda: _of_item("response.output_item.done", item, number),
        lambda: _last(record, number),
    ]


def _last(record: Record, number: int) -> Json:
    name = LAST[record.status]
    return {"type": name, "sequence_number": number, "response": record.to_json()}


def _of_part(record: Record, name: str, number: int) -> Json:
    return {
        "type": name,
        "sequence_number": number,
        "item_id": record.item_id,
        "output_index": 0,
        "content_index": 0,
    }


def _of_item(name: str, item: Json, number: int) -> Json:
    return {"type": name, "sequence_number": number, "output_index": 0, "item": item}


async def told_again(record: Record, after: int) -> AsyncGenerator[Json | None, None]:
    """The events of a response that nobody writes any more."""
    number = after + 1
    while (one := event(record, number)) is not None:
        yield one
        number += 1
