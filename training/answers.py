"""Replies and scores from a checkpoint, run by this app's own engine, many at a time."""

from __future__ import annotations

from collections.abc import Sequence as Many
from pathlib import Path

import torch

from falcon_mamba_app.checkpoint.locate import locate
from falcon_mamba_app.checkpoint.weights import load_model, load_tokenizer
from falcon_mamba_app.engine.build import build_engine
from falcon_mamba_app.engine.events import Ended, Failed, Prefilled, Sampled
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.ops.select import select_ops
from falcon_mamba_app.protocol import SamplingParams
from falcon_mamba_app.settings import ModelSettings
from training.held_out import Messages

MAX_RUNNING = {"cpu": 32, "cuda": 128}  # at a time, by device
MAX_PREFILL_TOKENS = 1024
MAX_SNAPSHOT_BYTES = 1 << 30  # for conversations that go on: 128 of them, some turns each
TEMPERATURE, TOP_P = 0.5, 0.9


class Answerer:
    """A checkpoint folder's model in an engine of its own."""

    def __init__(self, folder: Path, *, device: str = "cpu", dtype: str = "float32") -> None:
        has_cuda = device == "cuda"
        checkpoint = locate(ModelSettings(model=str(folder)), has_cuda=has_cuda)
        self.tokenizer = load_tokenizer(checkpoint)
        self.end_ids = frozenset(self.tokenizer.encode("<|im_end|><|endoftext|>"))
        self._max_running = MAX_RUNNING[device]
        ops = select_ops(torch.device(device), "auto")
        model = load_model(
            checkpoint,
            device=torch.device(device),
            dtype=getattr(torch, dtype),
            make_model=lambda config: FalconMamba(config, ops),
        )
        assert isinstance(model, FalconMamba), type(model)
        self._engine = build_engine(
            model,
            eos_token_ids=self.end_ids,
            max_running=self._max_running,
            max_prefill_tokens=MAX_PREFILL_TOKENS,
            max_snapshot_bytes=MAX_SNAPSHOT_BYTES,
        )

    def replies(self, conversations: Many[Messages], *, max_new_tokens: int) -> list[str]:
        """The model's next turn in each conversation; the same for the same number of them."""
        sampling = SamplingParams(
            temperature=TEMPERATURE, top_p=TOP_P, max_new_tokens=max_new_tokens
        )
        for i, messages in enumerate(conversations):
            prompt = self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=True, return_dict=False
            )
            self._engine.add(
                Sequence(seq_id=i, prompt_token_ids=list(prompt), sampling=sampling, seed=i)
            )
        return [self._text(ids) for ids in self._run(len(conversations))]

    def talks(self, lines: Many[Many[str]], *, max_new_tokens: int) -> list[list[tuple[str, bool]]]:
        """What the model replies to each line of each conversation, and whether the reply ended."""
        talks: list[list[tuple[str, bool]]] = []
        for start in range(0, len(lines), self._max_running):
            together = lines[start : start + self._max_running]
            talks += self._talks_together(together, max_new_tokens)
        return talks

    def _talks_together(
        self, lines: Many[Many[str]], max_new_tokens: int
    ) -> list[list[tuple[str, bool]]]:
        """As many conversations as run at a time, turn by turn; each goes on from its snapshot."""
        sampling = SamplingParams(
            temperature=TEMPERATURE, top_p=TOP_P, max_new_tokens=max_new_tokens
        )
        histories: list[list[int]] = [[] for _ in lines]
        talks: list[list[tuple[str, bool]]] = [[] for _ in lines]
        for turn in range(len(lines[0])):
            for i, history in enumerate(histories):
                opening = f"<|im_start|>user\n{lines[i][turn]}<|im_end|>\n<|im_start|>assistant\n"
                history += self.tokenizer.encode(opening)
                self._engine.add(
                    Sequence(
                        seq_id=i,
                        prompt_token_ids=list(history),
                        sampling=sampling,
                        seed=turn,
                        session_id=str(i),
                    )
                )
            closing = self.tokenizer.encode("<|im_end|>\n")
            for i, ids in enumerate(self._run(len(lines))):
                kept = [token_id for token_id in ids if token_id not in self.end_ids]
                histories[i] += kept + closing
                talks[i].append((self._text(ids), len(kept) < len(ids)))
        for i in range(len(lines)):
            self._engine.forget(str(i))
        return talks

    def num_tokens(self, text: str) -> int:
        return len(self.tokenizer.encode(text))

    def _run(self, count: int) -> list[list[int]]:
        """What the sequences 0 … count - 1 write, their end ids included."""
        said: list[list[int]] = [[] for _ in range(count)]
        while self._engine.has_work:
            for event in self._engine.step():
                if isinstance(event, Sampled):
                    said[event.seq_id].append(event.token.token_id)
                _refuse_failure(event)
        return said

    def _text(self, ids: list[int]) -> str:
        kept = [token_id for token_id in ids if token_id not in self.end_ids]
        return str(self.tokenizer.decode(kept)).strip()

    def reply_loss(self, conversations: Many[Messages]) -> tuple[float, int]:
        """The loss in nats of everything the assistant says, its ends of turn included, and how
        many bytes that is: losses of different tokenizers compare by the byte.
        """
        prompts = [self._scored_prompt(messages) for messages in conversations]
        scoring = SamplingParams(max_new_tokens=0)
        for i, (ids, _) in enumerate(prompts):
            seq = Sequence(seq_id=i, prompt_token_ids=ids, sampling=scoring, seed=0)
            seq.score_prompt = 0
            self._engine.add(seq)
        nats, positions = 0.0, [1] * len(prompts)
        while self._engine.has_work:
            for event in self._engine.step():
                _refuse_failure(event)
                if isinstance(event, Prefilled):
                    is_reply = prompts[event.seq_id][1]
                    for score in event.scores:
                        nats -= score.logprob * is_reply[positions[event.seq_id]]
                        positions[event.seq_id] += 1
        assert all(at == len(ids) for at, (ids, _) in zip(positions, prompts, strict=True))
        num_bytes = sum(
            len(message["content"].encode())
            for messages in conversations
            for message in messages
            if message["role"] == "assistant"
        )
        return nats, num_bytes

    def _scored_prompt(self, messages: Messages) -> tuple[list[int], list[bool]]:
        """The ids of a whole conversation, and which of them the assistant says."""
        ids: list[int] = []
        is_reply: list[bool] = []
        for message in messages:
            by_assistant = message["role"] == "assistant"
            opening = self.tokenizer.encode(f"<|im_start|>{message['role']}\n")
            said = self.tokenizer.encode(f"{message['content']}<|im_end|>")
            closing = self.tokenizer.encode("\n")
            ids += opening + said + closing
            is_reply += [False] * len(opening) + [by_assistant] * len(said)
            is_reply += [False] * len(closing)
        return ids, is_reply


def _refuse_failure(event: object) -> None:
    if isinstance(event, Failed):
        raise RuntimeError(str(event.error))
    assert not isinstance(event, Ended) or event.reason in ("stop", "length")
