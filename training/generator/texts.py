"""Explanations, advice, people, recipes, jokes, riddles, poems and lists."""

from __future__ import annotations

import re
from random import Random
from typing import Any

from training.generator.grammar import Turn, and_join, capital, say, table
from training.generator.phrasing import ask_for

COUNT_WORDS = "zero one two three four five six seven eight nine ten".split()
PLURAL_TOPICS = frozenset(("the seasons", "day and night", "the lungs", "bones"))
WORKING = frozenset(
    ("gravity", "photosynthesis", "electricity", "the heart", "the brain", "a magnet", "recycling")
)
AS_QUESTION = {
    "why the sky is blue": "Why is the sky blue?", "why leaves change color": "Why do leaves change color?",
    "why we sleep": "Why do we sleep?", "why we eat": "Why do we eat?",
    "why fish can live in water": "How do fish breathe under water?", "how birds fly": "How do birds fly?",
    "how plants grow": "How do plants grow?", "how bees make honey": "How do bees make honey?",
    "how bread is made": "How is bread made?", "how a seed becomes a plant": "How does a seed become a plant?",
    "how a caterpillar becomes a butterfly": "How does a caterpillar become a butterfly?",
}  # fmt: skip


def texts() -> Any:
    return table("texts")


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?]) ", text)


def explain(rng: Random) -> list[Turn]:
    topic = rng.choice(list(texts()["explain"]))
    text = texts()["explain"][topic]
    asked = explanation_question(rng, topic)
    first, *rest = sentences(text)
    if rest and rng.random() < 0.25:
        wish = rng.choice(("Answer in one sentence.", "One sentence, please.", "Keep it short."))
        return [(f"{asked} {wish}", first)]
    return [(asked, text)]


def explanation_question(rng: Random, topic: str) -> str:
    if topic == "offline":
        return "What does offline mean?"
    if topic in AS_QUESTION:
        direct = ("Can you explain {k}?", "Explain {k}.", "Tell me {k}.", AS_QUESTION[topic])
        return ask_for(rng, direct, (), ("{k}",), k=topic)
    be = "are" if topic in PLURAL_TOPICS else "is"
    asked = (
        f"What {be} {{k}}?", f"what {be} {{k}}", "Explain {k} in simple words.", "Can you explain {k}?",
        "Tell me about {k}.", f"Explain what {{k}} {be} to a child.", f"Can you tell me what {{k}} {be}?",
        "How does {k} work?" if topic in WORKING else f"What {be} {{k}}?",
    )  # fmt: skip
    return ask_for(rng, asked, (), (f"what {{k}} {be}",), k=topic)


def person(rng: Random) -> list[Turn]:
    name = rng.choice(list(texts()["people"]))
    text = texts()["people"][name]
    is_figure = " is a " in text.split(".")[0]
    be = "were" if name.startswith("The ") else "is" if is_figure else "was"
    shown = f"the{name[3:]}" if name.startswith("The ") else name
    asked = (
        f"Who {be} {{k}}?",
        f"who {be} {{k}}?",
        "Tell me about {k}.",
        "What do you know about {k}?",
    )
    if rng.random() < 0.2:
        return [(f"{say(rng, asked, k=shown)} One sentence, please.", sentences(text)[0])]
    return [(ask_for(rng, asked, (), (f"who {shown} {be}",), k=shown), text)]


def advice(rng: Random) -> list[Turn]:
    aim = rng.choice(list(texts()["advice"]))
    count = rng.choice((2, 3, 3, 4))
    tips = rng.sample(texts()["advice"][aim], count)
    asked = (
        "How can I {k}?", "how do I {k}", "Give me some tips to {k}.", "I want to {k}. What should I do?",
        f"Give me {COUNT_WORDS[count]} tips to {{k}}.", "What is a good way to {k}?",
        "Do you have advice on how to {k}?", "Help me to {k}.",
    )  # fmt: skip
    if rng.random() < 0.6:
        head = rng.choice(("Here are some tips:", "Here are a few ideas:", "You can try this:"))
        return [(say(rng, asked, k=aim), f"{head}\n{numbered(tips)}")]
    return [(say(rng, asked, k=aim), " ".join(tips))]


def numbered(items: list[str]) -> str:
    return "\n".join(f"{i}. {item}" for i, item in enumerate(items, start=1))


