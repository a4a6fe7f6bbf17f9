import pytest

from falcon_mamba_app.ui.view.safe_markdown import JOINER, shown, typed

TEXTS = [
    "<img src=x> and <script>1</script>",
    "![x](http://example.org/x.png) ![y][1]",
    "`<b>` and ~~~ <i>",
    "before <b>\n```html\n<b>![x](y)</b>\n```\nafter <b>",
    "~~~~\n```\n<b>\n~~~~\n<i>",
    "```html\n<b> still open",
]


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_shown_reads_and_comes_back_as_it_was_typed(text):
    assert shown(text).replace(JOINER, "") == text
    assert typed(shown(text)) == text


@pytest.mark.parametrize("text", ["1 < 2 and a <- b", "wow! [a](b)", "<3"])
def test_what_is_no_tag_and_no_image_stays_untouched(text):
    assert shown(text) == text


def test_tags_and_images_are_taken_apart_and_code_blocks_are_not():
    assert shown("<b>x</b>") == f"<{JOINER}b>x<{JOINER}/b>"
    assert shown("![x](y)") == f"!{JOINER}[x](y)"
    assert shown("```html\n<b>\n```\n<b>") == f"```html\n<b>\n```\n<{JOINER}b>"
    assert shown("~~~\n```\n<b>\n~~~\n<b>") == f"~~~\n```\n<b>\n~~~\n<{JOINER}b>"
    assert shown("~~~\r~~~\r<b>") == f"~~~\r~~~\r<{JOINER}b>"
    assert shown("`<b>\n```\n<b>") == f"`<{JOINER}b>\n```\n<b>"
