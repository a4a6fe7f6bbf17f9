"""The limits of a document. Beyond one, the sender gets a sentence with the number."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from falcon_mamba_app.errors import InvalidRequest

MAX_FILE_BYTES = 64 * 2**20
MAX_CHARACTERS = 8_000_000  # two million tokens, 15 times the longest prompt by default
MAX_PAGES = 5_000
MAX_ENTRIES = 5_000  # files in an archive
MAX_ENTRY_BYTES = 64 * 2**20  # of one of them, unpacked
MAX_UNPACKED_BYTES = 256 * 2**20
MAX_RATIO = 200  # unpacked to packed; texts reach 10, empty tables 100
MAX_DEPTH = 200  # elements within each other
MAX_WALL_S = 60.0
MAX_CPU_S = 60
MAX_MEMORY_BYTES = 2**30
CHARACTERS_PER_PAGE = 1_800  # where a format has no pages of its own
SPACES = re.compile(r"[^\S\n]+\n")
BLANK_LINES = re.compile(r"\n{3,}")


class DocumentRefused(InvalidRequest):
    """The file cannot be read as a document."""

    code = "document_refused"

    def __init__(self, message: str) -> None:
        super().__init__(message, param="file")


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says. Pages are its own, or as many as printed ones would be."""

    text: str
    kind: str
    num_pages: int
    note: str = ""  # what was left out, in a sentence


def joined(pieces: Iterable[str], *, between: str = "\n") -> str:
    """The pieces in a row, up to the limit. Raises DocumentRefused beyond it."""
    kept: list[str] = []
    num_characters = 0
    for piece in pieces:
        num_characters += len(piece)
        if num_characters > MAX_CHARACTERS:
            raise DocumentRefused(
                f"the document has more than {MAX_CHARACTERS:,} characters, the most that is read"
            )
        kept.append(piece)
    return between.join(kept)


def tidy(text: str) -> str:
    """The text without trailing spaces, long gaps and characters that no reader sees."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n\n")
    text = "".join(c for c in text if c in "\n\t" or c.isprintable() or c.isspace())
    return BLANK_LINES.sub("\n\n", SPACES.sub("\n", text)).strip()
