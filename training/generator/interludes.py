"""The user tells who they are, hears a story or reads of others, and asks for themselves again.

The names that came in between belong to others: a story's hero, a friend of the hero, somebody in
a text. Both are asked for in one conversation, so that whose name is meant has to be understood.
"""

from __future__ import annotations

from random import Random
from typing import Any

from training.generator import memory, stories
from training.generator.grammar import Turn, say, table
from training.generator.memory import Distract, Fact
from training.generator.revisions import Copying, missed
from training.generator.words import name, value

HERO_QUESTIONS = (
    "[What was|What is|Tell me] the [hero's|main character's|hero's first] name[?|, please.]", "[Who|Which person] is the story about?",
    "What was the [name of the|] hero [of the story|in the story|of your story] called?", "[And|So|Now] the {sp}[ in the story|]? What was [his|her|the] name?",
    "What is the {sp} called?", "How is the {sp} [in your story|in the story] called?", "Who was the {sp}?", "Name the hero of [the|your] story.",
    "What was the name of the {sp}?", "Which name has the {sp}?", "Do you remember the name of the {sp}?", "The {sp}'s name?",
    "The main character, what was the name?", "[Who|Which one] was the main character?", "And what is the name of the {sp} from [the|your] story?",
)  # fmt: skip
HERO_REPLIES = (
    "The {sp} was named {name}.", "The {sp} in the story is called {name}.", "The story is about {name} the {sp}.",
    "{name} is the {sp} in the story.", "In the story, the {sp} is called {name}.", "The hero of the story is {name}.",
)  # fmt: skip
CONTRAST = (
    "[I mean|No, I mean|I meant|But I mean|Not the story.|Not the hero.|Not in the story.|Forget the story.|Back to me.|Away from the story.|Enough of the story.|Now to me.|That was the hero, now me.|Leave the {sp} aside.] {q}",
    "{q} [I mean me, not the {sp}.|Not the {sp}'s, mine.|I do not mean the hero.|Me, not the story.|Not {name}, me.]",
)  # fmt: skip
IS_IT_ME = (
    "Am I {name}?", "Is my name {name}?", "So am I called {name}?", "Is {name} my name?", "Am I the {sp}?",
    "Was the story about me?", "Is the {sp} called {v}?", "Is {v} the {sp}?",
)  # fmt: skip
NOT_ME = (
    "No, {name} is the {sp} in the story. Your name is {v}.", "No. Your name is {v}, and {name} is the {sp} in the story.",
    "No, you are {v}. {name} is the {sp} in the story.",
)  # fmt: skip
THANKS = (
    ("[Nice story|What a nice story|That was lovely|Thank you|Thanks, I liked it|Good story|Cute|Wow|Not bad|A bit short, but nice|I liked that one][.|!]",
     "[Thank you!|I am glad you liked it.|I am happy to hear that.|You are welcome!] [Would you like another one?|What would you like to do next?|]"),
    ("[I do not like the end|That was too short|Not my kind of story|I know that one|Boring][.|!]",
     "[I am sorry.|That is a pity.|I see.] [I can tell another one.|Maybe the next one is better.|Shall I try again?]"),
)  # fmt: skip


def after_story(rng: Random, distract: Distract) -> Copying:
    """One to four facts, a story or two, and questions for both."""
    facts = about_the_user(rng)
    turns = memory.telling(rng, facts, distract)
    for _ in range(rng.choice((0, 0, 0, 1, 2, 4))):
        turns += memory.elsewhere(rng, facts, distract)
    told = [_story(rng, facts) for _ in range(rng.choice((1, 1, 1, 2)))]
    for story in told:
        turns.append((stories.request(rng, story), story.text))
        if rng.random() < 0.35:
            turns.append(_remark(rng))
        if rng.random() < 0.35:
            turns.append(rng.choice(stories.questions(rng, story)))
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        turns += memory.elsewhere(rng, facts, distract)
    turns += mixed_questions(rng, facts, told[-1])
    return turns, [fact.value for fact in facts] + [told[-1].slots["name"]]


def about_the_user(rng: Random) -> list[Fact]:
    facts = [memory.make_fact(rng, "name")] if rng.random() < 0.9 else []
    for kind in rng.sample(
        ("place", "pet", "colour", "relative", "age", "job", "food"), rng.choice((0, 0, 1, 2, 3))
    ):
        facts.append(memory.make_fact(rng, kind))
    facts = facts or [memory.make_fact(rng, "pet")]
    rng.shuffle(facts)
    return facts


def _story(rng: Random, facts: list[Fact]) -> stories.Story:
    taken = {fact.value.casefold() for fact in facts}
    while True:
        story = stories.write(rng)
        if not taken & {story.slots["name"].casefold(), story.slots["fname"].casefold()}:
            return story


def _remark(rng: Random) -> Turn:
    said, reply = rng.choice(THANKS)
    return say(rng, said), say(rng, reply)


