"""Forms on a GPU: the mask between a graph's pass and the draw, one step ahead of the host."""

from __future__ import annotations

import json

import pytest
import torch

from falcon_mamba_app.ops.triton.ops import TRITON
from falcon_mamba_app.protocol import ChoiceForm, JsonForm, RegexForm
from falcon_mamba_app.text.grammars import Grammars
from falcon_mamba_app.text.vocabulary import Vocabulary
from tests.support.checkpoints import make_model, make_tokenizer
from tests.support.engine_fixtures import (
    EOS,
    finish,
    make_engine,
    make_sequence,
    ours,
    random_prompt,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 9},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
    },
    "required": ["name", "tags"],
    "additionalProperties": False,
}
FORMS = (
    JsonForm(json.dumps(SCHEMA)),
    RegexForm("[a-f]{3,9}-[0-9]{1,6}!"),
    ChoiceForm(("yes", "no")),
)
VOCABULARY = Vocabulary(make_tokenizer().backend_tokenizer)


@pytest.fixture(scope="module")
def model():
    return ours(make_model("falcon_mamba").to("cuda"), TRITON)


@pytest.fixture(scope="module")
def grammars(model):
    return Grammars(VOCABULARY, vocab_size=model.config.vocab_size, eos_token_ids={EOS})


def sequences(grammars):
    """With a form and without, greedy and seeded, with penalties, filters and log-probabilities."""
    wishes = (
        {"temperature": 0.0},
        {"temperature": 1.3, "seed": 3},
        {"temperature": 1.0, "seed": 4, "top_p": 0.8, "top_k": 30, "typical_p": 0.9},
        {"temperature": 1.0, "seed": 5, "repetition_penalty": 1.3, "logprobs": 2},
    )
    for i, wish in enumerate(wishes):
        for form in (*FORMS, None):
            options = {"ignore_eos": False, "max_new_tokens": 40 if form is None else 300, **wish}
            seq = make_sequence(random_prompt(2 + 7 * i, seed=i), **options)
            seq.matcher = None if form is None else grammars.matcher(form)
            yield form, seq


def test_replies_with_forms_are_the_same_alone_and_in_any_batch_and_valid(model, grammars):
    alone = []
    for form, seq in sequences(grammars):
        engine = make_engine(model, max_running=1)
        engine.add(seq)
        finish(engine)
        alone.append(seq.output_token_ids)
        if form is FORMS[0]:
            assert list(json.loads(VOCABULARY.decode(seq.output_token_ids))) == ["name", "tags"]
    engine, together = make_engine(model, max_running=4, max_prefill_tokens=8), []
    for _, seq in sequences(grammars):
        together.append(seq)
        engine.add(seq)
        engine.step()
    finish(engine)
    assert [seq.output_token_ids for seq in together] == alone
    assert engine.pool.num_free == 4


def test_replies_with_forms_are_the_same_with_and_without_look_ahead(model, grammars):
    replies = []
    for look_ahead in (False, True):
        engine = make_engine(model, look_ahead=look_ahead)
        seqs = [seq for _, seq in sequences(grammars)]
        for seq in seqs:
            engine.add(seq)
        finish(engine)
        replies.append([seq.output_token_ids for seq in seqs])
    assert replies[0] == replies[1]
