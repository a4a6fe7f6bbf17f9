"""Where the files are that come with the app: the page's style and script, the bundled model."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent
# An installed package has them inside; a checkout beside it, where a Space expects them.
_INSIDE = _PACKAGE / "assets"
ASSETS = _INSIDE if _INSIDE.is_dir() else _PACKAGE.parent / "assets"
