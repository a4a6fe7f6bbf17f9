"""The page's scripts: those in its head, and those that are fetched when something asks for them.

They are sent without the comments that have lines of their own, and without indentation: a sixth of
what a first visit would transfer. No text in a script goes over several lines.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from falcon_mamba_app.bundled import ASSETS

# Each builds on those before it.
FIRST = (
    "storage.js",
    "markdown_inline.js",
    "markdown_blocks.js",
    "plots.js",
    "messages.js",
    "strip.js",
    "parts.js",
    "later.js",
    "dialogs.js",
    "connection.js",
    "stretches.js",
    "conversation.js",
    "memory.js",
    "books.js",
    "memory_files.js",
    "sidebar.js",
    "presets.js",
    "system_cost.js",
    "composer.js",
    "lab_tab.js",
    "page.js",
)
# What opens them is named in assets/later.js.
LATER = (
    "everything.js",
    "demos.js",
    "probabilities.js",
    "notebook.js",
    "as_code.js",
    "comparison.js",
)

JAVASCRIPT = "text/javascript; charset=utf-8"
CSS = "text/css; charset=utf-8"
COMMENT = re.compile(r"^[ \t]*(?:/\*(?:(?!\*/).)*\*/|//[^\n]*)[ \t]*\n", re.DOTALL | re.MULTILINE)
INDENTATION = re.compile(r"^[ \t]+", re.MULTILINE)


class PageFile(NamedTuple):
    """A file for the browser, which may keep it as long as its version is asked for."""

    data: bytes
    media_type: str
    version: str


def script_of(names: Iterable[str]) -> str:
    """The scripts of assets/ one after the other, as they are sent."""
    text = "\n".join((ASSETS / name).read_text("utf-8") for name in names)
    return INDENTATION.sub("", COMMENT.sub("", text))


def page_file(text: str, media_type: str) -> PageFile:
    """A file with this text."""
    data = text.encode()
    return PageFile(data, media_type, hashlib.sha256(data).hexdigest()[:12])


@cache
def later_file() -> PageFile:
    """The scripts that are not in the page's head."""
    return page_file(script_of(LATER), JAVASCRIPT)
