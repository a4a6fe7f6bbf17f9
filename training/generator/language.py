"""Exercises with words and sentences: spelling, forms, meanings, small readings, follow-ups."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from training.generator import knowledge, texts
from training.generator.arithmetic import exercise, sorting
from training.generator.grammar import Turn, and_join, capital, say, table
from training.generator.words import invented

KINDS_OF = {
    "animals": "an animal", "fruits": "a fruit", "vegetables": "a vegetable", "colors": "a color",
    "countries": "a country", "sports": "a sport", "musical instruments": "a musical instrument",
    "flowers": "a flower", "clothes": "a piece of clothing", "planets": "a planet", "jobs": "a job",
    "metals": "a metal", "drinks": "a drink",
}  # fmt: skip
AMBIGUOUS = frozenset(("orange", "rose", "peach", "plum"))
PLACES = "kitchen garden school park shop library office bathroom barn".split()
AT_PLACES = frozenset(("school", "park", "shop"))
COLORS = "red blue green yellow orange purple pink white black".split()


def all_words() -> list[str]:
    tables = table("knowledge")
    listed = [item for items in tables["lists"].values() for item in items]
    return [
        *tables["plurals"],
        *tables["past"],
        *(w for w in listed if " " not in w and w.islower()),
    ]


def word(rng: Random) -> list[Turn]:
    w, pick = rng.choice(all_words()), rng.randrange(8)
    if pick == 0:
        noun = rng.choice(table("knowledge")["plurals"])
        asked = say(rng, '[What is the plural of {w}?|What is the plural of "{w}"?]', w=noun)
        return [(asked, f"The plural of {noun} is {knowledge.plural(noun)}.")]
    if pick == 1:
        verb, past = knowledge.pair(rng, "past")
        asked = say(
            rng, '[What is the past tense of {w}?|What is the past tense of "{w}"?]', w=verb
        )
        return [(asked, f"The past tense of {verb} is {past}.")]
    if pick == 2:
        return rhyme(rng)
    if pick == 3:
        asked = say(rng, '[How do you spell {w}?|Spell the word {w}.|Spell "{w}".]', w=w)
        return [(asked, "-".join(w.upper()) + ".")]
    if pick == 4:
        asked = say(rng, "[What is the first letter of {w}?|What letter does {w} start with?]", w=w)
        return [(asked, f"The first letter of {w} is {w[0].upper()}.")]
    if pick == 5:
        letters = "-".join(w.upper())
        return [
            (
                f"How many letters are in the word {w}?",
                f"{letters}. The word {w} has {len(w)} letters.",
            )
        ]
    if pick == 6:
        letter = rng.randrange(ord("A"), ord("Z"))
        return [
            (
                f"What letter comes after {chr(letter)}?",
                f"{chr(letter + 1)} comes after {chr(letter)}.",
            )
        ]
    chosen = rng.sample([each for each in all_words() if len(each) > 2], 4)
    in_order = ", ".join(sorted(set(chosen)))
    return [(f"Put these words in alphabetical order: {', '.join(chosen)}.", f"{in_order}.")]


def rhyme(rng: Random) -> list[Turn]:
    w, rhymes = knowledge.pair(rng, "rhymes")
    found = rng.sample(rhymes, min(len(rhymes), rng.choice((1, 2, 3))))
    many = "Give me words that rhyme with {w}."
    one = "Give me a word that rhymes with {w}."
    asked = say(rng, ("What rhymes with {w}?", one if len(found) == 1 else many), w=w)
    listed = capital(and_join(found))
    return [(asked, f"{listed} rhyme{'s' if len(found) == 1 else ''} with {w}.")]


def definition(rng: Random) -> list[Turn]:
    w, sort, gloss = rng.choice(table("glosses"))
    asked = say(
        rng,
        '[What does "{w}" mean?|What does {w} mean?|what does {w} mean|Define {w}.|What is the meaning of {w}?|Define the word "{w}".]',
        w=w,
    )
    if sort == "v":
        return [(asked, f"To {w} means to {gloss}.")]
    if sort == "n" and rng.random() < 0.5:
        return [(asked, f'"{capital(w)}" is a noun. It means {gloss}.')]
    return [
        (asked, f"{capital(w)} means {gloss}." if sort == "n" else f'"{capital(w)}" means {gloss}.')
    ]


def sentence(rng: Random) -> list[Turn]:
    talk, pick = table("talk"), rng.randrange(7)
    if pick == 0:
        wrong, right = rng.choice(talk["corrections"])
        asked = '[Correct this sentence: {w}|Fix the grammar: {w}|Is this right? "{w}"|Correct the mistake: "{w}"]'
        reply = right if rng.random() < 0.6 else f"The correct sentence is: {right}"
        return [(say(rng, asked, w=wrong), reply)]
    if pick == 1:
        return verb_form(rng)
    if pick == 2:
        feeling = rng.choice(("positive", "negative"))
        asked = '[Is this positive or negative? "{s}"|Is the feeling in this sentence positive or negative: {s}]'
        return [(say(rng, asked, s=rng.choice(talk[feeling])), f"It is {feeling}.")]
    if pick == 3:
        return odd_one_out(rng)
    if pick == 4:
        return sorting(rng)
    if pick == 5:
        text = rng.choice((*talk["positive"], *talk["negative"]))
        return [(f"Repeat after me: {text}", text)]
    return comparison(rng)


def verb_form(rng: Random) -> list[Turn]:
    words, present = table("words"), table("talk")["present"]
    person = rng.choice(words["girls"] + words["boys"])
    verb = rng.choice(list(present))
    shown, thing = present[verb]
    slots = {"n": person, "p": shown, "o": thing}
    if rng.random() < 0.6:
        asked = '[Change this to the past tense: {n} {p} {o}.|Put this sentence in the past: "{n} {p} {o}."]'
        return [(say(rng, asked, **slots), f"{person} {table('knowledge')['past'][verb]} {thing}.")]
    asked = "[Make this a question: {n} {p} {o}.|Turn this into a question: {n} {p} {o}.]"
    return [(say(rng, asked, **slots), f"Does {person} {verb} {thing}?")]


def odd_one_out(rng: Random) -> list[Turn]:
    lists = table("knowledge")["lists"]
    a, b = rng.sample(list(KINDS_OF), 2)
    own = [item for item in lists[a] if item not in lists[b] and item not in AMBIGUOUS]
    foreign = [item for item in lists[b] if item not in lists[a] and item not in AMBIGUOUS]
    if rng.random() < 0.5:
        item, kinds = rng.choice(own), [KINDS_OF[a], KINDS_OF[b]]
        rng.shuffle(kinds)
        return [(f"Is {item} {kinds[0]} or {kinds[1]}?", f"{capital(item)} is {KINDS_OF[a]}.")]
    stranger = rng.choice(foreign)
    shown = [*rng.sample(own, 3), stranger]
    rng.shuffle(shown)
    asked = say(
        rng, "[Which one does not belong: {l}?|Find the odd one out: {l}.]", l=", ".join(shown)
    )
    return [(asked, f"{capital(stranger)} does not belong. The others are {a}.")]


def comparison(rng: Random) -> list[Turn]:
    words = table("words")
    a, b, c = rng.sample(words["girls"] + words["boys"], 3)
    more, most, least = rng.choice(
        (("taller", "tallest", "shortest"), ("older", "oldest", "youngest"))
    )
    text = f"{a} is {more} than {b}. {b} is {more} than {c}."
    asked, person = rng.choice(((most, a), (least, c)))
    return [(f"{text} Who is the {asked}?", f"{person} is the {asked}.")]


def reading(rng: Random) -> list[Turn]:
    words = table("words")
    names = rng.sample(words["girls"] + words["boys"], 3)
    if rng.random() < 0.35:
        names = [invented(rng) for _ in names]
    text, question, reply = rng.choice((who_has, who_went, who_is_old, which_color))(rng, names)
    asked = rng.choice(
        (f"{text} {question}", f"{text}\n{question}", f'Read this: "{text}" {question}')
    )
    return [(asked, reply)]


Reading = tuple[str, str, str]


def who_has(rng: Random, names: list[str]) -> Reading:
    things = table("stories")
    owned = rng.sample(things["object_nouns"], 3)
    if rng.random() < 0.4:
        owned = [f"{rng.choice(things['object_adjectives'])} {each}" for each in owned]
    text = " ".join(say(rng, "{n} has a {o}.", n=n, o=o) for n, o in zip(names, owned, strict=True))
    i = rng.randrange(3)
    if rng.random() < 0.5:
        return text, f"Who has the {owned[i]}?", f"{names[i]} has the {owned[i]}."
    return text, f"What does {names[i]} have?", say(rng, "{n} has a {o}.", n=names[i], o=owned[i])


def who_went(rng: Random, names: list[str]) -> Reading:
    places = rng.sample(PLACES, 3)
    text = " ".join(f"{n} went to the {p}." for n, p in zip(names, places, strict=True))
    i = rng.randrange(3)
    if rng.random() < 0.5:
        return text, f"Where did {names[i]} go?", f"{names[i]} went to the {places[i]}."
    now = rng.choice(places)
    at = "at" if now in AT_PLACES else "in"
    text += f" Then {names[i]} went to the {now}."
    return text, f"Where is {names[i]} now?", f"{names[i]} is {at} the {now}."


def who_is_old(rng: Random, names: list[str]) -> Reading:
    ages = rng.sample(range(5, 60), 3)
    text = " ".join(f"{n} is {a} years old." for n, a in zip(names, ages, strict=True))
    i, pick = rng.randrange(3), rng.random()
    if pick < 0.35:
        return text, f"How old is {names[i]}?", f"{names[i]} is {ages[i]} years old."
    word, age = ("oldest", max(ages)) if pick < 0.7 else ("youngest", min(ages))
    return text, f"Who is the {word}?", f"{names[ages.index(age)]} is the {word}."


def which_color(rng: Random, names: list[str]) -> Reading:
    things, colors = rng.sample(table("stories")["object_nouns"], len(names)), rng.sample(COLORS, 3)
    text = " ".join(f"The {o} is {c}." for o, c in zip(things, colors, strict=True))
    i = rng.randrange(3)
    question = (
        f"What color is the {things[i]}?" if rng.random() < 0.6 else f"Which thing is {colors[i]}?"
    )
    return text, question, f"The {things[i]} is {colors[i]}."


def follow_up(rng: Random) -> list[Turn]:
    """A turn that can only be answered by looking at the one before it."""
    pick = rng.randrange(4)
    if pick == 0:
        ((asked, text),) = _single(rng, texts.explain)
        shorter = "[Make it shorter.|Say it in one sentence.|Can you make that shorter?|Shorter, please.|tl;dr]"
        return [(asked, text), (say(rng, shorter), texts.sentences(text)[0])]
    if pick == 3:
        return texts.more_of_a_list(rng)
    makers: Any = (
        knowledge.question,
        texts.explain,
        knowledge.animal,
        knowledge.opposite,
        exercise,
    )
    ((asked, text),) = _single(rng, rng.choice(makers))
    if pick == 1:
        again = (
            "[Say that again.|Can you repeat that?|Repeat your answer, please.|What did you say?]"
        )
        return [(asked, text), (say(rng, again), text)]
    back = "[What did I ask you?|What was my last question?|What was my question?]"
    return [(asked, text), (say(rng, back), f'You asked: "{asked}"')]


def _single(rng: Random, make: Callable[[Random], list[Turn]]) -> list[Turn]:
    return make(rng)[:1]
