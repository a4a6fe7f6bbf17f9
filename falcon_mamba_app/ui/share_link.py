"""A public link to this server through Gradio's relay.

The relay's client, frpc, is downloaded at first use; without it, or without a network, there is no
link, and the server goes on without one.
"""

from __future__ import annotations

import logging
import secrets
from urllib.parse import urlparse

from gradio import networking

from falcon_mamba_app.settings import Platform

logger = logging.getLogger(__name__)


def open_link(port: int, platform: Platform) -> str | None:
    """The public address of 127.0.0.1:`port`, or None with the reason in the log. May take a
    minute; not to be called on the event loop.
    """
    if platform.is_space:
        logger.warning("--share is ignored: a Hugging Face Space has its own public address")
        return None
    try:
        address = networking.setup_tunnel("127.0.0.1", port, secrets.token_urlsafe(32), None, None)
    except Exception as error:  # the relay's client raises many kinds, OSError to ValueError
        reason = str(error).partition("\n")[0].rstrip(". ")
        cause = f": {error.__cause__}" if error.__cause__ else ""
        logger.warning("there is no public link (%s%s); the local address works", reason, cause)
        return None
    return urlparse(address)._replace(scheme="https").geturl()
