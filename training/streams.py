"""Endless rows for the training: fresh conversations, made while they are needed, and token files.

Everything is a function of the seed and of how many rows were taken, so a run that is resumed goes
on with the rows it would have read anyway.
"""

from __future__ import annotations

import contextlib
import itertools
import lzma
import os
import re
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np

from training.generator import conversations
from training.generator.excerpts import SENTENCE_END
from training.generator.retold import HumanQuestion, parse
from training.generator.sources import Sources
from training.rows import Encoder, Rows, Tokens, Weights, cut, documents, pack

SHARD_CONVERSATIONS = 2_000  # made and packed at a time
EASY_SHARDS = 100  # until conversations are as hard as they get
FEWEST_ASKED = 60  # tokens of a conversation of people that may be a text with a question
MESSAGE = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", re.DOTALL)

Row = tuple[Tokens, Weights]


def make_shard(
    encoder: Encoder, seed: int, index: int, length: int, sources: Sources | None = None
) -> Rows:
    """Shard `index` of the endless sequence that `seed` names, in a shuffled order of rows."""
    ease = max(0.0, 1.0 - index / EASY_SHARDS)
    made = conversations(f"{seed}/{index}", SHARD_CONVERSATIONS, ease=ease, sources=sources)
    rows = pack(encoder.weighted(made), length)
    order = np.random.default_rng([seed, index]).permutation(len(rows))
    return Rows(rows.tokens[order], rows.weights[order])


class FreshConversations:
    """Rows of generated conversations that nobody has read before.

    `num_workers` processes make the shards in turn, so their order does not depend on their speed;
    0 makes them here.
    """

    def __init__(
        self, tokenizer_file: Path, *, seed: int, length: int, num_workers: int, shard: int = 0
    ) -> None:
        self._seed, self._length = seed, length
        self._encoder = Encoder(tokenizer_file)
        folder = tokenizer_file.parent
        self._sources = None if num_workers else read_sources(folder, self._encoder)
        self.shard, self._first_shard, self._next = shard, shard, 0
        self._rows: Rows | None = None
        self._workers = [
            _start_worker(tokenizer_file, seed, shard + i, num_workers, length)
            for i in range(num_workers)
        ]

    def take(self) -> Row:
        while self._rows is None or self._next == len(self._rows):
            if self._rows is not None:
                self.shard += 1
            self._rows, self._next = self._load(self.shard), 0
        self._next += 1
        return self._rows.tokens[self._next - 1], self._rows.weights[self._next - 1]

    def _load(self, index: int) -> Rows:
        if not self._workers:
            return make_shard(self._encoder, self._seed, index, self._length, self._sources)
        worker = self._workers[(index - self._first_shard) % len(self._workers)]
        assert worker.stdout is not None
        return Rows.read(worker.stdout, self._length)

    def state(self) -> dict[str, int]:
        return {"shard": self.shard, "next": self._next}

    def restore(self, state: dict[str, int]) -> None:
        """For a stream that was made with `shard=state["shard"]`."""
        assert self.shard == state["shard"], f"{self.shard=}, {state=}"
        self._rows, self._next = self._load(self.shard), state["next"]

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.communicate()


def _start_worker(
    tokenizer_file: Path, seed: int, first: int, step: int, length: int
) -> subprocess.Popen[bytes]:
    arguments = [str(each) for each in (tokenizer_file, seed, first, step, length)]
    # A pipe holds its writer back, so each worker is one shard ahead and no more. One thread each:
    # there are as many workers as cores.
    environment = {**os.environ, "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "training.streams", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)


def work(tokenizer_file: Path, seed: int, first: int, step: int, length: int) -> None:
    """The worker: shards first, first + step, … to standard output, until nobody reads."""
    encoder = Encoder(tokenizer_file)
    sources = read_sources(tokenizer_file.parent, encoder)
    with contextlib.suppress(BrokenPipeError):
        for index in itertools.count(first, step):
            make_shard(encoder, seed, index, length, sources).write(sys.stdout.buffer)


class FileRows:
    """The rows of token files, again and again, shuffled anew each time."""

    def __init__(self, rows: Rows, *, seed: int) -> None:
        assert len(rows), "no rows"
        self._rows, self._seed = rows, seed
        self._epoch, self._order = -1, np.arange(0)
        self.taken = 0

    def take(self) -> Row:
        epoch, i = divmod(self.taken, len(self._rows))
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self._seed, epoch]).permutation(len(self._rows))
        self.taken += 1
        at = self._order[i]
        return self._rows.tokens[at], self._rows.weights[at]


