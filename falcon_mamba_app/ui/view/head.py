"""What the page has in its head: its icon, its scripts, and where KaTeX is."""

from __future__ import annotations

from pathlib import Path

import gradio

from falcon_mamba_app.bundled import ASSETS

# Each builds on those before it.
SCRIPTS = (
    "storage.js",
    "markdown_inline.js",
    "markdown_blocks.js",
    "plots.js",
    "messages.js",
    "strip.js",
    "parts.js",
    "dialogs.js",
    "connection.js",
    "stretches.js",
    "conversation.js",
    "memory.js",
    "books.js",
    "memory_files.js",
    "everything.js",
    "sidebar.js",
    "demos.js",
    "probabilities.js",
    "notebook.js",
    "presets.js",
    "system_cost.js",
    "as_code.js",
    "composer.js",
    "comparison.js",
    "lab_tab.js",
    "page.js",
)

ICON = (
    '<link rel="icon" type="image/svg+xml" href="data:image/svg+xml,%3Csvg xmlns='
    "%22http://www.w3.org/2000/svg%22 viewBox=%220 0 32 32%22%3E%3Crect width=%2232%22 "
    "height=%2232%22 rx=%229%22 fill=%22%230f766e%22/%3E%3Cpath d=%22M6 20c4-9 7-9 10-3s6 6 "
    "10-5%22 fill=%22none%22 stroke=%22white%22 stroke-width=%222.6%22 stroke-linecap="
    '%22round%22/%3E%3C/svg%3E">'
)


def head(*, signs_out: bool = False) -> str:
    """The head's HTML; with it the page offers to sign out, or not."""
    scripts = "\n".join((ASSETS / name).read_text("utf-8") for name in SCRIPTS)
    sign_out = '<meta name="sign-out" content="logout">' if signs_out else ""
    return f"{ICON}{_katex()}{sign_out}<script>{scripts}</script>"


def _katex() -> str:
    """Where Gradio has KaTeX's script and style; without them formulas stay as written."""
    built = Path(gradio.__file__).parent / "templates" / "frontend" / "assets"
    found = [*built.glob("auto-render-*.js"), *built.glob("katex-*.css")]
    if len(found) != 2:
        return ""
    return f'<meta name="katex" content="{" ".join(f"assets/{path.name}" for path in found)}">'
