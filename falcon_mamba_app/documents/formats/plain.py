"""Texts in whatever encoding, and tables of values."""

from __future__ import annotations

import codecs
import csv
import io

from charset_normalizer import from_bytes

from falcon_mamba_app.documents.limits import DocumentRefused, joined

MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
GUESSED_BYTES = 200_000  # more says nothing new about an encoding
MAX_CELL_CHARACTERS = 1_000_000
MAX_SHARE_UNREADABLE = 0.02


def plain_text(data: bytes) -> str:
    """The text of the bytes. Raises DocumentRefused where they are none."""
    for mark, encoding in MARKS.items():
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    if b"\0" in data[:GUESSED_BYTES]:
        raise DocumentRefused("this is no text: it holds bytes that no text has")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        # Cut off in mid-character, or of an older encoding.
        if error.start >= len(data) - 4:
            text = data[: error.start].decode("utf-8")
        else:
            text = _guessed(data)
    num_unreadable = sum(not (c.isprintable() or c.isspace()) for c in text[:GUESSED_BYTES])
    if num_unreadable > MAX_SHARE_UNREADABLE * min(len(text), GUESSED_BYTES):
        raise DocumentRefused("this is no text: too many of its characters cannot be read")
    return text


def csv_text(data: bytes) -> str:
    """The rows, each cell with its column's name, so that a row can be understood where it stands;
    a table without names as it is written.
    """
    text = plain_text(data)
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    try:
        try:
            dialect: type[csv.Dialect] = csv.Sniffer().sniff(text[:8_192], delimiters=",;\t|")
        except csv.Error:
            dialect = csv.excel
        rows = csv.reader(io.StringIO(text), dialect)
        names = next(rows, [])
        if len(names) < 2 or len(set(names)) < len(names) or any(_is_number(n) for n in names):
            return text
        return joined(_named(names, row) for row in rows if any(row)) or text
    except csv.Error:
        return text


def _named(names: list[str], row: list[str]) -> str:
    cells = [
        f"{names[place].strip()}: {cell.strip()}" if place < len(names) else cell.strip()
        for place, cell in enumerate(row)
        if cell.strip()
    ]
    return "; ".join(cells)


def _is_number(text: str) -> bool:
    return text.strip().replace(".", "", 1).replace("-", "", 1).isdigit()


def _guessed(data: bytes) -> str:
    best = from_bytes(data[:GUESSED_BYTES]).best()
    if best is None:
        raise DocumentRefused("this is no text in any known encoding")
    return data.decode(best.encoding, "replace")
