"""The log: events and places, never the users' words and never a secret.

An exception's message may quote a user. So tracebacks are printed without messages, also those of
libraries; only the engine, which knows no text, keeps them. A line that a request caused carries
the request's id.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import sys
import time
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from falcon_mamba_app.errors import origin_of

OURS = "falcon_mamba_app"
WORDLESS = tuple(f"falcon_mamba_app.{layer}" for layer in ("checkpoint", "engine", "model", "ops"))
REPEAT_S, MAX_KINDS = 60.0, 100
FORMAT = "%(levelname)s %(name)s: %(message)s"

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

ExceptionInfo = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)


def set_up_logging(level: str, form: str = "text") -> None:
    """Our own loggers at `level`; libraries tell no more than "info", whatever is asked for, since
    some print bodies and headers at "debug". `form` is "text" or "json", an object a line.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else DiscreetFormatter(FORMAT))
    wanted = logging.getLevelName(level.upper())
    logging.basicConfig(level=max(wanted, logging.INFO), handlers=[handler])
    logging.getLogger(OURS).setLevel(wanted)
    # Each request to the hub or another server, with its whole address.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # That its own product on the CPU could be faster with one more package; we have ours.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    sys.excepthook = _tell_origin


class DiscreetFormatter(logging.Formatter):
    """Prints where an exception came from, without its message."""

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info and not record.name.startswith(WORDLESS):
            record = logging.makeLogRecord(record.__dict__)
            record.exc_text = discreet_traceback(record.exc_info)
        line = super().format(record)
        own = request_id.get()
        return f"{line} [{own}]" if own else line


class JsonFormatter(DiscreetFormatter):
    """The same facts as one JSON object a line, for collectors of logs."""

    def format(self, record: logging.LogRecord) -> str:
        facts = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": request_id.get(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.name.startswith(WORDLESS):
            facts["traceback"] = self.formatException(record.exc_info)
        elif record.exc_info:
            facts["traceback"] = discreet_traceback(record.exc_info)
        known = {name: fact for name, fact in facts.items() if fact is not None}
        return json.dumps(known, ensure_ascii=False)


def discreet_traceback(exception: ExceptionInfo | Any) -> str:
    """The frames and the kind of an exception."""
    kind, error, frames = exception
    if kind is None:
        return ""
    lines = traceback.format_tb(frames if error is None else error.__traceback__)
    return "".join(("Traceback (most recent call last):\n", *lines, kind.__name__))


class LoopErrors:
    """What the event loop reports, each kind once a minute: when a server has no file left for one
    more connection, its loop says so two thousand times a second.

    asyncio's own handler prints the representation of futures, results included.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told_s: dict[str, float] = {}

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        line = f"{context['message']} ({origin_of(error) if error else 'no exception'})"
        now_s = self._clock()
        if now_s - self._told_s.get(line, -math.inf) < REPEAT_S:
            return
        if len(self._told_s) >= MAX_KINDS:
            self._told_s.clear()
        self._told_s[line] = now_s
        logging.getLogger("asyncio").error("%s", line)


def _tell_origin(
    kind: type[BaseException], error: BaseException, frames: TracebackType | None
) -> None:
    print(discreet_traceback((kind, error, frames)), file=sys.stderr)
