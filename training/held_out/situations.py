"""Conversations as people have them: put right, nearly asked, in small letters, with pictures.

Each function is one row of the card: questions whose wording the generator does not have, drawn
with a fixed seed.
"""

from __future__ import annotations

import json
import random
from itertools import cycle, islice
from typing import Any

from training.held_out import (
    KINDS,
    Messages,
    Question,
    _distractors,
    assistant,
    load,
    story_questions,
    user,
)

GAPS = (0, 0, 1, 3, 6)
FAR = 60  # turns of a long conversation


def _texts() -> Any:
    return load("situations")


def _values(kind: str) -> list[str]:
    values: list[str] = load("recall")[kind]["values"]
    return values


def _kind_of_pet(rng: random.Random) -> str:
    return str(rng.choice(load("recall")["pet"]["kinds"]))


def corrections(per_kind: int = 12) -> list[Question]:
    """A fact is told, put right some turns later, and asked for: the newest counts."""
    texts, recall, rng = _texts()["corrections"], load("recall"), random.Random(11)
    asked = []
    for kind in KINDS:
        for _ in range(per_kind):
            old, new = rng.sample(_values(kind), 2)
            k = _kind_of_pet(rng)
            messages = [
                user(rng.choice(recall[kind]["tell"]).format(v=old, k=k)),
                assistant(rng.choice(recall["acknowledgements"])),
                *_distractors(recall, rng.choice(GAPS[:4]), rng),
                user(rng.choice(texts[kind]).format(v=new, old=old, k=k)),
                assistant(rng.choice(texts["thanks"])),
                *_distractors(recall, rng.choice(GAPS), rng),
                user(rng.choice(recall[kind]["ask"]).format(k=k)),
            ]
            asked.append(Question("corrections", messages, new))
    return asked


def near_misses() -> list[Question]:
    """Of two things alike, one was told and the other is asked for."""
    texts, recall, rng = _texts(), load("recall"), random.Random(12)
    asked = []
    for gap in (0, 2):
        for tell, ask, _ in texts["near"]:
            told = tell.format(
                v=rng.choice(texts["near_values"]), p=rng.choice(texts["near_places"])
            )
            messages = [
                user(told),
                assistant(rng.choice(recall["acknowledgements"])),
                *_distractors(recall, gap, rng),
                user(ask),
            ]
            asked.append(Question("near misses", messages))
    return asked


def several_facts() -> list[Question]:
    """Three or four things in one sentence; group "several 1" asks for the first of them."""
    texts, recall, rng = _texts()["several"], load("recall"), random.Random(13)
    asked = []
    for _ in range(4):
        for tell, kinds in texts:
            k = _kind_of_pet(rng)
            values = {kind: rng.choice(_values(kind)) for kind in kinds}
            told = [
                user(tell.format(k=k, **values)),
                assistant(rng.choice(recall["acknowledgements"])),
                *_distractors(recall, rng.choice(GAPS[:4]), rng),
            ]
            for place, kind in enumerate(kinds, start=1):
                question = user(rng.choice(recall[kind]["ask"]).format(k=k))
                asked.append(Question(f"several {place}", [*told, question], values[kind]))
    return asked


def small_letters(rounds: int = 6) -> list[Question]:
    return _in_style("small", "small letters", rounds, 14)


def with_emoji(rounds: int = 6) -> list[Question]:
    return _in_style("emoji", "emoji", rounds, 15)


def _in_style(part: str, group: str, rounds: int, seed: int) -> list[Question]:
    """Facts told and asked for as one part of the texts writes them."""
    texts, recall, rng = _texts()[part], load("recall"), random.Random(seed)
    asked = []
    for kind in KINDS:
        for tell, ask in islice(cycle(texts[kind]), rounds * 2):
            value, k = rng.choice(_values(kind)), _kind_of_pet(rng)
            shown = value.lower() if part == "small" else value
            messages = [
                user(tell.format(v=shown, k=k)),
                assistant(rng.choice(recall["acknowledgements"])),
                *_distractors(recall, rng.choice(GAPS[:4]), rng),
                user(ask.format(k=k)),
            ]
            asked.append(Question(group, messages, value))
    return asked


def far_away(per_kind: int = 10) -> list[Question]:
    """Facts told at the beginning of a conversation of 60 turns, asked for at its end."""
    recall, rng = load("recall"), random.Random(16)
    asked = []
    for kind in KINDS:
        for _ in range(per_kind):
            value, k = rng.choice(_values(kind)), _kind_of_pet(rng)
            between: Messages = []
            while len(between) < 2 * (FAR - 2):
                missing = FAR - 2 - len(between) // 2
                between += _distractors(recall, min(missing, len(recall["distractors"])), rng)
            messages = [
                user(rng.choice(recall[kind]["tell"]).format(v=value, k=k)),
                assistant(rng.choice(recall["acknowledgements"])),
                *between,
                user(rng.choice(recall[kind]["ask"]).format(k=k)),
            ]
            asked.append(Question(f"far {kind}", messages, value))
    return asked


