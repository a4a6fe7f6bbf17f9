"""The lines of a batch's files: requests in, answers out, in OpenAI's shapes. No HTTP, no model."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from falcon_mamba_app.api.fields import shown
from falcon_mamba_app.http.transport import to_json

Json = dict[str, Any]

ENDPOINTS = ("/v1/chat/completions", "/v1/completions")
MAX_LINES = 50_000  # OpenAI's
MAX_ID_CHARS = 512
MAX_ERRORS = 20  # told of one file
FIELDS = {"custom_id", "method", "url", "body"}


@dataclass(frozen=True, slots=True)
class Line:
    """One request of a batch; `body` is its JSON."""

    custom_id: str
    body: bytes


def requests_in(data: bytes, endpoint: str) -> tuple[list[Line], list[Json]]:
    """The requests of an input file, and what is wrong with it; one of both is empty."""
    lines: list[Line] = []
    errors: list[Json] = []
    seen: set[str] = set()
    for number, text in _numbered(data):
        found = _read(text, endpoint, seen)
        if isinstance(found, Line):
            lines.append(found)
        else:
            errors.append({**found, "line": number})
        if len(lines) > MAX_LINES:
            errors.append(
                _wrong("too_many_tasks", f"the file has more than {MAX_LINES:,} requests")
            )
        if len(errors) >= MAX_ERRORS or len(lines) > MAX_LINES:
            break
    if not lines and not errors:
        errors.append(_wrong("empty_file", "the file has no requests: one JSON object a line"))
    return ([], errors) if errors else (lines, [])


def _numbered(data: bytes) -> Iterator[tuple[int, bytes]]:
    for number, text in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        if text.strip():
            yield number, text


def _read(text: bytes, endpoint: str, seen: set[str]) -> Line | Json:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _wrong("invalid_json_line", "this line is no JSON")
    if not isinstance(value, dict):
        return _wrong("invalid_json_line", f"this line is {shown(value)}; it must be an object")
    custom_id = value.get("custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_ID_CHARS:
        return _wrong(
            "invalid_custom_id",
            f"custom_id is {shown(custom_id)}; it must be a text of 1 to {MAX_ID_CHARS} characters",
            "custom_id",
        )
    if custom_id in seen:
        return _wrong(
            "duplicate_custom_id",
            f"custom_id {shown(custom_id)} stands on two lines; each needs one of its own",
            "custom_id",
        )
    seen.add(custom_id)
    if value.get("method") != "POST":
        return _wrong(
            "invalid_method", f"method is {shown(value.get('method'))}; it must be POST", "method"
        )
    if value.get("url") != endpoint:
        given = shown(value.get("url"))
        return _wrong("mismatched_url", f"url is {given}; the batch's is {endpoint}", "url")
    if unknown := sorted(value.keys() - FIELDS):
        return _wrong(
            "unknown_field",
            f"unknown field {unknown[0][:80]}; a line has custom_id, method, url and body",
            unknown[0][:80],
        )
    body = value.get("body")
    if not isinstance(body, dict):
        return _wrong("invalid_body", f"body is {shown(body)}; it must be an object", "body")
    if body.get("stream"):
        return _wrong("invalid_body", "body.stream is true; a batch has whole answers", "body")
    return Line(custom_id, to_json(body))


def _wrong(code: str, message: str, param: str | None = None) -> Json:
    return {"code": code, "message": message, "param": param, "line": None}


def answer_line(line: Line, status: int, body: Json) -> bytes:
    """One line of a results file."""
    response = {"status_code": status, "request_id": f"req-{secrets.token_hex(12)}", "body": body}
    return _told(line, response=response)


def unanswered_line(line: Line, code: str, message: str) -> bytes:
    """One line for a request that nobody answered."""
    return _told(line, error={"code": code, "message": message})


def _told(line: Line, *, response: Json | None = None, error: Json | None = None) -> bytes:
    told = {"id": f"batch_req_{secrets.token_hex(12)}", "custom_id": line.custom_id}
    return to_json({**told, "response": response, "error": error}) + b"\n"


def answered_in(data: bytes) -> set[str]:
    """The custom_ids of a results file; a last line that a crash has cut counts as none."""
    found = set()
    for text in data.splitlines():
        try:
            found.add(json.loads(text)["custom_id"])
        except (ValueError, KeyError, TypeError):
            continue
    return found
