"""What the page has in its head: its icon, its scripts, and where KaTeX and later scripts are."""

from __future__ import annotations

from pathlib import Path

import gradio

from falcon_mamba_app.ui.view.scripts import FIRST, later_file, script_of

ICON = (
    '<link rel="icon" type="image/svg+xml" href="data:image/svg+xml,%3Csvg xmlns='
    "%22http://www.w3.org/2000/svg%22 viewBox=%220 0 32 32%22%3E%3Crect width=%2232%22 "
    "height=%2232%22 rx=%229%22 fill=%22%230f766e%22/%3E%3Cpath d=%22M6 20c4-9 7-9 10-3s6 6 "
    "10-5%22 fill=%22none%22 stroke=%22white%22 stroke-width=%222.6%22 stroke-linecap="
    '%22round%22/%3E%3C/svg%3E">'
)


def head(*, signs_out: bool = False) -> str:
    """The head's HTML; with it the page offers to sign out, or not."""
    later = f'<meta name="later" content="scripts/later.js?v={later_file().version}">'
    sign_out = '<meta name="sign-out" content="logout">' if signs_out else ""
    return f"{ICON}{_katex()}{later}{sign_out}<script>{script_of(FIRST)}</script>"


def _katex() -> str:
    """Where Gradio has KaTeX's script and style; without them formulas stay as written."""
    built = Path(gradio.__file__).parent / "templates" / "frontend" / "assets"
    found = [*built.glob("auto-render-*.js"), *built.glob("katex-*.css")]
    if len(found) != 2:
        return ""
    return f'<meta name="katex" content="{" ".join(f"assets/{path.name}" for path in found)}">'
