"""The tokens of a reply as the page shows them."""

import math

import pytest

from falcon_mamba_app.protocol import TokenLogprob
from falcon_mamba_app.ui.events.probabilities import shown_tokens


def token(data: bytes, p: float | None = 0.5) -> TokenLogprob:
    logprob = None if p is None else math.log(p)
    other = TokenLogprob(1, "other", b"other", math.log(0.25))
    return TokenLogprob(0, data.decode("utf-8", "replace"), data, logprob, (other,))


PROMPT = [token(b"<|user|>", None), token(b"Hi there"), token(b"\n<|model|>\n")]


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([b"Good", b" day"], "Good day"),
        ([b" Good", b" day"], "Good day"),  # the template puts a space before it
        ([b"caf", "é".encode()[:1], "é".encode()[1:], b"!"], "café!"),  # a letter of two tokens
        ([], ""),
    ],
)
def test_a_replys_tokens_are_found_at_the_end_and_make_up_its_text(pieces, text):
    shown = shown_tokens([*PROMPT, *map(token, pieces)], text)
    assert "".join(piece for piece, _, _ in shown) == text
    assert len(shown) == len(pieces)
    assert all((p, top) == (0.5, [["other", 0.25]]) for _, p, top in shown)


def test_what_nothing_predicts_has_no_probability():
    assert shown_tokens([token(b"all", None)], "all") == [["all", None, [["other", 0.25]]]]
