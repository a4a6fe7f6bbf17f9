"""What the training knows about remembering: how conversations tell and ask, and what counts."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from training.generator import conversations, memory
from training.muon import Muon, orthogonalised
from training.probe import told_probe
from training.rows import FULL, TOLD, Encoder, render, told_spans

TOKENIZER = Path(__file__).parents[2] / "assets" / "nano" / "tokenizer.json"


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(TOKENIZER)


def facts_told(ease: float) -> list[list[dict[str, str]]]:
    made = conversations("told", 400, ease=ease)
    return [each for each in made if any("told" in message for message in each)]


def test_only_the_told_word_of_a_reply_counts_more(encoder):
    reply = "Your cat is called Zorvin, not Zorvinia."
    messages = [
        {"role": "user", "content": "My cat is called Zorvin."},
        {"role": "assistant", "content": reply, "told": "Zorvin"},
    ]
    text = render(messages)
    assert [text[start:end] for start, end in told_spans(messages)] == ["Zorvin"]
    ((tokens, weights),) = encoder.weighted([messages])
    assert tokens[weights == TOLD].tolist() == encoder.encode([" Zorvin"])[0].tolist()
    assert np.array_equal(encoder.conversation_weights(tokens) == FULL, weights >= FULL)


def test_what_is_marked_as_told_was_said_before():
    marked = 0
    for messages in facts_told(0.5):
        for i, message in enumerate(messages):
            for value in filter(None, message.get("told", "").split("\n")):
                marked += 1
                said = " ".join(m["content"] for m in messages[:i])
                assert value.casefold() in said.casefold(), (value, said)
    assert marked > 300


def test_an_easy_beginning_is_more_about_memory_and_asks_sooner():
    easy, hard = facts_told(1.0), facts_told(0.0)
    assert len(easy) > 1.25 * len(hard)
    assert np.mean([len(each) for each in easy]) < 0.75 * np.mean([len(each) for each in hard])


@pytest.mark.parametrize("kind", memory.kinds())
def test_a_blurred_sentence_keeps_the_fact_whole(kind):
    rng = Random(kind)
    for _ in range(40):
        fact = memory.make_fact(rng, kind)
        clear = memory.kinds()[kind]["tell"][0].replace("{k}", fact.key).replace("{v}", fact.value)
        blurred = memory.blurred(rng, f"{clear} That is all I have to say about it.", fact)
        assert fact.value.casefold() in blurred.casefold()


def test_blurring_changes_words():
    rng, fact = Random(1), memory.Fact("name", "", "Zorvin")
    text = "People who know me well have always been calling me Zorvin."
    blurred = {memory.blurred(rng, text, fact) for _ in range(50)}
    assert len(blurred) > 30
    assert all("Zorvin." in each for each in blurred)


def test_what_others_are_called_is_not_what_was_told():
    rng, known = Random(2), [memory.Fact("colour", "", colour) for colour in ("red", "blue")]
    for _ in range(300):
        said, _ = memory.mention(rng, known)
        assert not {"red", "blue"} & set(said.casefold().strip(".").split())


def test_the_probe_counts_told_words_that_would_be_said(encoder):
    probe = told_probe(encoder, length=512, num_rows=4)
    targets = probe.batch.targets

    def always_right(tokens: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(targets, 8192).float()

    assert probe.accuracy(always_right, torch.device("cpu")) == 1.0
    assert probe.accuracy(lambda t: torch.zeros(*t.shape, 8192), torch.device("cpu")) == 0.0


@pytest.mark.parametrize("shape", [(3, 64, 32), (2, 32, 64)])
def test_an_orthogonalised_matrix_has_singular_values_near_one(shape):
    generator = torch.Generator().manual_seed(0)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(shape, generator=generator)))
    assert values.min() > 0.5 and values.max() < 1.3


def test_a_step_is_that_of_torchs_own_muon():
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(8, 24, generator=generator) for _ in range(3)]
    ours, theirs = ([torch.nn.Parameter(each.clone()) for each in start] for _ in range(2))
    settings = {"lr": 0.01, "weight_decay": 0.1}
    optimizers = [
        Muon(ours, **settings),
        torch.optim.Muon(theirs, **settings, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
    ]
    for _ in range(3):
        gradients = [torch.randn(8, 24, generator=generator) for _ in start]
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0.0)  # torch iterates in bf16
