"""Countries, their capitals and their continents (CIA World Factbook, CC0), in many wordings."""

from __future__ import annotations

from random import Random

from training.generator.grammar import Turn, capital, say, table
from training.generator.phrasing import ask_for

CAPITAL_QUESTIONS = (
    "What is the capital of {c}?", "What is the capital of {c}?", "what is the capital of {c}",
    "What's the capital city of {c}?", "Tell me the capital of {c}.", "capital of {c}?", "Capital of {c}",
    "What is the capital city of {c}?", "Which city is the capital of {c}?", "What city is the capital of {c}?",
    "{c} has which capital?", "What capital does {c} have?", "The capital of {c} is called what?",
    "How is the capital of {c} called?", "{c}: what is the capital?", "What do they call the capital of {c}?",
    "Which town is {c}'s capital?", "{c}'s capital is what?", "Where does the government of {c} sit?",
    "If I visit the capital of {c}, which city do I see?", "I travel to {c}. What is the capital there?",
    "I know {c}, but what is its capital?", "My friend is from {c}. What is the capital of that country?",
    "In {c}, which city is the capital?", "Capital city, {c}?", "Find the capital of {c}.",
    "[Name|Give|State|Say] {c}'s capital[ city|].", "Which [city|town|place] [is|counts as|acts as|has the role of] the capital [in|of|for] {c}?",
    "[Which|What] city [rules|governs|leads|stands at the head of] {c}?", "{c} - [capital|capital city][?|]", "What [city|town] do [people in|they in|the maps of] {c} [call|mark as] the capital?",
    "[Could|Can|Would|Will] you [name|give me|remind me of] the capital [city |]of {c}?", "For a [quiz|puzzle|game|test] I need {c}'s [main city|capital].",
    "[I forgot|I cannot recall|I never learned] the capital of {c}. [Which is it|What is it|Help me]?", "The [king|president|parliament|minister] of {c} works in which [city|capital]?",
    "[Country|A country]: {c}. [Capital|Its capital]?", "If {c} is the country, what is the capital?", "{c}, and [its|the] capital [is|would be|is called]?",
    "Which capital [belongs to|goes with|has|fits] {c}?", "My [map|book|quiz] says {c}. [Capital|Which capital|What is the capital]?", "What is the most important city, the capital, of {c}?",
    "What would you write as the capital of {c}?", "Spell out the capital of {c}.",
)  # fmt: skip
CAPITAL_NOUNS = (
    "the capital of {c}", "the capital city of {c}", "{c}'s capital city", "the name of {c}'s capital",
    "the name of the capital of {c}", "the main capital in {c}", "the capital that {c} has",
)  # fmt: skip
CAPITAL_CLAUSES = (
    "what the capital of {c} is", "which city is the capital of {c}", "what {c}'s capital is called",
    "how the capital of {c} is called", "which capital {c} has", "what the capital city of {c} is",
    "the capital of {c}",
)  # fmt: skip
PLACE_QUESTIONS = (
    "Where is {c}?", "Which continent is {c} in?", "In what part of the world is {c}?", "where is {c}",
    "On which continent is {c}?", "What continent is {c} on?", "To which continent does {c} belong?",
    "What continent does {c} belong to?", "In which part of the world does {c} lie?", "Where does {c} lie?",
    "Where in the world is {c}?", "Where on the map is {c}?", "On what continent does {c} lie?",
    "{c} is on which continent?", "{c} lies on what continent?", "{c}: which continent?",
    "Where do I find {c} on a map?", "If I fly to {c}, which continent do I land on?",
    "A friend moved to {c}. On which continent does she live now?", "In which region is {c}?",
    "What part of the earth is {c} in?", "Which continent has {c} in it?", "Where would you look for {c}?",
    "[Name|Give|State|Say] {c}'s [continent|part of the world].", "[Which|What] [part of the world|continent|region of the earth|corner of the globe] [has|holds|contains|is home to] {c}?",
    "[Could|Can|Would] you [name|tell me] the continent [of|for|with] {c}?", "{c} [can be found|is found|is located|is situated|sits|belongs] [where|on which continent|in what part of the world]?",
    "I [look at|turn|spin] [a|the|my] [globe|world map]. Where [is|do I see|will I see] {c}?", "[I am going|I want to go|We travel|We fly] to {c}. [Which continent is that|What continent will that be|Where is that]?",
    "[Is|Tell me, is] {c} in Europe, [in Asia,|in Africa,] or [somewhere else|where]?", "{c} - [continent|which continent|what continent|where is it][?|]", "[Country|A country]: {c}. [Continent|Its continent|Where]?",
    "On a map of the world, where [is|would] {c}[ be|]?", "Which continent [do I think of with|goes with|do you name for] {c}?",
    "People in {c} live on which continent?", "The country {c} is part of which continent?",
)  # fmt: skip
PLACE_NOUNS = (
    "the continent {c} is on", "the continent that {c} lies in", "{c}'s continent", "the place of {c} on the map",
    "the part of the world where {c} is",
)  # fmt: skip
PLACE_CLAUSES = (
    "where {c} is", "which continent {c} is on", "on which continent {c} lies", "where {c} lies",
    "in which part of the world {c} is", "what continent {c} belongs to", "where in the world {c} is",
)  # fmt: skip
LARGE = frozenset(
    ("China", "India", "Brazil", "the United States", "Canada", "Australia", "Russia", "Argentina")
)
PLURAL = ("States", "Netherlands", "Philippines")


def capital_of(rng: Random) -> list[Turn]:
    country, fact = _country(rng)
    city = fact["capital"]
    if rng.random() < 0.1:
        asked = ("{v} is the capital of which country?", "Which country has {v} as its capital?")
        return [(say(rng, asked, v=city), f"{city} is the capital of {country}.")]
    asked_text = ask_for(rng, CAPITAL_QUESTIONS, CAPITAL_NOUNS, CAPITAL_CLAUSES, c=country)
    replies = (
        "The capital of {c} is {v}.",
        "The capital of {c} is {v}.",
        "{v} is the capital of {c}.",
    )
    return [(capital(asked_text), say(rng, replies, c=country, v=city))]


def continent_of(rng: Random) -> list[Turn]:
    country, fact = _country(rng)
    asked = ask_for(rng, PLACE_QUESTIONS, PLACE_NOUNS, PLACE_CLAUSES, c=country)
    return [(capital(asked), capital(f"{country} is in {fact['cont']}."))]


def portrait(rng: Random) -> list[Turn]:
    country, fact = _country(rng)
    kind = rng.choice(("country", "large country")) if country in LARGE else "country"
    owner = "The" if country.endswith(PLURAL) else "Its"
    asked = say(rng, "[Tell me about|What is|What do you know about|tell me about] {c}", c=country)
    end = "?" if asked.startswith("What") else "."
    said = f"{country} is a {kind} in {fact['cont']}. {owner} capital is {fact['capital']}."
    return [(asked + end, capital(said))]


def question(rng: Random) -> list[Turn]:
    return rng.choices((capital_of, continent_of, portrait), (55, 38, 7))[0](rng)


def _country(rng: Random) -> tuple[str, dict[str, str]]:
    countries = table("countries")
    country = rng.choice(list(countries))
    return country, countries[country]