def mixed_questions(rng: Random, facts: list[Fact], story: stories.Story) -> list[Turn]:
    """All facts in any order, the hero's name among them in half of the cases."""
    s = story.slots
    asked: list[Turn] = []
    for fact in facts:
        question = memory.ask(rng, fact)
        if rng.random() < 0.15:
            question = say(rng, CONTRAST, q=question, sp=s["sp"], name=s["name"])
        asked.append((question, memory.answer(rng, fact)))
    if rng.random() < 0.6:
        slots = {"sp": s["sp"], "name": s["name"]}
        asked.append((say(rng, HERO_QUESTIONS, **slots), say(rng, HERO_REPLIES, **slots)))
    names = [fact for fact in facts if fact.kind == "name"]
    if names and rng.random() < 0.2:
        slots = {"sp": s["sp"], "name": s["name"], "v": names[0].value}
        asked.append((say(rng, IS_IT_ME, **slots), say(rng, NOT_ME, **slots)))
    if not names and rng.random() < 0.5:
        # A story's hero has a name; the user's was not told.
        unknown = memory.make_fact(rng, "name")
        asked.append(
            (memory.ask(rng, unknown), say(rng, table("memory")["unknown"], n="your name"))
        )
    rng.shuffle(asked)
    if rng.random() < 0.15:
        asked.insert(rng.randrange(len(asked) + 1), missed(rng, facts))
    return asked


# Two people and what belongs to each; {a} and {b} are told apart by who or what they are to the user.
PAIRS: tuple[dict[str, Any], ...] = (
    {
        "pool": "food",
        "tell": ("brings the {x}", "takes care of the {x}", "is making {x}", "will cook {x}", "orders {x}"),
        "ask": ("What does {w} bring?", "What will {w} [bring|cook|make]?", "What does {w} take care of?", "What is {w} busy with?", "What is {w}'s [task|part|job at the party]?"),
        "reply": ("{W} takes care of the {x}.", "{W} brings the {x}."),
        "who": ("Who [brings|makes] the {x}?", "Who takes care of the {x}?", "Whose task is the {x}?"),
    },
    {
        "pool": "owned_thing",
        "tell": ("repairs {x}s", "sells {x}s", "makes {x}s", "collects {x}s", "paints {x}s"),
        "ask": ("What does {w} do with the day?", "How does {w} earn a living?", "What is {w} busy with?", "What is {w}'s business?", "What does {w} work with?"),
        "reply": ("{W} works with {x}s.", "With {x}s."),
        "who": ("Who works with {x}s?", "Who has to do with {x}s?", "Which of the two has {x}s?"),
    },
    {
        "pool": "language",
        "tell": ("studies {x}", "speaks {x}", "teaches {x}", "is learning {x}"),
        "ask": ("What does {w} study?", "Which language is it with {w}?", "What language does {w} speak?", "Which subject does {w} have?"),
        "reply": ("{W} knows {x}.", "It is {x}."),
        "who": ("Who has to do with {x}?", "Who knows {x}?", "Which one speaks {x}?"),
    },
    {
        "pool": "day",
        "tell": ("comes on {x}", "arrives on {x}", "has a day off on {x}", "has a birthday on {x}"),
        "ask": ("When does {w} come?", "On which day is it for {w}?", "What day is it for {w}?", "Which day belongs to {w}?"),
        "reply": ("For {w} it is {x}.", "On {x}."),
        "who": ("For whom is it {x}?", "Who has {x}?", "Who is it on {x}?"),
    },
    {
        "pool": "animal",
        "tell": ("adores {x}s", "is afraid of {x}s", "draws {x}s", "dreams of {x}s"),
        "ask": ("What does {w} [adore|dream of|draw]?", "Which animal is it with {w}?", "What animal belongs to {w}?"),
        "reply": ("With {w} it is {x}s.", "{X}s."),
        "who": ("Who is it with the {x}s?", "Who has to do with {x}s?"),
    },
    {
        "pool": "spot",
        "tell": ("is {x}", "sleeps {x}", "waits {x}", "left the keys {x}"),
        "ask": ("Where is {w}?", "Where do I find {w}?", "Which place is it for {w}?"),
        "reply": ("For {w} it is {x}.", "{X}."),
        "who": ("Who is {x}?", "Who is it {x}?"),
    },
    {"pool": "place", "tell": ("[lives|works|grew up|has a house] in {x}", "is from {x}", "moved to {x}"), "ask": ("Where does {w} live?", "In which city is {w}?", "[What is the home of|Where can I find] {w}?", "{W} is from where?"), "reply": ("{W} lives in {x}.", "{W} is in {x}."), "who": ("Who lives in {x}?", "Who is in {x}?", "Which of them is from {x}?")},
    {"pool": "job", "tell": ("is a {x}", "works as a {x}", "became a {x}", "earns money as a {x}"), "ask": ("What does {w} do?", "What is {w}'s job?", "What does {w} work as?", "What is the job of {w}?"), "reply": ("{W} is a {x}.", "{W} works as a {x}."), "who": ("Who is the {x}?", "Who works as a {x}?", "Which of them is a {x}?")},
    {"pool": "food", "tell": ("likes {x}", "loves {x}", "eats {x}", "is fond of {x}"), "ask": ("What does {w} like?", "What does {w} eat?", "Which food is for {w}?", "What should I cook for {w}?"), "reply": ("{W} likes {x}.",), "who": ("Who likes {x}?", "Who eats {x}?", "Which of them wants {x}?")},
    {"pool": "age", "tell": ("is {x} years old", "is {x}", "turned {x}"), "ask": ("What age is {w}?", "What is {w}'s age?", "What is the age of {w}?"), "reply": ("{W} is {x} years old.",), "who": ("Who is {x} years old?", "Who is {x}?")},
    {"pool": "colour", "tell": ("likes {x}", "wears {x}", "always picks {x}"), "ask": ("Which color does {w} like?", "What is {w}'s favorite color?", "What color is it for {w}?"), "reply": ("{W} likes {x}.",), "who": ("Who likes {x}?", "Who picks {x}?")},
    {"pool": "instrument", "tell": ("plays the {x}", "is learning the {x}"), "ask": ("What does {w} play?", "Which instrument does {w} play?"), "reply": ("{W} plays the {x}.",), "who": ("Who plays the {x}?",)},
    {"pool": "petname", "tell": ("has a dog called {x}", "has a cat named {x}", "owns a pony, {x}"), "ask": ("What is the name of {w}'s pet?", "What is {w}'s animal called?"), "reply": ("{W}'s pet is called {x}.",), "who": ("Whose pet is {x}?", "Who has {x}?")},
    {"pool": "owned_thing", "tell": ("wants a {x}", "needs a {x}", "lost a {x}"), "ask": ("What about {w}, what was it?", "What was it with {w}?", "Which thing was it for {w}?"), "reply": ("For {w} it is a {x}.",), "who": ("Who was it with the {x}?",)},
)  # fmt: skip


