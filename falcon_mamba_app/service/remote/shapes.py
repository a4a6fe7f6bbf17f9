"""Reads the JSON of OpenAI-compatible servers in all of its shapes.

Only here is this app lenient towards a backend, like OpenAI's own clients, which check nothing:
received text is kept, odd values beside it are ignored, and no value raises. These are pure
functions of JSON values.
"""

from __future__ import annotations

import math
from typing import Any

from falcon_mamba_app.protocol import FinishReason, TokenLogprob

BYTES_NAME = "bytes:"  # OpenAI's prefix for a token whose bytes are no text
LENGTH_REASONS = ("length", "max_tokens", "max_new_tokens", "max_length", "model_length")
LEAST_LOGPROB = -9999.0  # OpenAI's value for an impossible token; JSON has no infinity


def first_choice(answer: Any) -> dict[str, Any] | None:
    """The first choice of a chunk or of a whole answer."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return None
    return choices[0]


def text_of(choice: dict[str, Any]) -> str:
    """The text that a choice adds, streamed or whole, of either endpoint."""
    for part in (choice.get("delta"), choice.get("message")):
        found = part.get("content") or part.get("refusal") if isinstance(part, dict) else part
        if text := _plain_text(found):
            return text
    return _plain_text(choice.get("text"))


def _plain_text(value: Any) -> str:
    """A string, or the text parts of a list."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and value.get("type", "text") in ("text", "output_text"):
        return _plain_text(value.get("text"))
    return "".join(map(_plain_text, value)) if isinstance(value, list) else ""


def reason_of(choice: dict[str, Any]) -> FinishReason | None:
    """The finish reason; None while the reply continues, for which some servers send ""."""
    reason = choice.get("finish_reason")
    if not reason or reason == "null":
        return None
    is_length = isinstance(reason, str) and reason.lower() in LENGTH_REASONS
    return "length" if is_length else "stop"


def count_of(value: Any) -> int | None:
    """A count of tokens; some servers send 3.0 for 3."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    is_count = math.isfinite(value) and value >= 0 and value == int(value)
    return int(value) if is_count else None


def ids_in(value: Any) -> tuple[int, ...]:
    """A list of token ids; none where it is none."""
    is_list = isinstance(value, list) and all(type(entry) is int for entry in value)
    return tuple(value) if is_list else ()


def tokens_of(choice: dict[str, Any]) -> tuple[TokenLogprob, ...]:
    """The log-probabilities of a choice, in the shape of either endpoint, without damaged ones."""
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        return ()
    try:
        if "content" in logprobs:
            return tuple(_chat_token(entry) for entry in logprobs["content"] or ())
        return completion_tokens(logprobs)
    except (KeyError, TypeError, ValueError, AttributeError):
        return ()


def completion_tokens(logprobs: dict[str, Any]) -> tuple[TokenLogprob, ...]:
    """The tokens of the legacy shape, which has a column per property. Odd values may raise."""
    names, values = logprobs.get("tokens") or (), logprobs.get("token_logprobs") or ()
    tops = logprobs.get("top_logprobs") or [None] * len(names)
    return tuple(
        _named_token(name, logprob, top or {})
        for name, logprob, top in zip(names, values, tops, strict=True)
    )


def _chat_token(entry: dict[str, Any]) -> TokenLogprob:
    name, data = entry["token"], entry.get("bytes")
    return TokenLogprob(
        None,
        name,
        name.encode(errors="replace") if data is None else bytes(data),
        _logprob(entry["logprob"]),
        tuple(_chat_token(other) for other in entry.get("top_logprobs") or ()),
    )


def _named_token(name: str, logprob: Any, top: dict[str, Any]) -> TokenLogprob:
    """A token of the legacy shape, its alternatives from the likeliest down."""
    alternatives = [_named_token(other, value, {}) for other, value in top.items()]
    alternatives.sort(key=lambda token: -(token.logprob or 0.0))
    data = name.encode(errors="replace")
    if name.startswith(BYTES_NAME + "\\x"):
        data = bytes.fromhex(name.removeprefix(BYTES_NAME).replace("\\x", ""))
        name = data.decode(errors="replace")
    value = None if logprob is None else _logprob(logprob)
    return TokenLogprob(None, name, data, value, tuple(alternatives))


def _logprob(value: Any) -> float:
    number = float(value)
    if not number < math.inf:
        raise ValueError(f"{value!r} is no log-probability")
    return max(number, LEAST_LOGPROB)


def places_in(text: str, tokens: tuple[TokenLogprob, ...]) -> list[int]:
    """The start of each token in a piece of text; a token that is not shown has length 0."""
    places, place = [], 0
    for token in tokens:
        places.append(place)
        name = token.token_bytes.decode(errors="replace")
        place += len(name) if text.startswith(name, place) else 0
    return places


def error_in(answer: Any, *, event_name: str = "message") -> Any:
    """The error in an answer or in an event in mid-stream, or None."""
    if not isinstance(answer, dict):
        return answer if event_name == "error" else None
    if answer.get("error"):
        return answer
    return answer if event_name == "error" or answer.get("object") == "error" else None


def message_of(body: Any) -> str:
    """The sentence of an error, from OpenAI's shape, FastAPI's, or any other that has one."""
    if isinstance(body, list):
        return "; ".join(filter(None, map(message_of, body)))
    if not isinstance(body, dict):
        return "" if body is None else str(body)
    text = ""
    for name in ("error", "message", "msg", "detail", "error_message"):
        if text := message_of(body.get(name)):
            break
    place = body.get("loc")
    if isinstance(place, list):
        return f"{'.'.join(map(str, place))}: {text}"
    return text


class WholeCharacters:
    """Joins characters that a server has cut in two, as servers that count in UTF-16 do."""

    def __init__(self) -> None:
        self._half = ""

    def feed(self, text: str) -> str:
        """The complete text; half a character is held back, and becomes U+FFFD if it stays half."""
        text = self._half + text
        self._half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        return _joined(text.removesuffix(self._half) if self._half else text)

    def flush(self) -> str:
        half, self._half = self._half, ""
        return _joined(half)


def _joined(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
