"""A GenerationService without a model: it repeats what it was told. For tests of the page and the
API.

It keeps the protocol in full (order of events, sessions, limits, cancelling), so that the contract
test runs over it too. Special words in the prompt, or in what the user said last, steer it: "SLOW"
waits between tokens, "LONG" writes 400 words, "SILENT" none, "QUEUE" waits in line first, "BREAK"
fails in mid-reply. What follows "SAY " is the reply as it is.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Future

from falcon_mamba_app.errors import (
    EngineFailure,
    InvalidRequest,
    NotFound,
    NotReady,
    NotSupported,
    PromptTooLong,
)
from falcon_mamba_app.protocol import (
    Accepted,
    Continuation,
    Conversation,
    Finished,
    GenerationEvent,
    GenerationRequest,
    ModelInfo,
    PrefillProgress,
    PromptScored,
    SamplingParams,
    ServiceStats,
    StateInspection,
    StateLook,
    Text,
    TextDelta,
    TokenIds,
    TokenLogprob,
    Waiting,
)

MAX_PROMPT_TOKENS = 20_000


def _token(
    text: str,
    logprob: float | None = -0.5,
    *,
    alternatives: int = 0,
    offset: int | None = None,
) -> TokenLogprob:
    top = tuple(
        TokenLogprob(i, f"alt{i}", f"alt{i}".encode(), -0.5 - i) for i in range(alternatives)
    )
    return TokenLogprob(_id_of(text), text, text.encode(), logprob, top, offset)


def _id_of(text: str) -> int:
    return sum(text.encode()) % 1000


class EchoService:
    """Words are its tokens."""

    def __init__(self, *, has_chat_template: bool = True, is_bundled: bool = True) -> None:
        self.tokenizer = None
        self.running = 0
        self.holds_line = False  # whoever waits in line stays there
        self.holds_at: int | None = None  # a reply waits there for its next word
        self.requests_total = 0
        self.pinned: dict[str, tuple[int, ...]] = {}
        self.sessions: dict[str, int] = {}
        self.requests: list[GenerationRequest] = []
        self._status = "loading"
        self._has_chat_template = has_chat_template
        self._is_bundled = is_bundled

    async def start(self) -> None:
        self._status = "ready"

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        if self._status == "failed":
            raise EngineFailure("the service is closed")
        if self._status != "ready":
            raise NotReady("the model is still loading")
        started_s = time.monotonic()
        prompt = self._prompt_text(request)
        words = prompt.split() or [""]
        steering = self._steering_words(request, words)
        if len(words) > MAX_PROMPT_TOKENS:
            raise PromptTooLong(
                f"prompt has {len(words)} tokens; this server accepts at most {MAX_PROMPT_TOKENS}"
            )
        if request.sampling.max_new_tokens == 0 and request.score_prompt is None:
            raise InvalidRequest("0 new tokens make no reply", param="max_tokens")
        self.requests.append(request)
        self.requests_total += 1
        self.running += 1
        try:
            for position in (2, 1) if "QUEUE" in steering else ():
                yield Waiting(position)
                await asyncio.sleep(0.05)
                while self.holds_line:
                    await asyncio.sleep(0.05)
            reused = min(self.sessions.get(request.session_id or "", 0), len(words) - 1)
            told = tuple(map(_id_of, words)) if request.tells_ids else ()
            yield Accepted(len(words), reused, told)
            yield PrefillProgress(len(words), len(words))
            if request.score_prompt is not None:
                first = _token(words[0], None)
                rest = [_token(" " + w, alternatives=request.score_prompt) for w in words[1:]]
                yield PromptScored((first, *rest))
            reply = ("word " * 400).split() if "LONG" in steering else self._reply_words(request)
            reply = [] if "SILENT" in steering else reply
            sampling, written, reason = request.sampling, 0, "stop"
            num_characters = 0
            for word in reply:
                if written == sampling.max_new_tokens:
                    reason = "length"
                    break
                await asyncio.sleep(0.05 if "SLOW" in steering else 0)
                while self._status == "ready" and self.holds_at == written:
                    await asyncio.sleep(0.005)
                if self._status == "failed":
                    raise EngineFailure("the service is closed")
                if "BREAK" in steering and written == 2:
                    raise EngineFailure("the device failed; the server must be restarted")
                text = word if written == 0 else " " + word
                if any(stop in text for stop in sampling.stop):
                    break
                written += 1
                logprobs = (
                    ()
                    if sampling.logprobs is None
                    else (_token(text, alternatives=sampling.logprobs, offset=num_characters),)
                )
                num_characters += len(text)
                yield TextDelta(text, written, logprobs, (_id_of(text),) * request.tells_ids)
            if request.session_id is not None and not request.is_aside:
                self.sessions[request.session_id] = len(words) + written
            yield Finished(
                reason=reason,  # type: ignore[arg-type]
                prompt_tokens=len(words),
                reused_tokens=reused,
                completion_tokens=written,
                ttft_s=0.01,
                decode_s=time.monotonic() - started_s,
            )
        finally:
            self.running -= 1

    def _prompt_text(self, request: GenerationRequest) -> str:
        if isinstance(request.prompt, Text):
            return request.prompt
        if isinstance(request.prompt, TokenIds):
            return " ".join(f"t{i}" for i in request.prompt)
        assert not isinstance(request.prompt, Continuation), "it has no ids to continue"
        if not request.prompt:
            raise InvalidRequest("messages is empty; at least one is needed", param="messages")
        if not self._has_chat_template:
            raise InvalidRequest(
                "this model has no chat template; use a plain prompt", param="messages"
            )
        return " ".join(m.content for m in request.prompt)

    def _steering_words(self, request: GenerationRequest, words: list[str]) -> list[str]:
        """Not those of earlier turns: whoever was slow once would be so for ever."""
        if not isinstance(request.prompt, Conversation):
            return words
        said = [message.content for message in request.prompt if message.role == "user"]
        return said[-1].split() if said else words

    def _reply_words(self, request: GenerationRequest) -> list[str]:
        if isinstance(request.prompt, Conversation):
            content = request.prompt[-1].content
            if content.startswith("SAY "):
                return [content.removeprefix("SAY ")]
            return ["You", "said:", *content.split()]
        return ["and", "so", "on."]

    async def export_state(self, session_id: str, token_ids: Sequence[int] | None = None) -> bytes:
        if session_id not in self.sessions:
            raise NotFound("this session has no state")
        return f"echo:{self.sessions[session_id]}".encode()

    async def import_state(self, session_id: str, data: bytes) -> int:
        if not data.startswith(b"echo:"):
            raise InvalidRequest("this file is no state of this model")
        self.sessions[session_id] = int(data[5:])
        return self.sessions[session_id]

    async def sketch(self, session_id: str) -> str | None:
        """One that differs from token to token, of four rows and eight columns."""
        if session_id not in self.sessions:
            return None
        seen = self.sessions[session_id]
        cells = bytes((seen * 37 + place * 11) % 256 for place in range(32))
        return f"4x8:{b64encode(cells).decode()}"

    async def inspect_state(self, session_id: str, look: StateLook) -> StateInspection:
        raise NotSupported("a service without a model has no state to look into")

    async def publish_state(self, session_id: str) -> int:
        return 0

    async def pin_state(self, session_id: str, token_ids: Sequence[int]) -> int:
        self.pinned[session_id] = tuple(token_ids)
        return len(token_ids)

    async def unpin_state(self, session_id: str, token_ids: Sequence[int]) -> None:
        self.pinned.pop(session_id, None)

    def forget(self, session_id: str) -> Future[bool]:
        was_known: Future[bool] = Future()
        was_known.set_result(self.sessions.pop(session_id, None) is not None)
        return was_known

    def stats(self) -> ServiceStats:
        return ServiceStats(
            status=self._status,  # type: ignore[arg-type]
            model=ModelInfo(
                id="echo",
                has_chat_template=self._has_chat_template,
                is_bundled=self._is_bundled,
                family="falcon_mamba",
                num_parameters=24_500_000,
                weights_bytes=49_000_000,
                dtype="bfloat16",
                device="CPU, 2 threads",
                kernels="reference",
                state_bytes=860_160,
                kv_bytes_per_token=3_072,
                trained_context_tokens=768,
                max_prompt_tokens=MAX_PROMPT_TOKENS,
                max_new_tokens=1024,
                default_sampling=SamplingParams(temperature=0.4, top_p=0.9),
            ),
            running=self.running,
            waiting=0,
            max_running=4,
            snapshots=len(self.sessions),
            snapshot_bytes=860_160 * len(self.sessions),
            max_snapshot_bytes=2**30,
            requests_total=self.requests_total,
            prompt_tokens_total=0,
            reused_tokens_total=0,
            completion_tokens_total=0,
            decode_tokens_per_s=0.0,
            prefill_tokens_per_s=0.0,
            process_memory_bytes=500_000_000,
            peak_process_memory_bytes=600_000_000,
        )

    async def close(self) -> None:
        self._status = "failed"


async def ready_echo() -> EchoService:
    """One that has been started."""
    service = EchoService()
    await service.start()
    return service
