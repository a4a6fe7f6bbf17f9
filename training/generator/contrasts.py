"""Told of one and asked for another, in the same shape: only the key decides.

As many questions are for what was told as for what was not: the dog's name was told and the cat's
is asked for; the brother's, and the sister's; the friend's town, and the user's; the dog's name,
and its age. Both are asked in the same words, so no wording gives the answer away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from training.generator import memory, revisions
from training.generator.grammar import Turn, say
from training.generator.memory import Distract, Fact
from training.generator.revisions import Copying
from training.generator.words import value

# Kinds that are told of one key and may be asked of another.
KEYED = (
    "pet", "pet", "pet", "pet", "relative", "relative", "relative", "relative", "thing_colour",
    "thing_place", "day", "thing_name", "relative_place", "relative_likes", "relative_colour",
    "relative_pet", "relative_job", "relative_instrument", "called_by", "kept_in", "bought_in",
    "written_on", "gift", "team",
)  # fmt: skip
# What else may be asked of the same key, by what it is.
OF_A_PET = (
    "[How old is|What is the age of] my {k}",
    "[What color|Which color] is my {k}",
    "[What|Which food] does my {k} [eat|like best]",
    "[Where did I get|Where did we find|Where did I buy] my {k}",
    "[How big|How heavy|How tall] is my {k}",
    "[When|On which day] was my {k} born",
    "[Where does|In which place does] my {k} sleep",
    "[Who|Which doctor] looks after my {k}",
    "What is the favorite toy of my {k}",
    "[What breed|What kind] is my {k}",
)
OF_A_RELATIVE = (
    "[How old is|What is the age of] my {k}",
    "[Where does|In which town does] my {k} live",
    "What [is the job of my {k}|does my {k} do for a living]",
    "[When|On which day] is the birthday of my {k}",
    "What [is my {k}'s phone number|number do I call to reach my {k}]",
    "[What|Which food] does my {k} like to eat",
    "What is the favorite color of my {k}",
    "[Which|What] instrument does my {k} play",
    "[Who|Whom] is my {k} married to",
    "[What car|Which car] does my {k} drive",
    "[How tall|How big] is my {k}",
    "What is my {k}'s [surname|last name|middle name|nickname]",
    "[Which|What] languages does my {k} speak",
    "What is the pet of my {k} called",
)
OF_A_THING = (
    "[How old is|What is the age of] my {k}",
    "[How much|What] did my {k} cost",
    "[Who|Which person] gave me my {k}",
    "[Where did I buy|In which shop did I get] my {k}",
    "What is my {k} made of",
    "[How big|How heavy|How long] is my {k}",
    "[When|In which year] did I get my {k}",
    "[Which|What] brand is my {k}",
)
OF_THE_USER = (
    "[What is|Tell me] my [last name|surname|family name]",
    "[What is|Tell me] my middle name",
    "[When|On which day] is my birthday",
    "[Which|What] shoe size do I have",
    "[Where was I|In which town was I] born",
    "[What is|Which is] my favorite [book|film|song|season|number|flower|fruit|game]",
    "[What|Which] subject did I study",
    "[Who|Which person] is my best friend",
    "[How many|What number of] [brothers|sisters|children|cousins|friends] do I have",
    "[What|Which] car do I drive",
    "[What is|Tell me] my phone number",
    "[In which street|On what street] do I live",
    "[What|Which] school did I go to",
    "[How tall|How heavy] am I",
    "[What is|Tell me] the name of my [boss|teacher|doctor|dentist|neighbor|street|school|boat]",
    "[What|Which] languages do I speak",
    "[Where do|In which office do] I work",
)
TOPICS = {
    "pet": OF_A_PET, "relative": OF_A_RELATIVE, "thing_colour": OF_A_THING, "thing_name": OF_A_THING,
    "relative_pet": OF_A_RELATIVE, "called_by": OF_A_RELATIVE, "written_on": OF_A_THING, "bought_in": OF_A_THING,
}  # fmt: skip
# Words in these questions that a told fact of the same key would answer.
ANSWERED_BY = {
    "thing_colour": ("color",), "relative_place": ("live",), "relative_job": ("job", "living"),
    "relative_likes": ("eat",), "relative_colour": ("color",), "relative_instrument": ("instrument",),
    "relative_pet": ("pet",), "bought_in": ("buy", "shop"), "called_by": ("name",), "gift": ("gave",),
}  # fmt: skip
NOT_TOLD = (
    "[I am sorry, but you|Sorry, you|I am afraid you|You] [have not told me that|did not tell me that|have not mentioned that|have not said that][ yet|].",
    "I do not know that[ yet|]. [You have not told me.|You have not mentioned it.|You have not told me that.|Please tell me!]",
    "I [do not|don't] know that. [You only told me|I only know|I just know] {known}.",
    "You [have not told me|did not tell me] that[ yet|]. [I only know|You only told me|So far I know] {known}.",
)
ENDINGS = ("?", "?", "?", "", "? I forgot.", ", do you know?", "? Do you remember?", "? Tell me.")


def contrast(rng: Random, distract: Distract) -> Copying:
    """One to four facts; then questions of which every second one is for something untold."""
    facts = told(rng)
    turns = memory.telling(rng, facts, distract) + revisions.pause(rng, facts, distract)
    for _ in range(rng.choice((2, 2, 3, 4, 5))):
        if rng.random() < 0.5:
            fact = rng.choice(facts)
            turns.append((memory.ask_by_key(rng, fact), memory.answer(rng, fact)))
        else:
            turns.append(untold(rng, facts))
        if rng.random() < 0.12:
            turns += revisions.pause(rng, facts, distract)[:2]
    return turns, [fact.value for fact in facts]


def told(rng: Random) -> list[Fact]:
    """Facts with keys, at times two of one kind, and some of the user's own."""
    facts = [memory.make_fact(rng, rng.choice(KEYED))]
    while rng.random() < 0.5 and len(facts) < 4:
        pick = rng.random()
        kind = facts[0].kind if pick < 0.35 else rng.choice(KEYED)
        if pick > 0.75:
            kind = rng.choice(revisions.PLAIN)
        other = memory.make_fact(rng, kind)
        if all((other.kind, other.key) != (each.kind, each.key) for each in facts):
            facts.append(other)
    return facts


