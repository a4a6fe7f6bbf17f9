"""What a look into a state finds: how full it is, how fast it forgets, what each turn left in it.

How each figure is measured, and after whom, is told in docs/concepts/looking.md. All other modules
import these from `protocol`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HALF_LIFE_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)  # of a layer's numbers that forget faster
HALF_LIFE_BOUNDS = (1.0, 10.0, 100.0, 1_000.0, 10_000.0)  # tokens, between which they are counted
MAX_TURNS_LOOKED_AT = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class StateLook:
    """What to look at, and for whom: the newest turns, each read over once without it. The
    conversation may stand on the book `begins_from`, which then need not be read again.
    """

    max_turns: int = 8
    begins_from: str | None = None
    owner: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StatePoint:
    """The state when it had read so many tokens: each layer's root mean square."""

    num_tokens: int
    norms: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDecay:
    """A layer's half-lives in tokens: below which the HALF_LIFE_SHARES of its numbers lie, and the
    share of them in each interval that HALF_LIFE_BOUNDS make.
    """

    half_lives: tuple[float, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnLeft:
    """What the tokens from `start` up to `end` have left in the state: how far it would be from
    here without them, relative to its length, in all and by layers.

    `kl` is how far the model's words would be, in nats: the mean over the scored tokens, and that
    of the next one. None for the last turn, after which nothing was read.
    """

    start: int
    end: int
    words: str  # that it begins with
    distance: float
    layer_distances: tuple[float, ...]
    kl: float | None
    next_token_kl: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StateInspection:
    """A state after `num_tokens`. `turns` are the newest; earlier ones were not looked at."""

    num_tokens: int
    unit: Literal["turn", "part"]  # parts of a text that has no turns
    num_turns: int  # in all
    turns: tuple[TurnLeft, ...]
    points: tuple[StatePoint, ...]
    decays: tuple[LayerDecay, ...]  # by layer
    num_scored_tokens: int  # the last ones, over which steps and words were measured
    num_tokens_read: int
    seconds: float