def read_token_file(path: Path) -> Tokens:
    """The ids of a .bin.xz file; each document ends with id 0."""
    with lzma.open(path) as file:
        return np.frombuffer(file.read(), dtype=np.uint16)


class PlainTexts:
    """Pieces of plain texts, decoded when they are asked for."""

    def __init__(self, texts: list[Tokens], encoder: Encoder) -> None:
        self._texts, self._encoder = texts, encoder

    def excerpt(self, rng: Random, num_tokens: int) -> str:
        """Whole sentences in a row from anywhere, of about so many tokens; at least one."""
        text = rng.choice(self._texts)
        start = rng.randrange(max(1, len(text) - num_tokens))
        piece = text[start : start + num_tokens + num_tokens // 8]
        parts = SENTENCE_END.split(self._encoder.decode(piece).strip())
        is_whole_at_the_end = start + len(piece) == len(text)
        whole = parts[start > 0 : len(parts) - (not is_whole_at_the_end)]
        return " ".join(whole or parts)


class QuestionsOfPeople:
    """Texts with a question of somebody who had read them, decoded when they are asked for."""

    def __init__(self, talks: list[Tokens], encoder: Encoder) -> None:
        self._encoder = encoder
        self._talks = [each for each in talks if len(each) >= FEWEST_ASKED]

    def one(self, rng: Random) -> HumanQuestion:
        while True:
            text = self._encoder.decode(rng.choice(self._talks), with_marks=True)
            if found := parse(MESSAGE.findall(text)):
                return found

    def has_any(self) -> bool:
        return any(
            parse(MESSAGE.findall(self._encoder.decode(each, with_marks=True)))
            for each in self._talks
        )


def read_sources(folder: Path, encoder: Encoder) -> Sources | None:
    """The texts in `folder` as what conversations may be made of; None where either is missing."""
    plain = [text for path in _files(folder, "plain_") for text in documents(read_token_file(path))]
    talks = [
        talk for path in _files(folder, "chat_human") for talk in documents(read_token_file(path))
    ]
    questions = QuestionsOfPeople(talks, encoder)
    if not plain or not questions.has_any():
        return None
    return Sources(PlainTexts(plain, encoder).excerpt, questions.one)


def _files(folder: Path, start: str) -> list[Path]:
    return sorted(folder.glob(f"{start}*.bin.xz"))


def plain_rows(folder: Path, length: int, *, part: int, num_parts: int) -> Rows:
    """Every `num_parts`-th row of the plain texts in `folder`."""
    rows = [cut(read_token_file(path), length) for path in _files(folder, "plain_")]
    return _every([row for row in rows if len(row)], part, num_parts)


def human_rows(folder: Path, encoder: Encoder, length: int, *, part: int, num_parts: int) -> Rows:
    """Every `num_parts`-th row of the conversations that people wrote."""
    packed = []
    for path in _files(folder, "chat_human"):
        texts = documents(read_token_file(path))
        packed.append(pack(((t, encoder.conversation_weights(t)) for t in texts), length))
    return _every(packed, part, num_parts)


def _every(rows: list[Rows], part: int, num_parts: int) -> Rows:
    tokens = np.concatenate([each.tokens for each in rows])[part::num_parts]
    return Rows(tokens, np.concatenate([each.weights for each in rows])[part::num_parts])


if __name__ == "__main__":
    work(Path(sys.argv[1]), *(int(each) for each in sys.argv[2:]))
