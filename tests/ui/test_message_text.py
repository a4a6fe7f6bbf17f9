from html.parser import HTMLParser
from random import Random

import pytest

from falcon_mamba_app.ui.view.message_text import JOINER, shown, typed

MARKUP = [*"<>&!/?[]`~#;'=-x \n\t", '"', "script", "div", "amp", "lt", "#60", "style", "on"]


class Seen(HTMLParser):
    """What HTML makes of a text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=False)
        self.texts: list[str] = []
        self.others: list[str] = []
        self.feed(html)
        self.close()

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.others.append(tag)

    handle_endtag = handle_decl = handle_comment = handle_pi = unknown_decl = (  # type: ignore
        lambda self, what: self.others.append(what)
    )
    handle_entityref = handle_charref = handle_endtag


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_said_is_text_to_html_and_comes_back_as_it_was(seed):
    rng = Random(seed)
    for _ in range(50):
        text = "".join(rng.choice(MARKUP) for _ in range(rng.randrange(40)))
        seen = Seen(shown(text))
        assert seen.others == []
        assert typed("".join(seen.texts)) == text


def test_a_text_that_has_joiners_of_its_own_keeps_them():
    text = f"a <{JOINER}b & {JOINER}"
    assert typed(shown(text)) == text


def test_a_growing_text_only_grows():
    """So that each update of a reply sends what is new, and not all of it."""
    text = "a <b & c"
    for end in range(len(text)):
        assert shown(text).startswith(shown(text[:end]))
