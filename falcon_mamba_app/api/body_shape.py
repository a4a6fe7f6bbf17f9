"""How many values a body of the API may hold: one of two bytes becomes an object of a hundred."""

from __future__ import annotations

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.http.json_bodies import structure_so_far

# 20,000 messages in parts are 60,000 containers; a prompt of ids has 131,072 values by default.
MAX_CONTAINERS = 100_000
MAX_VALUES = 1_000_000


def refuse_too_many_values(data: bytes) -> None:
    """Raises InvalidRequest, as soon as it is sure."""
    for so_far in structure_so_far(data):
        is_too_many = so_far.commas + so_far.colons > MAX_VALUES
        if is_too_many or so_far.containers > MAX_CONTAINERS:
            raise InvalidRequest(
                f"the body holds over {MAX_VALUES:,} values, or over {MAX_CONTAINERS:,} lists and"
                " objects; this server reads no more in one request"
            )