def checks(per_kind: int = 8) -> list[Question]:
    """Yes or no about what was told: a reply begins with the right one of the two."""
    texts, recall, rng = _texts()["checks"], load("recall"), random.Random(17)
    asked = []
    for kind, question in texts:
        for i in range(per_kind):
            value, other = rng.sample(_values(kind), 2)
            k, is_so = _kind_of_pet(rng), i % 2 == 0
            messages = [
                user(rng.choice(recall[kind]["tell"]).format(v=value, k=k)),
                assistant(rng.choice(recall["acknowledgements"])),
                *_distractors(recall, rng.choice(GAPS[:3]), rng),
                user(question.format(w=value if is_so else other, k=k)),
            ]
            expected = "yes|right|correct" if is_so else "no|not right"
            asked.append(Question("yes or no", messages, expected))
    return asked


def two_people() -> list[Question]:
    texts, rng = _texts(), random.Random(18)
    acknowledgements = load("recall")["acknowledgements"]
    asked = []
    for p, q in texts["people_places"]:
        for tell, questions in texts["people"]:
            told = [user(tell.format(p=p, q=q)), assistant(rng.choice(acknowledgements))]
            for question, expected in questions:
                asking = user(question.format(p=p, q=q))
                asked.append(Question("two people", [*told, asking], expected.format(p=p, q=q)))
    return asked


def word_problems(rounds: int = 8) -> list[Question]:
    """Group "sums": the last number of the reply counts."""
    texts, rng = _texts()["problems"], random.Random(19)
    asked = []
    for _ in range(rounds):
        for text, sign in texts:
            total = rng.randrange(3, 21)
            part = rng.randrange(1, total)
            a, b, result = (
                (total - part, part, total) if sign == "+" else (total, part, total - part)
            )
            asked.append(Question("sums", [user(text.format(a=a, b=b))], str(result)))
    return asked


def pairs(part: str) -> list[Question]:
    """The texts' questions with the answers beside them: calendar, opposites, app."""
    return [Question(part, [user(text)], expected) for text, expected in _texts()[part]]


def lists() -> list[Question]:
    texts, rng = _texts(), random.Random(20)
    acknowledgements = load("recall")["acknowledgements"]
    asked = []
    for a, b, c in texts["list_values"]:
        for tell, ask, expected in texts["lists"]:
            told = [user(tell.format(a=a, b=b, c=c)), assistant(rng.choice(acknowledgements))]
            asked.append(Question("lists", [*told, user(ask)], expected.format(a=a, b=b, c=c)))
    return asked


def json_questions() -> list[Question]:
    """Group "json echo": the reply is the object; "json value": it has the value."""
    asked = []
    for fields in _texts()["json_values"]:
        written = json.dumps(fields)
        for text, sort in _texts()["json"]:
            key = list(fields)[-1]
            expected = written if sort == "echo" else str(fields[key])
            message = user(text.replace("{j}", written).replace("{k}", key))
            asked.append(Question(f"json {sort}", [message], expected))
    return asked


def odd_messages(part: str) -> list[Question]:
    """Nonsense, foreign, code, refusals, emoji_alone: one message each."""
    return [Question(part, [user(text)]) for text in _texts()[part]]


def never_told() -> list[Question]:
    """What nobody said, after other things were told."""
    texts, recall, rng = _texts()["never_told"], load("recall"), random.Random(21)
    asked = []
    for text in texts:
        asked.append(Question("never told", [user(text)]))
        kind = rng.choice(KINDS)
        told = recall[kind]["tell"]
        messages = [
            user(rng.choice(told).format(v=rng.choice(_values(kind)), k=_kind_of_pet(rng))),
            assistant(rng.choice(recall["acknowledgements"])),
            *_distractors(recall, rng.choice(GAPS), rng),
            user(text),
        ]
        asked.append(Question("never told", messages))
    return asked


def after_stories() -> list[tuple[Question, dict[str, str]]]:
    """Every story twice, with other names: what is asked once the model has told it."""
    recall, rng = load("recall"), random.Random(22)
    wording = recall["name"]
    asked = []
    for i, story in enumerate(story_questions() * 2):
        name = wording["values"][(i * 7) % len(wording["values"])]
        told = [
            user(rng.choice(wording["tell"]).format(v=name)),
            assistant(rng.choice(recall["acknowledgements"])),
        ]
        question = Question("after a story", [*told, *story.messages], name)
        asked.append((question, user(rng.choice(wording["ask"]))))
    return asked


def small_talk(conversations: int, turns: int) -> list[list[str]]:
    """What the users of so many conversations say, at random from the lines of chatter.json."""
    lines, rng = load("chatter")["lines"], random.Random(23)
    return [rng.sample(lines, turns) for _ in range(conversations)]
