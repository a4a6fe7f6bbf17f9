"""Files become text; a hostile one costs a sentence and nothing else."""

from __future__ import annotations

import io
import zipfile

import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from falcon_mamba_app.documents import limits
from falcon_mamba_app.documents.kinds import document_in, kind_of
from falcon_mamba_app.documents.limits import DocumentRefused
from falcon_mamba_app.documents.reading import DocumentReader, short_name

WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
CONTAINER = '<container><rootfiles><rootfile full-path="OPS/book.opf"/></rootfiles></container>'
PACKAGE = (
    '<package><manifest><item id="b" href="two.xhtml"/><item id="a" href="one.xhtml"/></manifest>'
    '<spine><itemref idref="a"/><itemref idref="b"/></spine></package>'
)
BOMB = '<!DOCTYPE w [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><w:document><w:t>&b;</w:t>'


def zipped(**files: str | bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), text)
    return data.getvalue()


def docx(body: str | bytes) -> bytes:
    return zipped(word__document_dot_xml=body)


def epub(**chapters: str) -> bytes:
    return zipped(
        **{"META-INF__container_dot_xml": CONTAINER, "OPS__book_dot_opf": PACKAGE}, **chapters
    )


def pdf(*pages: str, password: str = "") -> bytes:
    writer = PdfWriter()
    for words in pages:
        page = writer.add_blank_page(200, 200)
        font = DictionaryObject(
            {
                NameObject("/Type"): NameObject("/Font"),
                NameObject("/Subtype"): NameObject("/Type1"),
                NameObject("/BaseFont"): NameObject("/Helvetica"),
            }
        )
        fonts = DictionaryObject({NameObject("/F1"): font})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        if words:
            stream = DecodedStreamObject()
            stream.set_data(f"BT /F1 12 Tf 10 100 Td ({words}) Tj ET".encode())
            page[NameObject("/Contents")] = writer._add_object(stream)
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    data = io.BytesIO()
    writer.write(data)
    return data.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.txt", "Grüße aus Köln, schöne Straße.".encode(), "Grüße aus Köln, schöne Straße."),
        ("a.txt", "Grüße aus Köln, schöne Straße.".encode("utf-16"), "Grüße aus Köln"),
        ("a.txt", ("Grüße aus Köln, schöne Straße. " * 9).encode("latin-1"), "Grüße aus Köln"),
        ("a.md", b"# Title\n\n\n\n\nWords.  \n", "# Title\n\nWords."),
        ("a.py", b"def f():\n\treturn 1\n", "def f():\n\treturn 1"),
        ("no-suffix", b"Only words", "Only words"),
        ("cut.txt", "Ein Satz mit ß".encode()[:-1], "Ein Satz mit"),
        ("a.csv", b"name;age\nAnna;3\nTom;4\n", "name: Anna; age: 3\nname: Tom; age: 4"),
        ("a.csv", b"1,2\n3,4\n", "1,2\n3,4"),
        ("a.html", b"<h1>Hi</h1><p>a <b>b</b>&amp;c<script>no</script></p>", "# Hi\n\na b&c"),
        ("wrong.txt", b"<!DOCTYPE html><html><body><p>Words</body></html>", "Words"),
        (
            "a.docx",
            docx(
                f"<w:document {WORD}><w:body><w:p><w:r><w:t>One</w:t><w:tab/><w:t>two</w:t></w:r>"
                "</w:p><w:p><w:r><w:t>Three</w:t><w:instrText>no</w:instrText></w:r></w:p>"
                "</w:body></w:document>"
            ),
            "One\ttwo\nThree",
        ),
        (
            "a.epub",
            epub(OPS__one_dot_xhtml="<p>First</p>", OPS__two_dot_xhtml="<p>Second</p>"),
            "First\n\nSecond",
        ),
        ("a.pdf", pdf("Hello there"), "Hello there"),
        ("wrong.docx", pdf("Hello there"), "Hello there"),
        ("open.pdf", pdf("Hello there", password=""), "Hello there"),
    ],
)
def test_a_file_of_any_kind_becomes_its_words(name, data, expected):
    assert document_in(name, data).text.startswith(expected)


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("empty.txt", b"", "empty"),
        ("blank.txt", b" \n\0\n", "empty"),
        ("tags.html", b"<html><body><script>x</script></body></html>", "no words"),
        ("a.pdf", b"Not at all", "ends with .pdf"),
        ("scan.pdf", pdf("", ""), "scanned"),
        ("locked.pdf", pdf("Secret", password="geheim"), "encrypted"),
        ("cut.pdf", pdf("Hello there")[:200], "damaged"),
        ("a.docx", docx("<w:document><w:p>")[:60], "damaged"),
        ("a.docx", docx(f"<w:document {WORD}><w:p></w:document>"), "XML is damaged"),
        ("entities.docx", docx(BOMB), "entities"),
        ("deep.docx", docx("<w:p>" * 5_000), "nests"),
        ("bomb.docx", docx(b" " * 30_000_000), "unpacks to far more"),
        ("a.epub", zipped(**{"META-INF__container_dot_xml": CONTAINER}), "lacks OPS/book.opf"),
        ("a.zip", zipped(a_dot_txt="words"), "no document"),
        ("a.png", b"\x89PNG\r\n\x1a\n", "PNG"),
        ("a.txt", bytes(range(256)) * 9, "no text"),
        ("a.doc", b"\xd0\xcf\x11\xe0" + b"words" * 9, "older Office"),
    ],
)
def test_a_file_that_is_no_document_is_refused_in_a_sentence(name, data, sentence):
    with pytest.raises(DocumentRefused, match=sentence):
        document_in(name, data)


