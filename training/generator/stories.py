"""Short stories from plots, with heroes, friends and things that hardly ever meet twice.

A story is told in paragraphs, may be asked about afterwards, and never repeats itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random
from typing import Any

from training.generator.grammar import Turn, capital, choose_words, say, table
from training.generator.words import invented

SHE, HE = ("she", "her", "her"), ("he", "him", "his")
FEMALE = frozenset(("princess", "queen", "mermaid", "witch", "fairy", "girl"))
MALE = frozenset(("prince", "king", "wizard", "cowboy", "fisherman", "boy"))

REQUESTS = (
    "[Tell me|tell me|Write|Please tell me|Can you tell me|Could you write|I want|I would like|Please write|Give me|Make up|Let me hear|Share|Create|Think of|Start|Read me] [a|a|a|a short|a little|a nice|a new|a funny|one] [story|story|story|story|fairy tale|bedtime story|tale] {about}",
    "[Write|Tell] me [a|a short] story {about}", "Tell me a story {about}", "Tell me a story {about}",
    "[Do you know|Have you got|Is there] a story {about}", "How about a story {about}",
    "[My children want|My daughter would like|We want] a story {about}", "[Story|Tale|A story|A tale], please: {topic}",
    "[I would love|I feel like hearing|I am waiting for|We all want|Now I need|My son asks for] [a|a short|a little|a nice] [story|tale|fairy tale|bedtime story] {about}",
    "[Invent|Make up|Think up|Come up with|Compose|Write down] [a|a short|some|a little|one] [story|tale|adventure|fairy tale] [about|for|around|on] {topic}", "[Amuse|Surprise|Delight|Cheer up] me with [a story|a tale|an adventure] {about}",
    "[It is late|I am in bed|The children are tired|We are bored|It is raining outside]. [Tell us|Tell me|How about|Could we have] [a story|a tale|a short story] {about}", "[May|Can|Could] [I|we] [hear|get|have] [a story|a tale|something] {about}",
    "[A story|A tale|An adventure|Something] {about}, [please|if you can|would you]", "[Let|Make] {topic} be the hero of [a story|your story|a tale]", "[Put|Use] {topic} in a [short |]story", "Once upon a time there was {topic}. Go on",
    "What [story|tale] do you know {about}", "[Short|Funny|Happy|Sweet|Quick] story {about}", "[The hero|The main person] of your story is {topic}. Begin",
    "I am in the mood for a story {about}", "What happens to {topic}? Tell me a story", "Tell {about}, as a story",
)  # fmt: skip
ABOUT = "[about|about|about|about|of|with|that has|starring] {topic}"
BARE_REQUESTS = (
    "Tell me a story[.|]", "tell me a story", "Write a short story.", "Tell me a bedtime story.", "A story, please.",
    "[I want|I would like] to hear a story.", "Do you know any stories?", "[Story|Story time]!", "Can you tell stories? Tell one.",
    "[Read me|Invent|Make up] [a story|something].", "I cannot sleep. Tell me a story.", "Please tell me any story you like.",
    "Let us have a story.", "[Another|One more] story, please.", "Surprise me with a story.",
)  # fmt: skip
OPENERS = ("Here is a story for you.", "Of course! Here is a story.", "Sure!", "Here is one.")


@dataclass(slots=True)
class Story:
    text: str
    plot: dict[str, Any]
    slots: dict[str, str]

    def has(self, slot: str) -> bool:
        return re.search(rf"\b{re.escape(self.slots.get(slot, ' '))}\b", self.text) is not None


def thing(rng: Random) -> str:
    texts = table("stories")
    if rng.random() < 0.6:
        return f"{rng.choice(texts['object_adjectives'])} {rng.choice(texts['object_nouns'])}"
    return str(rng.choice(texts["objects"]))


def hero(rng: Random) -> tuple[str, str, tuple[str, str, str]]:
    """What the hero is, its name, and its pronouns."""
    texts, words, pick = table("stories"), table("words"), rng.random()
    is_she = rng.random() < 0.5
    if pick < 0.14:
        sort = rng.choice(texts["roles"])
        is_she = sort in FEMALE or (is_she and sort not in MALE)
    elif pick < 0.55:
        sort = rng.choice(texts["animals"])
    elif pick < 0.68:
        sort = thing(rng)
    else:
        sort = "girl" if is_she else "boy"
    return sort, hero_name(rng, words, is_she=is_she, sort=sort), SHE if is_she else HE


def hero_name(rng: Random, words: dict[str, list[str]], *, is_she: bool, sort: str) -> str:
    if rng.random() < 0.15:
        return invented(rng)
    people = words["girls"] if is_she else words["boys"]
    return rng.choice(people if sort in ("girl", "boy") else people[:40] + words["pet_names"])


def cast(rng: Random) -> dict[str, str]:
    """The slots that all plots share."""
    texts, words = table("stories"), table("words")
    sort, name, (he, him, his) = hero(rng)
    friend_sort = rng.choice([each for each in texts["animals"] if each != sort])
    fhe, fhim, fhis = rng.choice((SHE, HE))
    friend = hero_name(rng, words, is_she=fhe == "she", sort=friend_sort)
    while friend == name:
        friend = invented(rng)
    food = rng.choice(texts["foods"])
    is_many = food.endswith("s")
    weather = rng.choice(texts["weather"])
    return {
        "sp": sort, "name": name, "he": he, "him": him, "his": his, "fsp": friend_sort,
        "fname": friend, "fhe": fhe, "fhim": fhim, "fhis": fhis, "food": food, "obj": thing(rng),
        "it": "They" if is_many else "It", "them": "all of them" if is_many else "all of it",
        "adj": rng.choice(texts["adjectives"]), "place": rng.choice(texts["places"]), "w": weather,
    }  # fmt: skip


def write(rng: Random, plot_name: str | None = None) -> Story:
    texts = table("stories")
    plot = texts["plots"][plot_name or rng.choice(list(texts["plots"]))]
    slots = cast(rng)
    for slot, options in plot["slots"].items():
        slots[slot] = rng.choice(options)
    if "three" in plot:
        slots |= {f"a{i}": each for i, each in enumerate(rng.sample(plot["three"], 3))}
    if "spot" in plot:
        slots["spot"] = slots[f"a{plot['spot']}"]
    lines = [_line(rng, line, slots) for line in (rng.choice(texts["open"]), *plot["lines"])]
    end = _line(rng, rng.choice(texts["end"]), slots)
    if slots["fname"] in end and all(slots["fname"] not in line for line in lines):
        end = ""
    return Story(_paragraphs(rng, lines, end), plot, slots)


def _line(rng: Random, template: str, slots: dict[str, str]) -> str:
    text = say(rng, template, **slots)
    for place in ("farm", "little island", "snowy mountain"):
        text = text.replace(f"in a {place}", f"on a {place}")
    return text


def _paragraphs(rng: Random, lines: list[str], end: str) -> str:
    paragraphs: list[str] = []
    current: list[str] = []
    for line in lines:
        current.append(line)
        if len(current) >= rng.choice((2, 2, 3)):
            paragraphs.append(" ".join(current))
            current = []
    if current:
        paragraphs.append(" ".join(current))
    if end and rng.random() < 0.5:
        paragraphs[-1] += f" {end}"
    elif end:
        paragraphs.append(end)
    return "\n\n".join(paragraphs)


def topics(story: Story) -> list[str]:
    """What somebody may have asked for to get this story."""
    s = story.slots
    found = ["a {sp}", "a {sp}", "a {sp} named {name}", "a {sp} called {name}", story.plot["topic"]]
    found += ["a {adj} {sp}"] if story.has("adj") else []
    if story.has("fname") and story.has("fsp"):
        found += ["a {sp} and a {fsp}", "{name} and {fname}"]
    if story.has("obj"):
        found += ["a {sp} and a {obj}", "a {obj}"]
    found += ["a {sp} in a {place}"] if story.has("place") else []
    found += ["{name} the {sp}", "someone called {name}", "two {sp}s", "three little {sp}s"]
    found += [
        "a {sp} who [is never tired|has a friend|wants to be happy|cannot wait|is new in town|laughs]"
    ]
    found += ["a {sp} and {his} friends", "a little {sp}", "the life of a {sp}", "one {adj} {sp}"]
    return [each.format(**s) for each in found]


def request(rng: Random, story: Story) -> str:
    if rng.random() < 0.15:
        return say(rng, BARE_REQUESTS)
    if rng.random() < 0.04:
        return f"Write a story that teaches this: {story.plot['moral']}."
    topic = choose_words(rng, rng.choice(topics(story)))
    about = say(rng, ABOUT, topic=topic)
    asked = say(rng, REQUESTS, about=about, topic=topic)
    is_question = asked.startswith(("Can", "Could", "Do", "Have", "Is", "How"))
    return asked + rng.choice(("?",) if is_question else (".", ".", ".", "", "!"))


def questions(rng: Random, story: Story) -> list[Turn]:
    """What may be asked about the story, with the answers."""
    s = story.slots
    asked: list[tuple[str, str]] = [
        (
            "[Summarize the story in one sentence.|Summarize the story.|What is the story about?|Can you sum up the story?|What happened in the story?|Give me a short summary.]",
            story.plot["summary"],
        ),
        ("What was the name of the {sp}?", "The {sp} was named {name}."),
        (
            "[What is the moral of the story?|What does the story teach us?|What can we learn from this story?]",
            capital(story.plot["moral"]) + ".",
        ),
        ("Who is {name}?", "{name} is the {sp} in the story."),
    ]
    if story.has("fname") and story.has("fsp"):
        asked.append(("Who is {fname}?", "{fname} is a {fsp} in the story."))
        asked.append(("What kind of animal is {fname}?", "{fname} is a {fsp}."))
    if story.has("place"):
        asked.append(("Where did {name} live?", "{name} lived in a {place}."))
    for slot, question, reply in PLOT_QUESTIONS:
        if slot in s:
            asked.append((question, reply))
    return [(say(rng, u, **s), _line(rng, a, s)) for u, a in asked]


PLOT_QUESTIONS = (
    ("spot", "Where was the {obj}?", "The {obj} was {spot}."),
    ("spot", "[What did {name} lose?|What was missing?]", "{name} lost {his} {obj}."),
    ("fear", "What was {name} afraid of?", "{name} was afraid of {fear}."),
    ("broke", "What did {name} break?", "{name} broke the {broke}."),
    ("plant", "What grew from the seed?", "A beautiful {plant} grew from the seed."),
)


def tell(rng: Random) -> list[Turn]:
    story = write(rng)
    opener = f"{rng.choice(OPENERS)}\n\n" if rng.random() < 0.12 else ""
    turns = [(request(rng, story), opener + story.text)]
    if rng.random() < 0.5:
        possible = questions(rng, story)
        turns += rng.sample(possible, min(len(possible), rng.choice((1, 1, 2, 3))))
    if rng.random() < 0.1:
        again = ("Tell me another one.", "Another story, please.", "Tell me another story.")
        turns.append((rng.choice(again), write(rng).text))
    return turns
