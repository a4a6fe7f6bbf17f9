"""Messages are text that nobody vouches for: their HTML is shown, and their images are not fetched.

An invisible word joiner after "<" or "!" keeps Markdown from seeing a tag or an image; an entity or
a backslash would appear when the message is copied or edited. assets/page.js takes the joiners out
of what is copied. Code blocks stay as they are: Markdown escapes them itself.
"""

from __future__ import annotations

import re

JOINER = "\u2060"

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^`]*)$")
_TAG_OR_IMAGE = re.compile(r"<(?=[A-Za-z/!?])|!(?=\[)")


def shown(text: str) -> str:
    """The text for the chatbot: Markdown without HTML and without images."""
    lines, opened = [], ""
    for line in re.split("(\r\n|\r|\n)", text):  # the line ends of Markdown, and no others
        fence = _FENCE.match(line)
        if opened:
            if fence and fence[1].startswith(opened) and not fence[2].strip():
                opened = ""
        elif fence:
            opened = fence[1]
        else:
            line = _TAG_OR_IMAGE.sub(lambda found: found.group() + JOINER, line)
        lines.append(line)
    return "".join(lines)


def typed(text: str) -> str:
    """The text that `shown` was made from."""
    return re.sub(f"(?<=[<!]){JOINER}", "", text)
