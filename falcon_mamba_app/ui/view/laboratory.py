"""The laboratory's place on the page, and its files, which are fetched when its tab is opened."""

from __future__ import annotations

from functools import cache
from typing import Any

from falcon_mamba_app.bundled import ASSETS
from falcon_mamba_app.lab.attention import KNOWN_MODELS, AttentionModel
from falcon_mamba_app.lab.facts import CHANCE
from falcon_mamba_app.protocol import ModelInfo
from falcon_mamba_app.ui.view.scripts import CSS, JAVASCRIPT, PageFile, page_file, script_of

# Each builds on those before it; a section draws itself when it is shown first.
SCRIPTS = ("frame.js", "runs.js", "exports.js", "growth.js", "probe.js", "state.js")

TABS = (
    '<div class="tabs" role="tablist" aria-label="Parts of the page">'
    '<button type="button" role="tab" id="tab-chat" aria-controls="main" aria-selected="true">Chat'
    '</button><button type="button" role="tab" id="tab-lab" aria-controls="lab" tabindex="-1"'
    ' aria-selected="false">Laboratory</button></div>'
)


@cache
def lab_files() -> dict[str, PageFile]:
    """The script and the style, by their names."""
    script = script_of(f"lab/{name}" for name in SCRIPTS)
    style = (ASSETS / "lab" / "style.css").read_text("utf-8")
    return {
        "script.js": page_file(script, JAVASCRIPT),
        "style.css": page_file(style, CSS),
    }


def frame_html() -> str:
    """Empty; assets/lab_tab.js fills it."""
    versions = {name: file.version for name, file in lab_files().items()}
    script, style = (f"lab/{name}?v={versions[name]}" for name in ("script.js", "style.css"))
    return (
        f'<section class="lab" role="tabpanel" aria-labelledby="tab-lab" tabindex="-1"'
        f' data-script="{script}" data-style="{style}"></section>'
    )


def shown_facts(model: ModelInfo) -> dict[str, Any]:
    """What the laboratory's forms need to know of the model."""
    return {
        "model": model.id,
        "stateBytes": model.state_bytes,
        "maxTokens": model.max_prompt_tokens,
        "trained": model.trained_context_tokens,
        "isBundled": model.is_bundled,
        "chance": CHANCE,
        "attention": [shown_attention(known) for known in KNOWN_MODELS],
    }


def shown_attention(model: AttentionModel) -> dict[str, Any]:
    """A model's cache: its shape, and its line as corners."""
    return {
        "name": model.name,
        "layers": model.layers,
        "kv_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "bytes_per_number": model.bytes_per_number,
        "windowed_layers": model.windowed_layers,
        "window": model.window,
        "per_token": model.bytes_per_token,
        "corners": model.corners(),
    }
