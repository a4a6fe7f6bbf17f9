"""Looks into a session's state: what `inspection` tells, measured on copies.

The conversation is read up to each turn, and once more without it, by requests like everybody's, a
tenth of a share each; only the last tokens are read in a pass of their own. Each state it makes is
dropped as soon as it is compared, and one look is taken at a time.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from falcon_mamba_app.engine.beside import Beside, decay_rates, read_beside
from falcon_mamba_app.engine.engine import Engine
from falcon_mamba_app.engine.packing import ID_BYTES, pack_token_ids
from falcon_mamba_app.engine.states.measures import distances, divergence, half_lives, norms
from falcon_mamba_app.engine.states.pool import State
from falcon_mamba_app.engine.states.store import Snapshot
from falcon_mamba_app.engine.worker import SessionStates, Worker
from falcon_mamba_app.errors import NotSupported, Overloaded, is_lack_of_memory
from falcon_mamba_app.inspection import (
    HALF_LIFE_BOUNDS,
    HALF_LIFE_SHARES,
    LayerDecay,
    StateInspection,
    StateLook,
    StatePoint,
    TurnLeft,
)
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.protocol import (
    Finished,
    GenerationRequest,
    GenerationService,
    SamplingParams,
    TokenIds,
)
from falcon_mamba_app.text.turns import equal_parts, first_words, opening_of_turns, turn_starts

Result = TypeVar("Result")

WEIGHT = 0.1  # a tenth of a share
MAX_SCORED = 64  # tokens, in one pass; their logits are 17 MB at a vocabulary of 65,024
MAX_TOKENS = 32_768  # read in one look
MAX_S = 120.0
NUM_PARTS = 8


@dataclass(frozen=True, slots=True)
class Part:
    """A turn: the tokens from `start` up to `end`."""

    start: int
    end: int


def choose_parts(
    starts: Sequence[int],
    num_tokens: int,
    *,
    num_known: Mapping[int, int],
    max_turns: int,
    max_tokens: int = MAX_TOKENS,
) -> list[Part]:
    """The newest turns that can be looked at within `max_tokens`, rising. `num_known` has how many
    of the tokens before each start need no reading.
    """
    ends = [*starts[1:], num_tokens]
    parts = [Part(start, end) for start, end in zip(starts, ends, strict=True) if start < end]
    last, chosen = parts[-1], list[Part]()
    num_whole, num_without = num_tokens - num_known[last.start], 0
    for part in reversed(parts[-max_turns:]):
        num_before = last.start - num_known[part.start]
        num_without += num_tokens - part.end
        if num_whole + num_before + num_without > max_tokens:
            break
        chosen.insert(0, part)
    return chosen


class Inspector:
    """Looks into the states of one service."""

    def __init__(self, service: GenerationService, worker: Worker) -> None:
        self._service, self._worker = service, worker
        self._is_looking = False

    async def inspect(
        self, session_id: str, snapshot: Snapshot, look: StateLook
    ) -> StateInspection:
        """What the session's snapshot holds. Raises Overloaded, NotSupported."""
        if self._is_looking:
            raise Overloaded("somebody looks into a state already; try again in a few seconds")
        self._is_looking = True
        one = _Look(self._service, self._worker, session_id, snapshot, look)
        try:
            async with asyncio.timeout(MAX_S):
                return await one.take()
        except TimeoutError:
            raise Overloaded(
                f"the look took longer than {MAX_S:.0f} s; ask for fewer turns, or try again later"
            ) from None
        finally:
            self._is_looking = False


