"""XML as a stream of beginnings, ends and words; without entities, and not too deep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn
from xml.parsers import expat

from falcon_mamba_app.documents.limits import MAX_DEPTH, DocumentRefused

Begins = Callable[[str, dict[str, str]], None]


def read_xml(
    data: bytes,
    begins: Begins,
    ends: Callable[[str], None] = lambda name: None,
    says: Callable[[str], None] = lambda text: None,
) -> None:
    """Call back for each element, named without its prefix. Raises DocumentRefused."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    depth = 0

    def begin(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise DocumentRefused(f"the document nests more than {MAX_DEPTH} elements")
        begins(local(name), attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        ends(local(name))

    def refuse(*_: Any) -> NoReturn:
        raise DocumentRefused("the document declares XML entities, which no document needs")

    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.CharacterDataHandler = says
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise DocumentRefused(f"the document's XML is damaged in line {error.lineno}") from None


def local(name: str) -> str:
    """The name without its prefix."""
    return name.rpartition(":")[2]
