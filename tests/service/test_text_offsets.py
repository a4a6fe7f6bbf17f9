"""Where a token stands in the text that a caller receives, whatever the text does not show."""

from __future__ import annotations

import random

import pytest

from falcon_mamba_app.api.answers import CompletionFormat
from falcon_mamba_app.api.planning import PlannedReply
from falcon_mamba_app.engine.engine import Admitted, Ended, Prefilled, Sampled
from falcon_mamba_app.engine.runner.model_runner import SampledToken
from falcon_mamba_app.engine.runner.scoring import ScoredToken
from falcon_mamba_app.protocol import GenerationRequest, SamplingParams, Text, TokenIds
from falcon_mamba_app.service.local.stream import Stream
from falcon_mamba_app.text.vocabulary import Vocabulary
from tests.support.checkpoints import make_tokenizer

SAID = "<|im_start|>user\nnaïve 🙂🙂 日本<|im_end|>\n"


@pytest.fixture(scope="module")
def backend():
    return make_tokenizer().backend_tokenizer


def choice_of(backend, prompt, prompt_ids: list[int], reply_ids: list[int], *, echo: bool) -> dict:
    """The choice of a reply that the model wrote with exactly these ids."""
    sampling = SamplingParams(logprobs=0, ignore_eos=True)
    scored = 0 if echo else None
    request = GenerationRequest(prompt=prompt, sampling=sampling, score_prompt=scored)
    stream = Stream(1, request, prompt_ids, vocabulary=Vocabulary(backend), started_s=0.0)
    scores = [ScoredToken(token_id, -1.0, []) for token_id in prompt_ids[1:]] if echo else []
    happened = [Admitted(1, 0), Prefilled(1, len(prompt_ids), len(prompt_ids), scores)]
    happened += [Sampled(1, SampledToken(i, ScoredToken(i, -1.0, []))) for i in reply_ids]
    reply = PlannedReply(index=0, prompt_index=0, request=request)
    shape = CompletionFormat(echo=echo, logprobs=0)
    chunks = []
    for event in [*happened, Ended(1, "length")]:
        for told in stream._translate(event, 0.0):
            chunks += shape.chunks(reply, told)
    return shape.join(chunks)


def check(choice: dict) -> None:
    """Every token that is shown whole stands where its offset says; the others have no length."""
    text, logprobs = choice["text"], choice["logprobs"]
    offsets = logprobs["text_offset"]
    assert offsets == sorted(offsets) and offsets[0] == 0
    ends = [*offsets[1:], len(text)]
    for name, offset, end in zip(logprobs["tokens"], offsets, ends, strict=True):
        shown = text[offset:end]
        is_part_of_a_character = name.startswith("bytes:") or "\ufffd" in shown
        assert is_part_of_a_character or shown in (name, ""), (name, shown)


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("form", ["text", "ids"])
def test_offsets_skip_hidden_tokens_and_count_characters(backend, form, echo):
    prompt_ids = backend.encode(SAID, add_special_tokens=False).ids
    prompt = Text(SAID) if form == "text" else TokenIds(prompt_ids)
    choice = choice_of(backend, prompt, prompt_ids, prompt_ids * 2, echo=echo)
    shown = SAID.replace("<|im_start|>", "").replace("<|im_end|>", "")
    assert choice["text"] == (SAID if echo else "") + shown * 2
    check(choice)
    last = len(choice["text"]) - 1
    assert choice["logprobs"]["tokens"][-1] == "\n"
    assert choice["logprobs"]["text_offset"][-1] == last


@pytest.mark.parametrize("seed", range(20))
def test_offsets_of_any_ids_stay_inside_the_text(backend, seed):
    draw = random.Random(seed)
    ids = [draw.randrange(backend.get_vocab_size()) for _ in range(60)]
    choice = choice_of(backend, TokenIds(ids[:10]), ids[:10], ids[10:], echo=bool(seed % 2))
    assert all(0 <= offset <= len(choice["text"]) for offset in choice["logprobs"]["text_offset"])
    check(choice)


def test_what_the_tokenizer_added_to_a_prompt_has_no_length(backend):
    start = backend.token_to_id("<|im_start|>")
    ids = [start, *backend.encode(" one two", add_special_tokens=False).ids]
    choice = choice_of(backend, Text("one two"), ids, [], echo=True)
    assert choice["text"] == "one two"
    offsets = choice["logprobs"]["text_offset"]
    assert offsets[:2] == [0, 0]
    assert offsets[-1] < len("one two")
