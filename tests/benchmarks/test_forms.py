"""Forms of replies are measured, and generated ones are all held to."""

from __future__ import annotations

import json
import random

import pytest

from benchmarks import forms
from benchmarks.lib.forms import is_held, random_form
from falcon_mamba_app.text.grammars import Grammars
from falcon_mamba_app.text.vocabulary import Vocabulary
from tests.support.checkpoints import make_tokenizer

EOS = 2


def test_validity_and_speed_are_measured(capsys):
    forms.main(["--forms", "3", "--batch", "2", "--steps", "10"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["rows"][0]["speed"] > 0
    assert result["validity"]["valid"] == result["validity"]["ended"] > 0


@pytest.fixture(scope="module")
def grammars():
    tokenizer = make_tokenizer()
    vocabulary = Vocabulary(tokenizer.backend_tokenizer)
    return Grammars(vocabulary, vocab_size=len(tokenizer), eos_token_ids={EOS})


@pytest.mark.parametrize("block", range(4))
def test_a_reply_of_random_allowed_tokens_has_its_form(grammars, block):
    """The worst model there is: every token that is allowed is as likely as any other."""
    for seed in range(60 * block, 60 * (block + 1)):
        rng, form, token_ids = random.Random(seed), random_form(random.Random(seed)), []
        matcher = grammars.matcher(form)
        while True:
            mask = matcher.allowed()
            if mask[EOS // 8] >> EOS & 1 and rng.random() < 0.7:
                break
            place = rng.choice([place for place, byte in enumerate(mask) if byte])
            bits = [bit for bit in range(8) if mask[place] >> bit & 1]
            token_id = 8 * place + rng.choice(bits)
            if token_id == EOS:
                break
            token_ids.append(token_id)
            matcher.advance(token_id)
        text = grammars.vocabulary.decode(token_ids)
        assert is_held(form, text), (form, text)
