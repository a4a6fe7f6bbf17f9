"""A model in this process, without a server: prompts in, texts out, and the state in between.

    from falcon_mamba_app.offline import OfflineModel

    model = OfflineModel("nano")
    print(model.generate(["Once upon a time", "The capital of France is"], max_new_tokens=30))

The same engine, tokenizer handling and sampling as the server's, stepped by the caller. Several
prompts are answered together. One thread may use it.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from falcon_mamba_app.checkpoint.placement import Machine
from falcon_mamba_app.engine.engine import Engine
from falcon_mamba_app.engine.events import EngineEvent, Failed, Sampled
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.engine.states import file
from falcon_mamba_app.errors import NotFound
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.protocol import (
    Conversation,
    GenerationRequest,
    Message,
    ModelInfo,
    Prompt,
    SamplingParams,
    Text,
)
from falcon_mamba_app.service.local.build import placed
from falcon_mamba_app.service.local.prompts import encoded
from falcon_mamba_app.service.local.startup import Startup, read_tokenizer
from falcon_mamba_app.settings import EngineSettings, ModelSettings
from falcon_mamba_app.text.chat import PromptEncoder
from falcon_mamba_app.text.detokenizer import Detokenizer
from falcon_mamba_app.text.reply_log import ReplyLog, checked_replies

# A text to continue, or messages as OpenAI's API has them.
AnyPrompt = str | Iterable[Mapping[str, str]] | Prompt


@dataclass(slots=True)
class _Reply:
    """One reply as it grows."""

    seq: Sequence
    detokenizer: Detokenizer
    text: str = ""

    def take(self, event: Sampled) -> str:
        """The text that the event adds."""
        added = self.detokenizer.feed(event.token.token_id)
        self.text += added
        return added

    def end(self) -> str:
        added = self.detokenizer.flush()
        self.text += added
        return added


class OfflineModel:
    """A checkpoint, loaded, and an engine over it."""

    def __init__(
        self, model: str = "auto", *, engine: EngineSettings | None = None, **settings: Any
    ) -> None:
        """Find, read and warm up the model.

        Args:
            model: what `--model` takes: a known name, a hub id, a folder or a .gguf file.
            engine: how much is taken on at a time; the server's defaults for the device.
            settings: further fields of ModelSettings: device, dtype, quantization, kernels …

        Raises:
            CheckpointError, SettingsError: with one sentence.
        """
        asked = ModelSettings(model=model, **settings)
        machine = Machine.look(asked.device)
        limits = (engine or EngineSettings()).on(has_gpu=machine.has_gpu)
        self._reply_log = ReplyLog()
        placement = placed(asked, limits, machine)
        self.encoder: PromptEncoder
        self.encoder, defaults = read_tokenizer(placement.checkpoint, self._reply_log)
        self._startup = Startup(placement, defaults, limits)
        self.engine: Engine = self._startup.make_engine()
        self._seq_ids = itertools.count(1)

    @property
    def info(self) -> ModelInfo:
        return self._startup.model_info

    @property
    def model(self) -> FalconMamba:
        return self.engine.model

    def generate(
        self,
        prompts: Any,
        *,
        session_id: str | None = None,
        **sampling: Any,
    ) -> list[str]:
        """The replies to all prompts, which are written together.

        `prompts` is one, or a list of them: texts to continue, or lists of messages. `sampling` are
        fields of SamplingParams; the model's defaults for the rest. With a `session_id` the states
        are kept, and a prompt that continues an earlier one reads only what is new. Raises
        InvalidRequest, PromptTooLong and ReplyFailure.
        """
        are_several = isinstance(prompts, list) and not _is_messages(prompts)
        several: list[AnyPrompt] = prompts if are_several else [prompts]
        replies = [self._begin(prompt, session_id, sampling) for prompt in several]
        for _ in self._write(replies):
            pass
        return [reply.text for reply in replies]

    def stream(
        self, prompt: AnyPrompt, *, session_id: str | None = None, **sampling: Any
    ) -> Iterator[str]:
        """The reply to one prompt, piece by piece. Raises as `generate` does."""
        reply = self._begin(prompt, session_id, sampling)
        with closing(self._write([reply])) as pieces:
            for _, text in pieces:
                if text:
                    yield text

    def chat(self, system_prompt: str = "") -> OfflineChat:
        """A conversation whose state is carried from turn to turn."""
        return OfflineChat(self, system_prompt)

    def forget(self, session_id: str) -> None:
        """Drop what is kept of the session."""
        self.encoder.forget(session_id)
        self.engine.forget(session_id)

    def save_state(self, session_id: str) -> bytes:
        """The session's whole memory as a file's bytes. Raises NotFound where nothing is kept."""
        snapshot = self.engine.snapshots.newest(session_id)
        if snapshot is None:
            raise NotFound("this session has no state yet")
        snapshot.state.wait()
        replies = self._reply_log.export(session_id)
        return file.to_bytes(snapshot, model_fingerprint=self._startup.fingerprint, replies=replies)

    def load_state(self, session_id: str, data: bytes) -> int:
        """Go on from a file; returns how many tokens it has read. Raises InvalidRequest."""
        snapshot, replies = file.from_bytes(
            data,
            config=self.model.config,
            conv_dtype=self.model.dtype,
            model_fingerprint=self._startup.fingerprint,
        )
        self._reply_log.restore(
            session_id, checked_replies(replies, vocab_size=self.model.config.vocab_size)
        )
        self.engine.snapshots.put(session_id, snapshot.token_ids, snapshot.state)
        return snapshot.num_tokens

    def run(self, sequences: Iterable[Sequence]) -> list[EngineEvent]:
        """Token ids in, events out: the engine's own level, until nothing is left to do."""
        for seq in sequences:
            self.engine.add(seq)
        events: list[EngineEvent] = []
        while self.engine.has_work:
            events += self.engine.step()
        return events

    def _begin(self, prompt: AnyPrompt, session_id: str | None, sampling: dict[str, Any]) -> _Reply:
        params: SamplingParams = replace(self.info.default_sampling, **sampling)
        request = GenerationRequest(prompt=_prompt(prompt), sampling=params, session_id=session_id)
        prompt_ids = encoded(
            self.encoder,
            request,
            max_tokens=self._startup.limits.max_prompt_tokens,
            vocab_size=self.model.config.vocab_size,
        )
        seq = Sequence(
            seq_id=next(self._seq_ids),
            prompt_token_ids=prompt_ids,
            sampling=params,
            seed=secrets.randbits(63) if params.seed is None else params.seed,
            session_id=session_id,
        )
        detokenizer = Detokenizer(self.encoder.vocabulary, stop=params.stop, prompt_ids=prompt_ids)
        return _Reply(seq, detokenizer)

    def _write(self, replies: list[_Reply]) -> Generator[tuple[_Reply, str], None, None]:
        """Each piece as it comes. Closed early, it gives up what is not written yet."""
        waiting = {reply.seq.seq_id: reply for reply in replies}
        for new in replies:
            self.engine.add(new.seq)
        try:
            while self.engine.has_work:
                for event in self.engine.step():
                    reply = waiting.get(event.seq_id)
                    if reply is not None and isinstance(event, Failed):
                        raise event.error
                    if reply is None or not isinstance(event, Sampled):
                        continue
                    yield reply, reply.take(event)
                    if reply.detokenizer.is_stopped:
                        self.engine.abort(event.seq_id)
                        del waiting[event.seq_id]
        finally:
            for seq_id in waiting:
                self.engine.abort(seq_id)
            for written in replies:
                self._record(written)
        for last in waiting.values():
            yield last, last.end()

    def _record(self, reply: _Reply) -> None:
        """A reply's own ids: its text may not be tokenised into them again."""
        seq = reply.seq
        if seq.session_id is not None:
            self._reply_log.record(seq.session_id, seq.prompt_token_ids, seq.output_token_ids)