def untold(rng: Random, facts: list[Fact]) -> Turn:
    """Another key, another thing about the same key, the user's own, or the user's of theirs."""
    pick, near = rng.random(), [fact for fact in facts if fact.key]
    own = [fact for fact in facts if fact.kind in revisions.THEIRS]
    theirs = [fact for fact in facts if fact.kind in OF_THE_USERS]
    if pick < 0.25 and own:
        return revisions.of_somebody(rng, rng.choice(own), facts)
    if pick < 0.5 and theirs:
        turn = _the_users(rng, rng.choice(theirs), facts)
        if turn:
            return turn
    if pick < 0.80 and near:
        return _another_key(rng, rng.choice(near), facts)
    topical = [fact for fact in facts if fact.kind in TOPICS]
    if topical and pick < 0.93:
        return _another_topic(rng, rng.choice(topical), facts)
    return _open_question(rng, OF_THE_USER, "", rng.choice(facts), facts)


OF_THE_USERS = {theirs: own for own, theirs in revisions.THEIRS.items()}


def _another_key(rng: Random, fact: Fact, facts: list[Fact]) -> Turn:
    wording = memory.kinds()[fact.kind]
    keys = {each.key for each in facts if each.kind == fact.kind}
    while True:
        other = replace(fact, key=value(rng, wording["key"]))
        if other.key not in keys:
            break
    nouns = wording.get("noun")
    named = say(rng, nouns, **other.slots) if nouns else None
    return memory.ask_by_key(rng, other), revisions.miss_reply(rng, named, fact)


def _the_users(rng: Random, fact: Fact, facts: list[Fact]) -> Turn | None:
    """Told of somebody near the user, asked of the user."""
    kind = OF_THE_USERS[fact.kind]
    if any(each.kind == kind for each in facts) or "key" in memory.kinds()[kind]:
        return None
    other = memory.make_fact(rng, kind)
    nouns = memory.kinds()[kind].get("noun")
    named = say(rng, nouns, **other.slots) if nouns else None
    return memory.ask_by_key(rng, other), revisions.miss_reply(rng, named, fact)


def _another_topic(rng: Random, fact: Fact, facts: list[Fact]) -> Turn:
    answered = [
        word for each in facts if each.key == fact.key for word in ANSWERED_BY.get(each.kind, ())
    ]
    questions = [q for q in TOPICS[fact.kind] if not any(word in q for word in answered)]
    return _open_question(rng, questions, fact.key, fact)


def _open_question(
    rng: Random, questions: Sequence[str], key: str, told: Fact, facts: Sequence[Fact] = ()
) -> Turn:
    keys = [fact.key for fact in facts if fact.key]
    while True:
        asked = say(rng, questions, k=key)
        if not any(each in asked for each in keys):
            break
    known = revisions.known_as(rng, told)
    return asked + rng.choice(ENDINGS), say(rng, NOT_TOLD, known=known)
