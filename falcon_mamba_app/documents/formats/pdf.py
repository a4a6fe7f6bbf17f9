"""PDF: the words of its pages, as far as they are text."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

from pypdf import PdfReader
from pypdf.errors import PyPdfError

from falcon_mamba_app.documents.limits import MAX_PAGES, DocumentRefused, joined

DAMAGED = "the PDF is damaged or cut off"
# What damaged files raise inside of pypdf, which does not turn all of them into its own.
FAULTS = (PyPdfError, ValueError, TypeError, KeyError, IndexError, AttributeError, OSError)


def pdf_text(data: bytes) -> tuple[str, int, str]:
    """The text, the number of pages, and what could not be read. Raises DocumentRefused."""
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise DocumentRefused("the PDF is encrypted; remove its password first")
        num_pages = len(reader.pages)
    except DocumentRefused:
        raise
    except (*FAULTS, RecursionError) as error:
        raise DocumentRefused(DAMAGED) from error
    if num_pages > MAX_PAGES:
        raise DocumentRefused(f"the PDF has {num_pages:,} pages; at most {MAX_PAGES:,} are read")
    unread: list[int] = []
    empty: list[int] = []
    text = joined(_pages(reader, num_pages, unread, empty), between="\n\n")
    if len(unread) == num_pages:
        raise DocumentRefused(DAMAGED)
    return text, num_pages, _note(unread, empty)


def _pages(reader: PdfReader, num_pages: int, unread: list[int], empty: list[int]) -> Iterator[str]:
    for number in range(num_pages):
        try:
            text = reader.pages[number].extract_text()
        except (*FAULTS, RecursionError):
            unread.append(number + 1)
            continue
        if not text.strip():
            empty.append(number + 1)
        yield text


def _note(unread: list[int], empty: list[int]) -> str:
    notes = []
    if unread:
        notes.append(f"{len(unread)} pages are damaged and left out (page {unread[0]} first)")
    if empty:
        notes.append(f"{len(empty)} pages have no text, perhaps pictures (page {empty[0]} first)")
    return "; ".join(notes)
