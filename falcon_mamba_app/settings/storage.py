"""The options of the states that outlive the process."""

from __future__ import annotations

from dataclasses import dataclass

from falcon_mamba_app.settings.options import AUTO, option
from falcon_mamba_app.settings.parsing import parse_bytes, parse_state_store

OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """Where the states of idle conversations lie, so that they outlive the process."""

    state_store: str = option(
        AUTO,
        "a folder, s3://, gs:// or az://, or off; auto: a folder in --data-dir if only this machine"
        " is served, else off",
        parse=parse_state_store,
    )
    state_store_bytes: int = option(
        20 * 2**30,
        "room for them; the longest unused ones go first",
        is_local=True,
        at_least=0,
        parse=parse_bytes,
    )
    state_idle_s: int = option(
        15,
        "seconds after its last turn until a conversation's state is written there; when it must go"
        " from memory, and when the server stops, it is written in any case",
        is_local=True,
        at_least=1,
    )
    encrypt_states: bool = option(
        False, "encrypt them, with keys made from --session-secret", is_local=True
    )