def recipe(rng: Random) -> list[Turn]:
    dish = rng.choice(list(texts()["recipes"]))
    asked = (
        "How do I make {k}?",
        "how to make {k}",
        "Tell me how to make {k}.",
        "Give me a simple recipe for {k}.",
        "I want to make {k}.",
    )
    return [(say(rng, asked, k=dish), numbered(texts()["recipes"][dish]))]


def fun(rng: Random) -> list[Turn]:
    return rng.choices((joke, riddle, fun_fact), (45, 25, 30))[0](rng)


def joke(rng: Random) -> list[Turn]:
    setup, point = rng.choice(texts()["jokes"])
    asked = say(
        rng,
        "[Tell me a joke.|tell me a joke|Do you know a joke?|Make me laugh.|Can you tell me a joke?|Say something funny.]",
    )
    if rng.random() < 0.6:
        return [(asked, f"{setup} {point}")]
    back = "Why?" if setup.startswith("Why") else "What?"
    return [
        (asked, setup),
        (rng.choice(("I don't know.", "I don't know, tell me", back, "no idea")), point),
    ]


def riddle(rng: Random) -> list[Turn]:
    question, solution = rng.choice(texts()["riddles"])
    asked = say(rng, "[Tell me a riddle.|Give me a riddle.|Do you know a riddle?|riddle please]")
    pick = rng.random()
    if pick < 0.4:
        guess = "[I don't know.|I give up|Tell me the answer.|no idea, what is it?]"
        reply = "The answer is {k}."
    elif pick < 0.7:
        guess, reply = (
            "[Is it {k}?|{K}!|{k}?]",
            "[Yes, that is right! Well done!|That is right!|Yes! You got it!]",
        )
    else:
        guess = "[Is it {w}?|{W}?]"
        reply = "[No, not {w}. The answer is {k}.|Good try, but the answer is {k}.]"
    wrong = rng.choice([other for _, other in texts()["riddles"] if other != solution])
    slots = {"k": solution, "w": wrong}
    return [(asked, question), (say(rng, guess, **slots), say(rng, reply, **slots))]


def fun_fact(rng: Random) -> list[Turn]:
    asked = "[Tell me a fun fact.|tell me something interesting|Tell me something I do not know.|Give me a random fact.|Do you know a fun fact?]"
    opener = rng.choice(("Here is one: ", "Did you know? ", ""))
    return [(say(rng, asked), opener + rng.choice(texts()["fun_facts"]))]


def poem(rng: Random) -> list[Turn]:
    topic = rng.choice(list(texts()["poems"]))
    asked = "[Write a short poem about {k}.|Write a poem about {k}.|write me a poem about {k}|Can you write a poem about {k}?|A poem about {k}, please.]"
    return [(say(rng, asked, k=topic), "\n".join(texts()["poems"][topic]))]


def listing(rng: Random) -> list[Turn]:
    lists = table("knowledge")["lists"]
    topic = rng.choice(list(lists))
    count = min(len(lists[topic]), rng.choice((2, 3, 3, 4, 5, 5)))
    items = rng.sample(lists[topic], count)
    shown = rng.choice((COUNT_WORDS[count], str(count)))
    asked = say(rng, "[Name|List|Give me|Can you name|name|Tell me] {n} {k}", n=shown, k=topic)
    end = "?" if asked.startswith("Can") else rng.choice((".", ".", ""))
    return [(asked + end, _list_text(rng, topic, items))]


def _list_text(rng: Random, topic: str, items: list[str]) -> str:
    pick = rng.random()
    if pick < 0.45:
        return numbered([capital(item) for item in items])
    if pick < 0.6:
        return "\n".join(f"- {capital(item)}" for item in items)
    return f"{capital(COUNT_WORDS[len(items)])} {topic} are {and_join(items)}."


def more_of_a_list(rng: Random) -> list[Turn]:
    lists = table("knowledge")["lists"]
    topic = rng.choice(
        (
            "animals",
            "fruits",
            "countries",
            "sports",
            "colors",
            "jobs",
            "birds",
            "flowers",
            "vegetables",
            "hobbies",
        )
    )
    items, first = rng.sample(lists[topic], 5), rng.randrange(2, 4)
    more = say(rng, "[Name|Give me] {n} more.", n=COUNT_WORDS[5 - first])
    return [
        (f"Name {COUNT_WORDS[first]} {topic}.", f"{capital(and_join(items[:first]))}."),
        (more, f"{capital(and_join(items[first:]))}."),
    ]
