"""Gradio prints every error of an event with its message, which may quote a visitor.

Its modules get a stand-in for `traceback` that logs the error's kind and place instead.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from gradio import Error, queueing, route_utils, routes

from falcon_mamba_app.errors import origin_of

logger = logging.getLogger(__name__)


class _Origins:
    """As much of the module `traceback` as Gradio's servers use."""

    def print_exc(self) -> None:
        error = sys.exc_info()[1]
        assert error is not None, "called without an exception"
        if isinstance(error, Error):  # a sentence for the caller, as of a value out of range
            return
        logger.error("an event failed: unexpected %s", origin_of(error))


def keep_words_out_of_the_log() -> None:
    """From now on, for the whole process."""
    modules: tuple[Any, ...] = (queueing, route_utils, routes)
    for module in modules:
        module.traceback = _Origins()
