"""Conversations out of a library with their states, and into it, for the page and the API.

A state is an optimisation here as everywhere: one that the model does not take is left out, with a
sentence, and its conversation is read again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from falcon_mamba_app.errors import FalconMambaError
from falcon_mamba_app.library.exchange.reading import read
from falcon_mamba_app.library.library import Library
from falcon_mamba_app.library.tree import ConversationRecord, Tree
from falcon_mamba_app.protocol import GenerationService

MAX_STATES = 4  # of one conversation: as many as stay of an idle one
BATCH = 100  # conversations; between two batches others write


@dataclass(frozen=True, slots=True)
class BroughtIn:
    """What of a file is in the library so far."""

    conversations: tuple[ConversationRecord, ...]
    num_all: int
    num_states: int = 0
    problem: str = ""  # why a state was left out


def moments(tree: Tree) -> list[str]:
    """The messages whose states go along: the head, named ones, and where other branches end."""
    head = [tree.conversation.head_id] if tree.conversation.head_id is not None else []
    named = [branch.message_id for branch in tree.branches]
    ends = [message.id for message in reversed(tree.ends)]
    return list(dict.fromkeys([*head, *named, *ends]))


async def states_of(
    service: GenerationService,
    session_id: str,
    message_ids: Sequence[str],
    ids_at: Callable[[str], Awaitable[Sequence[int]]],
    *,
    max_bytes: int,
) -> dict[str, bytes]:
    """The states at these messages, or nearest before them, by the first message that has each; as
    many as fit. `ids_at` tells what was read up to a message.
    """
    states: dict[str, bytes] = {}
    for message_id in message_ids:
        try:
            state = await service.export_state(session_id, await ids_at(message_id))
        except FalconMambaError:  # there is none, or it belongs to another server
            continue
        is_new = state not in states.values()
        if is_new and sum(map(len, states.values())) + len(state) <= max_bytes:
            states[message_id] = state
        if len(states) == MAX_STATES:
            break
    return states


async def bring_in(
    library: Library, owner: str, service: GenerationService, data: bytes
) -> AsyncGenerator[BroughtIn, None]:
    """Keep all conversations of a file; yields after each batch, and with the states at the end.
    Raises InvalidRequest for a file that is none, before anything is kept.
    """
    trees, states = await asyncio.to_thread(read, data)
    made: list[ConversationRecord] = []
    for at in range(0, len(trees), BATCH):
        made += await library.adopt(owner, *trees[at : at + BATCH])
        yield BroughtIn(tuple(made), len(trees))
    if states and len(made) == 1:
        num_states, problem = await take_states(service, made[0].id, [*states.values()])
        yield BroughtIn(tuple(made), len(trees), num_states, problem)


async def take_states(
    service: GenerationService, session_id: str, states: Sequence[bytes]
) -> tuple[int, str]:
    """How many the service has taken, the newest last, and why it has not taken the others."""
    num_taken, problem = 0, ""
    for state in reversed(states[:MAX_STATES]):
        try:
            await service.import_state(session_id, state)
        except FalconMambaError as error:
            problem = str(error)
        else:
            num_taken += 1
    return num_taken, problem
