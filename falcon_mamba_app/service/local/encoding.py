"""Tokenises prompts: short ones at once, longer ones on threads, large ones one after another.

So the event loop is never blocked, and only one large prompt at a time takes a core and memory; the
others wait in their order. It knows no engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from falcon_mamba_app.protocol import Continuation, Conversation, GenerationRequest, Prompt
from falcon_mamba_app.service.local.prompts import encoded
from falcon_mamba_app.service.local.room import refuse_without_room
from falcon_mamba_app.text.chat import PromptEncoder
from falcon_mamba_app.text.shared_start import system_end

Result = TypeVar("Result")

MAX_UNGUARDED_CHARACTERS = 2_000  # take less memory than anything else about a request
MAX_INLINE_CHARACTERS = 20_000  # take about 10 ms
MAX_THREADED_CHARACTERS = 256_000  # take 0.1 s and 30 MB
NUM_THREADS = 2


class Encoding:
    """The ids of prompts, `max_tokens` at most, each below `vocab_size`."""

    def __init__(self, encoder: PromptEncoder, *, max_tokens: int, vocab_size: int) -> None:
        self._encoder, self._max_tokens = encoder, max_tokens
        self._encode = partial(encoded, encoder, max_tokens=max_tokens, vocab_size=vocab_size)
        self._threads = ThreadPoolExecutor(NUM_THREADS, "encoder")
        self._large = ThreadPoolExecutor(1, "large-encoder")

    async def encode(self, request: GenerationRequest) -> Sequence[int]:
        """The ids of the request's prompt. Raises InvalidRequest, PromptTooLong."""
        if _num_characters(request.prompt) > MAX_INLINE_CHARACTERS:
            self._encoder.refuse_characters(request.prompt, max_tokens=self._max_tokens)
        return await self._where_it_fits(request.prompt, partial(self._encode, request))

    async def save_points(
        self, request: GenerationRequest, prompt_ids: Sequence[int]
    ) -> tuple[int, ...]:
        """Places where other requests of the same owner may begin, if reuse is allowed."""
        if request.reuse_id is None:
            return ()
        find = partial(system_end, self._encoder, request.prompt, prompt_ids)
        return (await self._where_it_fits(request.prompt, find),)

    async def _where_it_fits(self, prompt: Prompt, work: Callable[[], Result]) -> Result:
        num_characters = _num_characters(prompt)
        if num_characters > MAX_UNGUARDED_CHARACTERS:
            refuse_without_room()
        if num_characters <= MAX_INLINE_CHARACTERS:
            return work()
        threads = self._threads if num_characters <= MAX_THREADED_CHARACTERS else self._large
        return await asyncio.get_running_loop().run_in_executor(threads, work)

    def close(self) -> None:
        """Accept no more prompts; running encodings end by themselves."""
        for threads in (self._threads, self._large):
            threads.shutdown(wait=False, cancel_futures=True)


def _num_characters(prompt: Prompt) -> int:
    """The number of characters to encode; a message's markup counts as ten."""
    if isinstance(prompt, Continuation):
        prompt = prompt.messages
    if isinstance(prompt, Conversation):
        return sum(10 + len(message.content) for message in prompt)
    return len(prompt)
