"""What the model reads, as the page shows it."""

from __future__ import annotations

import pytest

from falcon_mamba_app.ui.events import shown_prompt
from falcon_mamba_app.ui.events.shown_prompt import pieces


class Letters:
    """Each id is a letter of one text, but for those of markup."""

    MARKUP = {1: "<|im_start|>", 2: "<s>"}

    def texts(self, ids):
        return [self.MARKUP.get(one, chr(one)) for one in ids]

    def decode(self, ids):
        return "".join(self.texts(ids))


def test_markup_is_told_from_words_that_look_like_it():
    ids = [1, *map(ord, "a<s>b"), 2, 1]
    assert pieces(ids, Letters()) == [["<|im_start|>", 1], ["a<s>b", 0], ["<s><|im_start|>", 1]]


@pytest.mark.parametrize(("num", "left_out"), [(8, 0), (9, 1), (100, 92)])
def test_of_a_long_prompt_both_ends_are_shown(monkeypatch, num, left_out):
    monkeypatch.setattr(shown_prompt, "MAX_SHOWN", 8)
    told = shown_prompt.shown_prompt([97 + place % 26 for place in range(num)], Letters())
    assert (told["tokens"], told["left_out"]) == (num, left_out)
    words = [text for text, kind in told["pieces"] if kind == 0]
    assert sum(map(len, words)) == num - left_out
