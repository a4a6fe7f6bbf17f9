"""The page of all settings, made of the settings themselves:

python -m tests.support.settings_page
"""

from __future__ import annotations

from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from falcon_mamba_app.settings import SECTIONS
from falcon_mamba_app.settings.flags import flag

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
BEGINNING = """# Settings

Every option of `python app.py`, as `--help` shows it. Each is also read from the variable
`FALCON_MAMBA_` and its name in capitals (`--max-running` from `FALCON_MAMBA_MAX_RUNNING`); the
command line wins. This page is made by `python -m tests.support.settings_page`.
"""


def settings_page() -> str:
    """The text of the page."""
    lines = [BEGINNING]
    for name, section in SECTIONS.items():
        lines += [f"## {name.title()}", "", section.__doc__ or "", ""]
        lines += ["| setting | default | what |", "|---|---|---|"]
        lines += [*map(_row, fields(section)), ""]
    return "\n".join(lines)


def _row(option: Field[Any]) -> str:
    default = "none" if option.default in (None, ()) else option.default
    choices = option.metadata.get("choices")
    text = option.metadata["help"] + (f" (one of {', '.join(choices)})" if choices else "")
    cells = (f"`{flag(option.name)}`", f"`{default}`", text.replace("|", "\\|"))
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(settings_page(), encoding="utf-8")
