"""Makes matchers of requests' forms on a thread of its own, so that no form stops the event loop.

One thread: a form that takes long delays other new forms, and nobody else.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from falcon_mamba_app.engine.matching import Matcher
from falcon_mamba_app.protocol import Form
from falcon_mamba_app.text.grammars import Grammars


class Matching:
    """Matchers for the engine."""

    def __init__(self, grammars: Grammars) -> None:
        self.grammars = grammars
        self._thread = ThreadPoolExecutor(1, "grammars")

    async def matcher(self, form: Form | None) -> Matcher | None:
        """A matcher for one reply; None without a form. Raises InvalidRequest."""
        if form is None:
            return None
        run = asyncio.get_running_loop().run_in_executor
        return await run(self._thread, self.grammars.matcher, form)

    def close(self) -> None:
        """Accept no more forms; a form at work ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)