class OfflineChat:
    """One conversation. `messages` may be read; `send`, `undo` and the state change it."""

    def __init__(self, model: OfflineModel, system_prompt: str = "") -> None:
        self._model, self._session_id = model, secrets.token_hex(16)
        self.messages = [Message("system", system_prompt)] if system_prompt else []

    def send(self, text: str, **sampling: Any) -> str:
        """The reply to a message; only what is new is read."""
        return "".join(self.stream(text, **sampling))

    def stream(self, text: str, **sampling: Any) -> Iterator[str]:
        """The same, piece by piece. A reply that is given up leaves what was written of it."""
        self.messages.append(Message("user", text))
        reply = ""
        try:
            prompt = Conversation(self.messages)
            pieces = self._model.stream(prompt, session_id=self._session_id, **sampling)
            for piece in pieces:
                reply += piece
                yield piece
        finally:
            self.messages.append(Message("assistant", reply))

    def undo(self) -> None:
        """Take the last message and its reply back; the state before them is still there."""
        del self.messages[-2:]

    def save(self) -> bytes:
        """The conversation's memory as a file's bytes; the texts are in `messages`."""
        return self._model.save_state(self._session_id)

    def load(self, data: bytes, messages: Iterable[Message]) -> None:
        """Go on with a memory that was saved, and the messages that it has read."""
        self._model.load_state(self._session_id, data)
        self.messages = list(messages)


def _is_messages(prompt: list[Any]) -> bool:
    return bool(prompt) and all(isinstance(part, (Mapping, Message)) for part in prompt)


def _prompt(prompt: Any) -> Prompt:
    """A prompt of one of the protocol's kinds."""
    if isinstance(prompt, str):
        return Text(prompt)
    if isinstance(prompt, list):
        return Conversation(
            part if isinstance(part, Message) else Message(part["role"], part["content"])
            for part in prompt
        )
    return prompt  # type: ignore[no-any-return]
