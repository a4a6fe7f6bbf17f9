"""How many values a body of the API may hold: one of two bytes becomes an object of a hundred."""

from __future__ import annotations

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.http.json_bodies import structure_so_far

# A parser holds Python's lock from beginning to end: as much as this may be takes it 60 ms of a
# core of 2.8 GHz. A field has a name, a list and an object are made; each takes as long as four
# numbers. 35,000 messages fit, and prompts of ids three times as long as are read by default.
MAX_VALUES = 500_000
OF_A_FIELD = OF_A_CONTAINER = 4


def refuse_too_many_values(data: bytes) -> None:
    """Raises InvalidRequest, as soon as it is sure."""
    for so_far in structure_so_far(data):
        made = OF_A_FIELD * so_far.colons + OF_A_CONTAINER * so_far.containers
        if so_far.commas + made > MAX_VALUES:
            raise InvalidRequest(
                f"the body holds over {MAX_VALUES:,} values, of which a field, a list and an object"
                f" count as {OF_A_FIELD}; this server reads no more in one request"
            )
