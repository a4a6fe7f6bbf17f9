"""What is not a plain English sentence: nonsense, code, other languages, emoji; and what is refused.

One honest sentence answers what a small model cannot do, and an emoji changes nothing else.
"""

from __future__ import annotations

from random import Random
from typing import Any

from training.generator.grammar import Turn, say, table
from training.generator.words import any_words, invented, name, place, unheard

ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm", "1234567890", "!?#%&*+-/=")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def texts() -> Any:
    return table("oddities")


def nonsense(rng: Random) -> list[Turn]:
    return [(gibberish(rng), say(rng, texts()["unclear"]))]


def gibberish(rng: Random) -> str:
    """Keys hit at random, signs, or words that make no sentence."""
    pick = rng.random()
    if pick < 0.3:
        row = rng.choice(ROWS)
        start = rng.randrange(len(row) - 3)
        return row[start : start + rng.randrange(3, 8)] * rng.choice((1, 1, 2, 3))
    if pick < 0.55:
        groups = [
            "".join(rng.choice(LETTERS) for _ in range(rng.randrange(2, 9)))
            for _ in range(rng.randrange(1, 5))
        ]
        return " ".join(groups)
    if pick < 0.7:
        return "".join(rng.choice("?!.,;:-_#+*~%&/()=$@") for _ in range(rng.randrange(2, 9)))
    if pick < 0.85:
        made = " ".join(rng.sample(any_words(), rng.randrange(3, 8)))
        return made + rng.choice(("", ".", "?"))
    made = " ".join(invented(rng).lower() for _ in range(rng.randrange(2, 6)))
    return made + rng.choice(("", "!", "?", "."))


def foreign(rng: Random) -> list[Turn]:
    if rng.random() < 0.2:
        asked = say(rng, texts()["translate"])
    else:
        asked = rng.choice(texts()["foreign"])
        asked = asked.replace("{n}", name(rng)).replace("{c}", rng.choice(list(table("countries"))))
    return [(asked, say(rng, texts()["only_english"]))]


def code(rng: Random) -> list[Turn]:
    template = rng.choice(texts()["code"])
    if template[:1].isupper() and template.split(" ")[0] in (
        "Write",
        "Can",
        "What",
        "Fix",
        "Explain",
    ):
        template = say(rng, template, w="{w}", k="{k}", f="{f}", W="{W}")
    word = rng.choice(any_words())
    for slot, made in (
        ("{w}", word),
        ("{W}", word.capitalize()),
        ("{f}", rng.choice(any_words())),
        ("{k}", str(rng.randrange(1, 100))),
    ):
        template = template.replace(slot, made)
    return [(template, say(rng, texts()["no_code"]))]


def emoji(rng: Random) -> str:
    return str(rng.choice(texts()["emojis"].split()))


def emoji_only(rng: Random) -> list[Turn]:
    shown = "".join(emoji(rng) for _ in range(rng.choice((1, 1, 2, 3))))
    if rng.random() < 0.2:
        shown = rng.choice(texts()["smileys"])
    return [(shown, say(rng, texts()["emoji_only"]))]


def with_emoji(rng: Random, text: str) -> str:
    """The text with pictures or a smiley at its end, at times at its beginning or in its middle."""
    mark = (
        rng.choice(texts()["smileys"])
        if rng.random() < 0.25
        else "".join(emoji(rng) for _ in range(rng.choice((1, 1, 1, 2, 3))))
    )
    pick = rng.random()
    if pick < 0.75:
        return f"{text}{rng.choice((' ', ' ', ''))}{mark}"
    if pick < 0.9 or " " not in text:
        return f"{mark} {text}"
    words = text.split(" ")
    words.insert(rng.randrange(1, len(words)), mark)
    return " ".join(words)


def refused(rng: Random) -> list[Turn]:
    if rng.random() < 0.12:
        return [(say(rng, texts()["in_need"]), say(rng, texts()["care"]))]
    if rng.random() < 0.3:
        return [(say(rng, texts()["harmful"]), say(rng, texts()["refusal"]))]
    person = f"{rng.choice(texts()['harm_verbs'])} {rng.choice(texts()['harm_people'])}"
    aim = person if rng.random() < 0.5 else say(rng, f"[{texts()['harm_things']}]")
    return [(say(rng, texts()["harm_frames"], x=aim), say(rng, texts()["refusal"]))]


def not_learned(rng: Random) -> list[Turn]:
    """Questions about the world that only a large model could answer."""
    slots = {
        "y": rng.randrange(1500, 2030), "t": place(rng), "u": place(rng), "w": unheard(rng), "p": name(rng),
        "N": rng.randrange(1000, 9999), "N2": rng.randrange(100, 9999),
    }  # fmt: skip
    reply = say(rng, texts()["not_general"], x="such things")
    return [(say(rng, texts()["general"], **slots), reply)]
