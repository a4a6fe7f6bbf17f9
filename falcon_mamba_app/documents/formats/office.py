"""DOCX: the paragraphs and tables of a Word document, without pictures and comments."""

from __future__ import annotations

from falcon_mamba_app.documents.formats.archives import Archive
from falcon_mamba_app.documents.formats.xml import read_xml
from falcon_mamba_app.documents.limits import joined

SPACES = {"tab": "\t", "br": "\n", "cr": "\n"}
LEFT_OUT = ("delText", "instrText", "fldData")


def docx_text(data: bytes) -> str:
    """The document's text. Raises DocumentRefused."""
    with Archive(data) as archive:
        body = archive.read("word/document.xml")
    pieces: list[str] = []
    line: list[str] = []
    is_text = False

    def begins(name: str, attributes: dict[str, str]) -> None:
        nonlocal is_text
        is_text = name == "t"
        if name in SPACES:
            line.append(SPACES[name])

    def ends(name: str) -> None:
        nonlocal is_text
        is_text = False
        if name == "tc":  # a cell's paragraphs stand in one line
            line.append("\t")
        elif name == "tr" or (name == "p" and "\t" not in line[-1:]):
            pieces.append("".join(line).rstrip())
            line.clear()

    def says(text: str) -> None:
        if is_text:
            line.append(text)

    read_xml(body, begins, ends, says)
    pieces.append("".join(line))
    return joined(pieces)