class _Look:
    """One look. The states that it makes lie under names of its own."""

    def __init__(
        self,
        service: GenerationService,
        worker: Worker,
        session_id: str,
        snapshot: Snapshot,
        look: StateLook,
    ) -> None:
        assert service.tokenizer is not None, "a model in this process has one"
        self._service, self._worker, self._tokenizer = service, worker, service.tokenizer
        self._origins = [session_id] if look.begins_from is None else [session_id, look.begins_from]
        self._look = look
        self._ids = snapshot.token_ids
        self._names: list[str] = []
        self._num_read = 0
        self._scored: list[int] = []

    async def take(self) -> StateInspection:
        started_s = time.monotonic()
        starts, opening = await asyncio.to_thread(self._starts)
        parts = await self._chosen(starts)
        if not parts:
            raise NotSupported(
                f"the last turn of {len(self._ids):,} tokens cannot be looked at: more than"
                f" {MAX_TOKENS:,} tokens would be read for it"
            )
        last = parts[-1]
        num_scored = min(MAX_SCORED, last.end - last.start)
        self._scored = self._ids[-num_scored:]
        try:
            before = self._ids[: len(self._ids) - num_scored]
            here = await self._beside((await self._read(before))[1])
            turns, points = await self._turns(parts, len(opening), here)
            decays = await self._decays(here)
        finally:
            self._drop_all_but("")
        return StateInspection(
            num_tokens=len(self._ids),
            unit="turn" if opening else "part",
            num_turns=len(starts),
            turns=tuple(turns),
            points=tuple(points),
            decays=decays,
            num_scored_tokens=num_scored,
            num_tokens_read=self._num_read,
            seconds=time.monotonic() - started_s,
        )

    def _starts(self) -> tuple[list[int], tuple[int, ...]]:
        """Where the turns begin, and the markup that each begins with; parts have none."""
        model = self._service.stats().model
        can_chat = model is not None and model.has_chat_template
        opening = opening_of_turns(self._tokenizer) if can_chat else ()
        starts = turn_starts(self._ids, opening)
        return (starts, opening) if starts else (equal_parts(len(self._ids), NUM_PARTS), ())

    async def _chosen(self, starts: list[int]) -> list[Part]:
        """The turns that can be looked at, by how much of their conversation is known."""
        packed, places = pack_token_ids(self._ids), starts[-self._look.max_turns :]

        def ask(states: SessionStates) -> dict[int, int]:
            known = {place: packed[: ID_BYTES * (place + 1)] for place in places}
            return {place: self._num_known(states, ids) for place, ids in known.items()}

        num_known = await self._on_engine(ask)
        max_turns = self._look.max_turns
        return choose_parts(starts, len(self._ids), num_known=num_known, max_turns=max_turns)

    async def _turns(
        self, parts: list[Part], num_markup: int, here: Beside
    ) -> tuple[list[TurnLeft], list[StatePoint]]:
        """Read up to each turn, and then what follows it on the state before it."""
        turns, points, name = [], [], ""
        scored_from = len(self._ids) - len(self._scored)
        for part in parts:
            name, state = await self._read(self._ids[: part.start], after=name)
            self._drop_all_but(name)
            if state is not None:
                points.append(StatePoint(num_tokens=part.start, norms=norms(state.ssm)))
            there = None
            if part is not parts[-1]:
                rest = self._ids[: part.start] + self._ids[part.end : scored_from]
                there = await self._beside((await self._read(rest, after=name))[1])
            words = self._ids[part.start + num_markup : part.end]
            turns.append(await asyncio.to_thread(self._left, part, words, here, there, state))
        return turns, [*points, StatePoint(num_tokens=len(self._ids), norms=norms(here.ssm))]

    def _left(
        self, part: Part, words: list[int], here: Beside, there: Beside | None, state: State | None
    ) -> TurnLeft:
        """Compare the state with the one that never read the part: `there`, or for the last turn
        the one before it.
        """
        ssm = there.ssm if there is not None else None if state is None else state.ssm
        together, by_layer = distances(here.ssm, ssm)
        apart = None if there is None else divergence(here.logprobs, there.logprobs)
        return TurnLeft(
            start=part.start,
            end=part.end,
            words=first_words(words, self._tokenizer),
            distance=together,
            layer_distances=by_layer,
            kl=None if apart is None else float(apart.mean()),
            next_token_kl=None if apart is None else float(apart[-1]),
        )

    async def _decays(self, here: Beside) -> tuple[LayerDecay, ...]:
        rates = await self._on_engine(lambda engine: decay_rates(_model(engine), here.mean_steps))
        told = await asyncio.to_thread(half_lives, rates, HALF_LIFE_SHARES, HALF_LIFE_BOUNDS)
        return tuple(LayerDecay(half_lives=lives, shares=shares) for lives, shares in told)

    async def _read(self, token_ids: list[int], *, after: str = "") -> tuple[str, State | None]:
        """The state that has read exactly these tokens, and the name it lies under. It is begun
        from the one named `after`, or without one from the session's. None is the empty state.
        """
        if not token_ids:
            return after, None
        prompt = TokenIds([*token_ids, self._ids[0]])  # the last one is left to feed
        begins_from = after or await self._lent(prompt)
        name = self._new_name()
        request = GenerationRequest(
            prompt=prompt,
            sampling=SamplingParams(max_new_tokens=0),
            session_id=name,
            begins_from=begins_from,
            only_reads=True,
            owner=self._look.owner,
            weight=self._look.weight * WEIGHT,
        )
        async with aclosing(self._service.generate(request)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    self._num_read += len(token_ids) - (event.reused_tokens or 0)
        snapshot = await self._on_engine(lambda states: states.snapshots.newest(name))
        if snapshot is None:
            raise NotSupported("there is no memory for the states of a look (--snapshot-bytes)")
        await asyncio.to_thread(snapshot.state.wait)
        return name, snapshot.state

    async def _lent(self, prompt: TokenIds) -> str:
        """A name of the look's own for the session's best state to begin from: a session's newest
        state is the one that was used last, and no look may change which.
        """
        name, packed = self._new_name(), pack_token_ids(prompt)

        def lend(states: SessionStates) -> None:
            best = self._best(states, packed)
            if best is not None:
                states.snapshots.put(name, best.packed_token_ids, best.state)

        await self._on_engine(lend)
        return name

    def _best(self, states: SessionStates, packed: bytes) -> Snapshot | None:
        """The state of the session's, or of its book, that has read most of these tokens."""
        found = [states.snapshots.peek(origin, packed) for origin in self._origins]
        known = [snapshot for snapshot in found if snapshot is not None]
        return max(known, key=lambda snapshot: snapshot.num_tokens, default=None)

    def _num_known(self, states: SessionStates, packed: bytes) -> int:
        best = self._best(states, packed)
        return 0 if best is None else best.num_tokens

    def _new_name(self) -> str:
        self._names.append(f"look {secrets.token_hex(16)}")
        return self._names[-1]

    async def _beside(self, state: State | None) -> Beside:
        """The scored tokens, read after the state."""
        self._num_read += len(self._scored)
        return await self._on_engine(
            lambda engine: read_beside(_model(engine), state, self._scored)
        )

    async def _on_engine(self, ask: Callable[[SessionStates], Result]) -> Result:
        try:
            return await asyncio.wrap_future(self._worker.call(ask))
        except Exception as error:
            if is_lack_of_memory(error):
                raise Overloaded("there is no memory for a look now; try again later") from error
            raise

    def _drop_all_but(self, kept: str) -> None:
        """Drop the states that this look has made, but the one of this name."""
        gone = [name for name in self._names if name != kept]
        self._names = [name for name in self._names if name == kept]

        def forget(states: SessionStates) -> None:
            for name in gone:
                states.forget(name)

        self._worker.call(forget)


def _model(states: SessionStates) -> FalconMamba:
    """Raises NotSupported where the model is in another process."""
    if not isinstance(states, Engine):
        raise NotSupported("this server borrows its GPU for replies alone; no state is looked into")
    return states.model
