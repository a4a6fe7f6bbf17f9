"""Web pages, alone and bound into an EPUB: their words, without scripts and menus."""

from __future__ import annotations

import posixpath
import re
from html.parser import HTMLParser
from urllib.parse import unquote

from falcon_mamba_app.documents.formats.archives import Archive
from falcon_mamba_app.documents.formats.plain import plain_text
from falcon_mamba_app.documents.formats.xml import read_xml
from falcon_mamba_app.documents.limits import DocumentRefused, joined

LEFT_OUT = frozenset(
    ("script", "style", "noscript", "template", "svg", "nav", "head", "iframe", "object", "math")
)
NEW_LINE = re.compile(
    "address|article|aside|blockquote|br|caption|dd|div|dl|dt|figcaption|figure|footer|form|h[1-6r]"
    "|header|li|main|ol|option|p|pre|section|table|title|tr|ul"
)
HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}


class _Words(HTMLParser):
    """Collects what a reader would see. It holds no tree, so depth costs nothing."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._left_out: list[str] = []
        self._num_pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in LEFT_OUT:
            self._left_out.append(tag)
        if self._left_out:
            return
        self._num_pre += tag == "pre"
        if NEW_LINE.fullmatch(tag):
            self.pieces.append("\n\n" if tag in HEADINGS or tag == "p" else "\n")
        if tag in HEADINGS:
            self.pieces.append(HEADINGS[tag])
        elif tag == "li":
            self.pieces.append("- ")
        elif tag in ("td", "th"):
            self.pieces.append("\t")

    def handle_endtag(self, tag: str) -> None:
        if self._left_out:
            if tag in self._left_out:
                del self._left_out[self._left_out.index(tag) :]
            elif tag == "body":
                self._left_out.clear()
            return
        self._num_pre = max(0, self._num_pre - (tag == "pre"))
        if NEW_LINE.fullmatch(tag) and tag not in ("br", "hr"):
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        if self._left_out:
            return
        if self._num_pre:
            self.pieces.append(data)
            return
        words = " ".join(data.split())
        before = " " if data[:1].isspace() else ""
        after = " " if words and data[-1:].isspace() else ""
        self.pieces.append(f"{before}{words}{after}")


def html_text(text: str) -> str:
    """The words of a page. Raises DocumentRefused."""
    words = _Words()
    words.feed(text)
    words.close()
    lines = joined(words.pieces, between="").split("\n")
    return "\n".join(line.strip(" ") if "  " not in line[:2] else line.rstrip() for line in lines)


def epub_text(data: bytes) -> str:
    """The chapters in the order in which they are read. Raises DocumentRefused."""
    with Archive(data) as archive:
        if "META-INF/encryption.xml" in archive.names and _hides_texts(archive):
            raise DocumentRefused("the book is encrypted; its texts cannot be read")
        return joined(
            (html_text(plain_text(archive.read(name))) for name in _chapters(archive)),
            between="\n\n",
        )


def _hides_texts(archive: Archive) -> bool:
    """Whether more than fonts is encrypted."""
    hidden: list[str] = []

    def begins(name: str, attributes: dict[str, str]) -> None:
        if name == "CipherReference":
            hidden.append(attributes.get("URI", ""))

    read_xml(archive.read("META-INF/encryption.xml"), begins)
    return any(name.lower().endswith(("html", "htm", "xml")) for name in hidden)


def _chapters(archive: Archive) -> list[str]:
    package = ""

    def finds(name: str, attributes: dict[str, str]) -> None:
        nonlocal package
        if name == "rootfile" and not package:
            package = attributes.get("full-path", "")

    read_xml(archive.read("META-INF/container.xml"), finds)
    files: dict[str, str] = {}
    order: list[str] = []

    def begins(name: str, attributes: dict[str, str]) -> None:
        if name == "item":
            files[attributes.get("id", "")] = attributes.get("href", "")
        elif name == "itemref":
            order.append(attributes.get("idref", ""))

    read_xml(archive.read(package), begins)
    folder = posixpath.dirname(package)
    names = [
        posixpath.normpath(posixpath.join(folder, unquote(files[item].partition("#")[0])))
        for item in dict.fromkeys(order)
        if files.get(item)
    ]
    present = set(archive.names)
    return [name for name in names if name in present]
