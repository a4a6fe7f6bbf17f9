"""Small talk that goes on: what the user did, likes and asks in passing, and a friendly answer."""

from __future__ import annotations

from random import Random
from typing import Any

from training.generator.grammar import Turn, capital, say, table
from training.generator.words import value


def texts() -> Any:
    return table("reactions")


def reaction(rng: Random) -> list[Turn]:
    """The user tells of something good, bad or neither."""
    sort = rng.choices(("good", "bad", "plain"), (40, 32, 28))[0]
    said = say(rng, texts()[sort], **_slots(rng))
    return [(said + rng.choice((".", ".", ".", "", "!")), say(rng, texts()[f"{sort}_reply"]))]


def taste(rng: Random) -> list[Turn]:
    """Whether the model likes something, would rather have it, or can do it."""
    x, y = _thing(rng), _thing(rng)
    pick = rng.random()
    if pick < 0.4:
        slots = {"x": x, "y": y}
        return [
            (capital(say(rng, texts()["taste"], **slots)), say(rng, texts()["taste_reply"], x=x))
        ]
    if pick < 0.65:
        asked = capital(say(rng, texts()["rather"], x=x, y=y))
        return [(asked, say(rng, texts()["rather_reply"], z=rng.choice((x, y))))]
    return [(say(rng, texts()["can"], **_slots(rng)), say(rng, texts()["can_reply"]))]


def _thing(rng: Random) -> str:
    words = table("words")
    return str(rng.choice(words["foods"] + words["hobbies"] + words["drinks"] + words["sports"]))


def _slots(rng: Random) -> dict[str, str]:
    return {
        "food": value(rng, "food"), "rel": value(rng, "relative"), "thing": value(rng, "owned_thing"), "pet": value(rng, "pet"),
        "hobby": value(rng, "hobby"), "sport": value(rng, "sport"), "drink": value(rng, "drink"), "inst": value(rng, "instrument"),
    }  # fmt: skip


def chat(rng: Random) -> list[Turn]:
    return reaction(rng) if rng.random() < 0.65 else taste(rng)
