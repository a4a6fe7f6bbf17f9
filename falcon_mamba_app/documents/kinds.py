"""What a file is: by its first bytes where they tell, else by its name."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable
from pathlib import PurePath

from falcon_mamba_app.documents.formats.office import docx_text
from falcon_mamba_app.documents.formats.pages import epub_text, html_text
from falcon_mamba_app.documents.formats.pdf import pdf_text
from falcon_mamba_app.documents.formats.plain import csv_text, plain_text
from falcon_mamba_app.documents.limits import (
    CHARACTERS_PER_PAGE,
    MAX_CHARACTERS,
    MAX_FILE_BYTES,
    Document,
    DocumentRefused,
    tidy,
)

HTML = ("html", "htm", "xhtml")
CSV = ("csv", "tsv")
ALLOWED = "text, Markdown, source code, CSV, HTML, PDF, DOCX and EPUB"
# What cannot be read, by the bytes it begins with.
FOREIGN = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"\x7fELF": "a program",
    b"MZ": "a program",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\xd0\xcf\x11\xe0": "an older Office file, or an encrypted one",
    b"{\\rtf": "an RTF file",
    b"SQLite format 3": "a database",
}
Reader = Callable[[bytes], tuple[str, int | None, str]]


def document_in(name: str, data: bytes) -> Document:
    """The document in the bytes. Raises DocumentRefused with a sentence."""
    if not data.strip(b"\0 \t\r\n"):
        raise DocumentRefused("the file is empty")
    if len(data) > MAX_FILE_BYTES:
        raise DocumentRefused(
            f"the file has {len(data):,} bytes; at most {MAX_FILE_BYTES:,} are read"
        )
    kind = kind_of(name, data)
    text, num_pages, note = READERS[kind](data)
    text = tidy(text)
    if not text:
        raise DocumentRefused(_without_words(kind))
    if len(text) > MAX_CHARACTERS:
        raise DocumentRefused(
            f"the document has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read"
        )
    pages = num_pages or math.ceil(len(text) / CHARACTERS_PER_PAGE)
    return Document(text, kind, pages, note)


def kind_of(name: str, data: bytes) -> str:
    """The name of the reader. Raises DocumentRefused for a file that has none."""
    start = data[:1024].lstrip()
    if b"%PDF-" in data[:1024]:
        return "pdf"
    if data.startswith(b"PK"):
        return _archive(data)
    foreign = next((what for magic, what in FOREIGN.items() if data.startswith(magic)), None)
    if foreign is not None:
        raise DocumentRefused(f"this is {foreign}; read are {ALLOWED}")
    suffix = PurePath(name).suffix.lower().removeprefix(".")
    if suffix in ("pdf", "docx", "epub"):
        raise DocumentRefused(
            f"the name ends with .{suffix}, but the file is none, or its beginning is missing"
        )
    if suffix in HTML or start[:15].lower().startswith((b"<!doctype html", b"<html")):
        return "html"
    return "csv" if suffix in CSV else "text"


def _archive(data: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist()[:100_000])
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError):
        raise DocumentRefused("the archive is damaged or cut off") from None
    if "word/document.xml" in names:
        return "docx"
    if "META-INF/container.xml" in names:
        return "epub"
    raise DocumentRefused(f"this is a zip archive and no document; read are {ALLOWED}")


def _without_words(kind: str) -> str:
    if kind == "pdf":
        return "no page of this PDF has text; it seems to be scanned, and pictures are not read"
    return f"there are no words in this file ({kind})"


def _text(data: bytes) -> tuple[str, None, str]:
    return plain_text(data), None, ""


def _csv(data: bytes) -> tuple[str, None, str]:
    return csv_text(data), None, ""


def _html(data: bytes) -> tuple[str, None, str]:
    return html_text(plain_text(data)), None, ""


def _docx(data: bytes) -> tuple[str, None, str]:
    return docx_text(data), None, ""


def _epub(data: bytes) -> tuple[str, None, str]:
    return epub_text(data), None, ""


READERS: dict[str, Reader] = {
    "text": _text,
    "csv": _csv,
    "html": _html,
    "pdf": pdf_text,
    "docx": _docx,
    "epub": _epub,
}
