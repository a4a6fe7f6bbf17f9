"""Chooses which restore points of one conversation to keep where there is room for few.

A restore point is a place from which a conversation can go on without reading what comes before it.
Each takes the same memory, however long the conversation is. The standard library only: it knows
neither states nor files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# The newest point, the one before it (a retry of the last reply begins there) and the one before
# that (an undo of the last turn ends there).
NUM_OF_LAST_TURN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePoint:
    """One point among those of its conversation; lengths are in tokens from the beginning."""

    num_tokens: int
    num_shared: int  # leading tokens that lead to the newest point too
    num_before: int  # where the nearest point before it lies; 0 if there is none
    is_fork: bool = False  # the conversation went on from here in several ways
    is_pinned: bool = False  # somebody gave it a name


def least_worth(points: Sequence[RestorePoint]) -> int:
    """The index of the point to drop; the last of `points` is the newest.

    The last turn stays, then pinned points, then forks. Among equals the one goes whose loss costs
    the least: the tokens that would be read again, divided by the tokens between it and the newest
    point. So points get ever fewer with age, each gap in proportion to its distance.
    """
    newest = points[-1]
    path = [at for at, point in enumerate(points) if point.num_shared == point.num_tokens]
    path.sort(key=lambda at: points[at].num_tokens, reverse=True)
    of_last_turn = {at: -place for place, at in enumerate(path[:NUM_OF_LAST_TURN])}

    def worth(at: int) -> tuple[bool, float, bool, bool, float]:
        point = points[at]
        distance = newest.num_tokens + point.num_tokens - 2 * point.num_shared
        saved = point.num_tokens - point.num_before
        return (
            at in of_last_turn,
            of_last_turn.get(at, 0),
            point.is_pinned,
            point.is_fork,
            saved / (1 + distance),
        )

    return min(range(len(points)), key=worth)
