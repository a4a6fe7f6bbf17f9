"""What the page's tour and its examples promise is true of the bundled model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.answers import Answerer

ASSETS = Path(__file__).parents[2] / "assets"
EXAMPLES = json.loads((ASSETS / "examples.json").read_text())


@pytest.mark.slow
def test_the_bundled_model_keeps_what_the_tour_tells_it_and_answers_the_examples():
    """At the evaluation's temperature, which is above the page's own."""
    told = [step["text"] for step in EXAMPLES["tour"] if "text" in step]
    answerer = Answerer(ASSETS / "nano")
    talks = answerer.talks([told] * 4, max_new_tokens=300)
    assert all(ended for talk in talks for _, ended in talk)
    assert all("Zorvin" in talk[-1][0] for talk in talks)
    asked = [[{"role": "user", "content": each["text"]}] for each in EXAMPLES["chat"][1:]]
    compared, read, story = answerer.replies(asked, max_new_tokens=300)
    assert "transformer" in compared.casefold()
    assert "Agnes Pell" in read
    assert len(story.split()) > 40
