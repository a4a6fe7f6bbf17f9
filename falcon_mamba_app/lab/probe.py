"""Recall probe: facts are hidden in long texts, read once, and asked for.

A text is read into a state of its own, and each question begins from a copy of that state: it costs
its own tokens only. The replies are the likeliest ones, so the same plan gives the same answers.
"""

from __future__ import annotations

import asyncio
import secrets
from array import array
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from falcon_mamba_app.books.standing import Standing
from falcon_mamba_app.lab.answers import Answer, Cell, Plan, Tally
from falcon_mamba_app.lab.asking import Asker, HeldBack, merged
from falcon_mamba_app.lab.facts import TITLE, Fact, filler_of
from falcon_mamba_app.lab.texts import refuse_too_long
from falcon_mamba_app.protocol import (
    Accepted,
    Conversation,
    GenerationRequest,
    Message,
    PrefillProgress,
    Prompt,
    SamplingParams,
    Text,
    TextDelta,
    TokenIds,
    Waiting,
)

REPLY = SamplingParams(temperature=0.0, max_new_tokens=24)
MAX_REPLY_CHARS = 200
ROOM = 200  # for the title, the markup and the question


@dataclass(frozen=True, slots=True)
class Reading:
    """A text is being read: so many of its tokens."""

    length: int
    sample: int
    tokens: int
    of_tokens: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A question was answered. `tokens_read` are those that the question itself cost."""

    answer: Answer
    cell: Cell
    tokens_read: int | None
    done: int
    total: int


ProbeEvent = Waiting | HeldBack | Reading | Asked


async def probe(
    asker: Asker, plan: Plan, known: Iterable[Answer] = (), *, width: int = 1
) -> AsyncGenerator[ProbeEvent, None]:
    """Ask what is not among the `known` answers yet, `width` questions at the same time. Closing
    it ends the reading.

    Raises PromptTooLong, and what a service raises.
    """
    refuse_too_long(max(plan.lengths) + ROOM, asker.model)
    standing = await asyncio.to_thread(Standing.of, asker.tokenizer, asker.model)
    tally = Tally(plan, known)
    for sample, length in plan.units():
        missing = [depth for depth in plan.depths if (length, depth, sample) not in tally]
        if not missing:
            continue
        text = await asyncio.to_thread(_Text.make, standing, plan, sample, length)
        async with aclosing(_asked_of(asker, text, missing, width)) as events:
            async for event in events:
                yield _counted(tally, text, event) if isinstance(event, _Told) else event


def _counted(tally: Tally, text: _Text, told: _Told) -> Asked:
    reply = " ".join(told.reply.split())[:MAX_REPLY_CHARS]
    answer = Answer(text.length, told.depth, text.sample, told.is_right, reply)
    tally.add(answer)
    cell = tally.cell(answer.length, answer.depth)
    return Asked(answer, cell, told.tokens_read, len(tally), tally.plan.num_questions)


@dataclass(frozen=True, slots=True)
class _Told:
    """What a question brought."""

    depth: float
    is_right: bool
    reply: str
    tokens_read: int | None


@dataclass(frozen=True, slots=True)
class _Text:
    """A text to be read, and what is hidden in it."""

    sample: int
    length: int
    ids: array[int]
    after: int  # the id that follows first; the state has not read it
    facts: dict[float, Fact]
    standing: Standing

    @classmethod
    def make(cls, standing: Standing, plan: Plan, sample: int, length: int) -> _Text:
        """A million tokens take a second, so call it on a thread."""
        encode = standing.tokenizer.encode
        filler = filler_of(
            plan.seed_of(sample, length),
            length,
            plan.depths,
            lambda sentence: len(encode(Text(sentence))),
        )
        ids = standing.ids_of(TITLE, filler.text)
        after = ids[-1] if standing.closing is None else standing.closing[0]
        facts = dict(zip(plan.depths, filler.facts, strict=True))
        return cls(sample, length, ids, after, facts, standing)

    def prompt(self, depth: float) -> Prompt:
        """The text with the question for the fact of this depth."""
        fact = self.facts[depth]
        asked: Prompt
        if self.standing.is_chat:
            asked = Conversation([Message("user", fact.question)])
        else:
            asked = Text(fact.beginning)
        return self.standing.prompt_on(self.ids, asked)


async def _asked_of(
    asker: Asker, text: _Text, depths: Sequence[float], width: int
) -> AsyncGenerator[Waiting | HeldBack | Reading | _Told, None]:
    """Read the text, and ask for the facts of these depths; the state is dropped at the end."""
    name = f"laboratory {secrets.token_hex(16)}"
    reading = GenerationRequest(
        prompt=TokenIds([*text.ids, text.after]),
        sampling=SamplingParams(max_new_tokens=0),
        session_id=name,
        only_reads=True,
    )
    try:
        async with aclosing(asker.ask(reading)) as events:
            async for event in events:
                if isinstance(event, PrefillProgress):
                    num_read = min(event.computed_tokens, len(text.ids))
                    yield Reading(text.length, text.sample, num_read, len(text.ids))
                elif isinstance(event, Waiting | HeldBack):
                    yield event
        for at in range(0, len(depths), width):
            questions = [_answer(asker, text, depth, name) for depth in depths[at : at + width]]
            async with aclosing(merged(questions)) as told:
                async for one in told:
                    yield one
    finally:
        asker.service.forget(name)


async def _answer(
    asker: Asker, text: _Text, depth: float, name: str
) -> AsyncGenerator[Waiting | HeldBack | _Told, None]:
    request = GenerationRequest(prompt=text.prompt(depth), sampling=REPLY, begins_from=name)
    reply, num_read = "", None
    async with aclosing(asker.ask(request)) as events:
        async for event in events:
            match event:
                case Waiting() | HeldBack():
                    yield event
                case Accepted(prompt_tokens=int(prompt), reused_tokens=int(reused)):
                    num_read = prompt - reused
                case TextDelta(text=added):
                    reply += added
    yield _Told(depth, text.facts[depth].is_told_by(_first_line(reply)), reply, num_read)


def _first_line(reply: str) -> str:
    """A model that continues texts goes on with other questions."""
    return reply.strip().partition("\n")[0]