def two_people(rng: Random, distract: Distract) -> Copying:
    """Relatives, friends or strangers with names; then who is what, and what who is."""
    pair, count = rng.choice(PAIRS), rng.choice((2, 2, 2, 3))
    relatives = rng.sample(table("words")["relatives"], count)
    names: list[str] = []
    while len(names) < count:
        if (made := name(rng)) not in names:
            names.append(made)
    values: list[str] = []
    while len(values) < count:
        made = value(rng, pair["pool"])
        if made not in values and made not in names:
            values.append(made)
    style = rng.random()  # only the relation, only the name, or both
    clauses = []
    for relative, person, x in zip(relatives, names, values, strict=True):
        who = (
            f"my {relative}"
            if style < 0.3
            else person
            if style < 0.55
            else rng.choice((f"my {relative} {person}", f"my {relative}, {person},"))
        )
        clauses.append(f"{who} {say(rng, rng.choice(pair['tell']), x=x)}")
    told = memory.in_one(rng, [each[:1].upper() + each[1:] + "." for each in clauses])
    turns = [(told, say(rng, table("memory")["ack"]))]
    for _ in range(rng.choice((0, 0, 0, 0, 1, 2, 4))):
        turns += distract(rng)
    order = rng.sample(range(count), count)
    if style < 0.3 and rng.random() < 0.5:
        turns.append(_stranger(rng, pair, relatives))
    for i in order:
        turns.append(_about(rng, pair, i, relatives, names, values, style))
    kept = [*values, *(names if style >= 0.3 else [])]
    return turns, kept


def _stranger(rng: Random, pair: dict[str, Any], relatives: list[str]) -> Turn:
    """The same question for somebody of whom nothing was told."""
    other = rng.choice([each for each in table("words")["relatives"] if each not in relatives])
    reply = (
        "[I do not know.|I do not know that.|Sorry, I do not know.]"
        " You have not told me about your {o}[, only about your {k}|]."
    )
    return say(rng, pair["ask"], w=f"my {other}"), say(rng, reply, o=other, k=relatives[0])


def _about(
    rng: Random,
    pair: dict[str, Any],
    i: int,
    relatives: list[str],
    names: list[str],
    values: list[str],
    style: float,
) -> Turn:
    mine, yours = f"my {relatives[i]}", f"your {relatives[i]}"
    if style >= 0.55 and rng.random() < 0.35:
        asked = say(rng, "[What is|Tell me|What was] {m}'s name?", m=mine)
        if rng.random() < 0.5:
            return say(rng, "Who is {n}?", n=names[i]), f"{names[i]} is {yours}."
        return asked, say(rng, "[{Y} is called {n}.|{Y}'s name is {n}.]", y=yours, n=names[i])
    by_name = 0.3 <= style < 0.55 or (style >= 0.55 and rng.random() < 0.5)
    who, answered = (names[i], names[i]) if by_name else (mine, yours)
    if rng.random() < 0.35:
        asked = say(rng, pair["who"], x=values[i])
        named = [reply for reply in pair["reply"] if "{w}" in reply.casefold()]
        return asked, say(rng, named, w=answered, x=values[i])
    return say(rng, pair["ask"], w=who), say(rng, pair["reply"], w=answered, x=values[i])
