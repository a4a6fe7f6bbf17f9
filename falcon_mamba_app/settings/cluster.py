"""The options of several copies of the server behind one address."""

from __future__ import annotations

from dataclasses import dataclass

from falcon_mamba_app.settings.options import option
from falcon_mamba_app.settings.parsing import parse_copy_name, parse_int_or_auto

MAX_REPLICAS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """Several whole copies of the server, each with its model, behind one address."""

    replicas: int | str = option(
        1,
        "copies on this machine behind --port; auto: one for each GPU",
        parse=parse_int_or_auto,
        at_least=1,
        at_most=MAX_REPLICAS,
    )
    replica: str | None = option(
        None,
        "this copy's name, as a1, among those behind a router of your own, all with the same"
        " --session-secret; in the cookie and the ids that bring a visitor back to it",
        parse=parse_copy_name,
    )
    drain_s: int = option(
        0,
        "seconds that replies may go on once the server is told to stop, while /health/ready says"
        " 503; 0: they end at once, with a sentence",
        at_least=0,
        at_most=3_600,
    )
