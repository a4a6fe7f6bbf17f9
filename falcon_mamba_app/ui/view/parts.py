"""The parts of the page that its own scripts draw: components that carry a value, and events back.

Gradio sends only what has changed of a value. assets/parts.js says which script draws which part.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

# The events are named in it, since Gradio offers only those that it finds in the text. None may
# have a name of Gradio's own: "change" comes by itself whenever an answer changes the value.
ON_LOAD = """
(window.parts ??= {})[%r] = { element, props, trigger, watch };
document.dispatchEvent(new CustomEvent("part", { detail: %r }));
/* events: 'act' 'look' 'amend' */
"""


def part(name: str, *, template: str = "", value: Any = None) -> gr.HTML:
    """A part of this name: its fixed HTML, and the value that assets/ draws into it."""
    return gr.HTML(
        value,
        html_template=template,
        js_on_load=ON_LOAD % (name, name),
        apply_default_css=False,
        elem_id=name,
        padding=False,
    )