def test_too_many_pages_files_and_characters_are_refused_with_the_number(monkeypatch):
    monkeypatch.setattr("falcon_mamba_app.documents.formats.pdf.MAX_PAGES", 2)
    with pytest.raises(DocumentRefused, match="3 pages; at most 2"):
        document_in("a.pdf", pdf("a", "b", "c"))
    many = zipped(**{f"f{i}": "" for i in range(limits.MAX_ENTRIES + 1)}, word__document_dot_xml="")
    with pytest.raises(DocumentRefused, match=r"5,002 files; at most 5,000"):
        document_in("a.docx", many)
    monkeypatch.setattr("falcon_mamba_app.documents.kinds.MAX_CHARACTERS", 10)
    with pytest.raises(DocumentRefused, match="12 characters; at most 10"):
        document_in("a.txt", b"twelve words")


def test_pages_are_the_files_own_or_as_many_as_printed_ones():
    assert document_in("a.pdf", pdf("a", "b", "")).num_pages == 3
    assert document_in("a.txt", b"word " * 1_000).num_pages == 3
    assert "page 3" in document_in("a.pdf", pdf("a", "b", "")).note


def test_what_a_file_is_its_bytes_say_before_its_name():
    assert kind_of("letter.txt", pdf("a")) == "pdf"
    assert kind_of("x", epub()) == "epub"
    assert short_name("../../etc/pass\nwd.txt") == "passwd.txt"
    assert short_name("C:\\home\\" + "a" * 500 + ".pdf").endswith("aa.pdf")
    assert short_name("  ") == "document"


async def test_a_process_of_its_own_reads_and_its_time_is_limited():
    data = pdf("Hello there")
    document = await DocumentReader().read("a.pdf", data)
    assert (document.text, document.kind, document.num_pages) == ("Hello there", "pdf", 1)
    with pytest.raises(DocumentRefused, match=r"more than 0.001 s"):
        await DocumentReader(max_wall_s=0.001).read("a.pdf", data)


async def test_a_refusal_comes_out_of_the_process_as_its_sentence():
    with pytest.raises(DocumentRefused, match="unpacks to far more"):
        await DocumentReader().read("bomb.docx", docx(b" " * 30_000_000))
