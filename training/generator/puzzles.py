"""Counting and small word problems with results up to 20, days and months on from others, rhymes."""

from __future__ import annotations

from random import Random

from training.generator.arithmetic import ONES, THINGS
from training.generator.grammar import Turn, and_join, capital, say, table
from training.generator.wording import reworded, words_of
from training.generator.words import name

REWORDED = 0.35  # of the word problems

MORE = (
    "A [cook|painter|baker|boy] puts {a} {o} [in a bowl|on a plate|into a basket|in a row] and [then|later] {b} [others|more]. How many {o} [lie there|are in it|is that]?", "{n} [knits|paints|finds|makes] {a} {o} in [spring|May|summer] and {b} in [autumn|June|winter]. How many [{o} |][did {n} make|are that|in all]?",
    "{n} has {a} {o}, {m} {b}. [What|How many] do they have [as two|both|together|when they share]?",
    "{n} has {a} {o}. {m} gives {n} {b} more. How many {o} does {n} have[ now|]?", "I [own|have|hold] {a} {o}[,| and] my [sister|friend|mother] [brings|gives] me {b}. How many [are there|do I have][ now|]?",
    "[On|At] Monday {n} [made|read|sold|ate] {a} {o}, and on Tuesday {b}. How many [in all|together]?", "{a} {o} are in the box. I put {b} more into it. How many are in the box[ now|]?",
    "There are {a} {o} in one [bag|room|row] and {b} in [another|the next]. How many {o} are there [in all|altogether|in total]?", "{n} and {m} [pick|collect|buy] {o}. {n} has {a}, {m} has {b}. How many do they have together?",
    "[If|Suppose] a [child|farmer|cook|teacher] with {a} {o} gets {b} more, how many [are that|does that make|has the child then]?",
    "{n} [planted|hung up|baked|drew] {a} {o} [before|in the morning] and [another|a further] {b} [after lunch|at night|the day after]. [How many did {n} do in all|What is the total]?",
    "[Grandma|The teacher|A neighbor|My uncle] [hands|passes|brings|sends] {n} {b} {o}. {n} already [owns|had|kept] {a}. How many [are there in the end|does {n} end up with]?",
    "The [red|first|left|upper] [drawer|basket|shelf] holds {a} {o}, the [blue|second|right|lower] one holds {b}. How many [do both hold|is it in both|{o} in all]?",
    "A [train|bus|boat] carries {a} people. At the next stop {b} [get in|join|climb aboard]. How many [are on board|people ride] now?",
    "{n} [walked|ran|swam|drove] {a} miles [yesterday|on Monday] and {b} miles [today|on Tuesday]. How [many miles|far] [is that|in total]?",
    "[First|To begin with] {n} sees {a} {o}, [then|a little later] {b} [come along|turn up|arrive|fly in]. How many {o} can {n} see [now|then]?",
    "{n} won {a} {o} in the first game and {b} in the second. How many [did {n} win|has {n} won] [altogether|in both games]?",
    "It takes {n} {a} minutes to [walk|ride] to school and {b} minutes to [find the room|wash up|eat]. How many minutes [is that|in all]?",
    "There are {a} [boys|girls|old people] and {b} [grown-ups|teachers|dogs] in the [bus|hall|park]. How many [heads|of them|are there] [in total|altogether]?",
)  # fmt: skip
LESS = (
    "[From|Out of] {a} {o}, {b} are [used|eaten|sold|taken|lost]. How many [stay|are still good|are left]?", "{a} {o} [were|are] [on the lake|in the tree|in the yard] and {b} [left|went away|fly away|run off]. How many [stay|are there now]?",
    "I owe {n} {a} {o} and give back {b}. How many do I owe now?", "{n} must [read|carry|pay] {a} {o}. {b} are done. How many [are open|are left|to go]?",
    "{n} has {a} {o} and loses {b}. How many [are left|remain|does {n} still have]?", "There are {a} {o}. {n} takes {b} [away|of them]. How many are left?",
    "I [had|bought|baked] {a} {o} and [ate|sold|gave away|broke|lost] {b}. How many are left?", "{a} {o} [sit|lie|stand] on the [wall|table|shelf]. {b} fall down. How many are still there?",
    "Of {a} {o}, {b} are [red|broken|sold|old]. How many are not?", "[If|Suppose] I take {b} from {a} {o}, how many [stay|remain|are left]?", "{n} needs {a} {o} and has {b}. How many are missing?",
    "How many [more|]{o} must {n} get to have {a}, when {n} has {b}[ already|]?",
    "{n} [baked|grew|made|carried home] {a} {o}. {m} [took|stole|grabbed|ate|borrowed] {b}. How many [did {n} keep|are left|has {n} left]?",
    "A [train|bus|boat] carries {a} people. {b} [get off|step out|leave] at the station. How many [stay on board|ride on|are still in it]?",
    "{n} [hands|passes|sends|gives] {b} of {a} {o} to {m}. How many [stay with {n}|does {n} keep|are left]?",
    "[The wind|A storm|A child|The dog] [knocks|throws|blows] {b} of the {a} {o} [down|over]. How many [still stand|stay up|are left standing]?",
    "[Yesterday|Last week] there were {a} {o} in the [shop|yard|garden]. [Today|Now] {b} have been [sold|given away|picked up|thrown out]. How many [are still there|remain]?",
    "{n} has to [write|clean|sort|paint] {a} {o} and has done {b}. How many [more must be done|are still to do|wait]?",
    "{n} is {a} years old, and {m} is {b} years younger. How old is {m}?",
    "{n} [pays with|has] {a} coins for {o} that cost {b} coins. How many coins [come back|does {n} get back|remain]?",
    "{n} has {a} {o} and {m} has {b}. How many more does {n} have[ than {m}|]?",
    "The [box|jar|bag|pack] had {a} {o}. [We|They|The kids] [used up|emptied out|finished|ate] {b}. What [is left|remains in it]?",
    "{a} {o} [were|stood] in a row. {b} [rolled away|fell over|were taken out]. How many [are there still|make up the row now]?",
    "A rope is {a} feet long. {n} cuts off {b} feet. How long is [it now|the rest]?",
)  # fmt: skip
TIMES = (
    "{n} has {a} bags with {b} {o} in each. How many {o} [is that|are there]?", "There are {a} [boxes|rows|plates], and each has {b} {o}. How many {o} are there[ in all|]?",
    "{a} [children|friends|people] have {b} {o} each. How many {o} [is that|in total]?",
)  # fmt: skip
SHARE = (
    "{n} shares {c} {o} among {a} friends. How many does each [get|one get]?", "{c} {o} are put into {a} [bags|boxes] evenly. How many are in each?", "{a} children share {c} {o}. How many for each[ child|]?",
)  # fmt: skip


def word_problem(rng: Random) -> list[Turn]:
    n, m = name(rng), name(rng)
    pick, things = rng.random(), rng.choice(THINGS)
    in_words = rng.random() < 0.2
    total = rng.randrange(1, 21)
    part = rng.randrange(total + 1)
    slots = {"n": n, "m": m, "o": things}
    asked: tuple[str, ...]
    if pick < 0.42:
        a, b = total - part, part
        asked, shown = MORE, f"{a} + {b} = {total}"
        result = total
    elif pick < 0.8:
        a, b = total, part
        asked, shown, result = LESS, f"{a} - {b} = {a - b}", total - part
    elif pick < 0.92:
        a, b = rng.choice([(x, y) for x in range(2, 8) for y in range(1, 8) if x * y <= 20])
        asked, shown, result = TIMES, f"{a} * {b} = {a * b}", a * b
    else:
        a, each = rng.choice([(x, y) for x in range(2, 7) for y in range(1, 8) if x * y <= 20])
        slots["c"] = str(a * each)
        b, asked, shown, result = each, SHARE, f"{a * each} / {a} = {each}", each
    figures = {"a": ONES[a] if in_words else a, "b": ONES[b] if in_words else b}
    reply = rng.choice(
        (f"{shown}.", f"{shown}, so the answer is {result}.", f"{shown}. The answer is {result}.")
    )
    question = capital(say(rng, asked, **slots, **figures))
    if rng.random() < REWORDED:
        question = reworded(rng, question, 0.4, words_of(f"{n} {m} {things} many more left"))
    return [(question, reply)]


def counting(rng: Random) -> list[Turn]:
    """How many things are in a list, and which is first or last: the list is said again."""
    lists = table("knowledge")["lists"]
    topic = rng.choice(list(lists))
    items = rng.sample(lists[topic], min(len(lists[topic]), rng.randrange(2, 8)))
    shown = rng.choice((", ".join(items), and_join(items)))
    pick = rng.random()
    if pick < 0.4:
        asked = say(
            rng,
            "[How many {k} [are|do you see] here: {l}?|Count these {k}: {l}.|Count: {l}|{l}: how many [{k} |]are that?|I have {l}. How many things is that?]",
            k=topic,
            l=shown,
        )
        counted = ", ".join(f"{i} {each}" for i, each in enumerate(items, start=1))
        return [(capital(asked), f"{counted}. That makes {len(items)}.")]
    if pick < 0.7:
        i, word = rng.choice(((0, "first"), (-1, "last"), (1, "second")))
        asked = say(
            rng, "[What|Which one] is the {x} [of these|in this list|here]: {l}?", x=word, l=shown
        )
        return [(asked, f"The {word} one is {items[i]}.")]
    start, end = sorted(rng.sample(range(21), 2))
    if rng.random() < 0.5:
        asked = say(
            rng, "Count [from {a} to {b}|up from {a} to {b}|on from {a} until {b}].", a=start, b=end
        )
        return [(asked, ", ".join(str(i) for i in range(start, end + 1)) + ".")]
    asked = say(rng, "Count [backwards|down] from {b} to {a}.", a=start, b=end)
    return [(asked, ", ".join(str(i) for i in range(end, start - 1, -1)) + ".")]


def calendar(rng: Random) -> list[Turn]:
    """Days and months on from others."""
    facts = table("knowledge")
    sort, names = rng.choice((("day", facts["days"]), ("month", facts["months"])))
    i = rng.randrange(len(names))
    step = rng.choice((1, 1, -1, -1, 2, 3))
    other = names[(i + step) % len(names)]
    here = names[i]
    if step == 1:
        asked = say(
            rng,
            "[Which {s} [follows|is next after|comes right after|comes next after|do we have after] {x}?|After {x} comes which {s}?|{x}, and then?|Today is {x}. What is tomorrow?|{x} is over. Which {s} [is it now|starts|comes]?|When {x} is over, what {s} [starts|comes|is it]?|The {s} after {x} is [called|which one]?|{x} was yesterday. Today is?|Which {s} comes between {x} and the one after the next?|What comes after {x}?|Name the {s} after {x}.]"
            if sort == "day"
            else "[Which {s} [follows|comes right after|do we have after] {x}?|{x} is over. Which {s} [starts|comes]?|When {x} ends, what {s} [starts|comes|is it]?|The {s} after {x} is [called|which one]?|After {x} has gone by, which {s} is it?|After {x} comes which {s}?|{x}, and then?|It is {x}. What is the next {s}?|What comes after {x}?|Name the {s} after {x}.]",
            s=sort,
            x=here,
        )
        return [(asked, f"{other} comes after {here}.")]
    if step == -1:
        asked = say(
            rng,
            "[Which {s} [is right before|comes just before|goes before|do we have before] {x}?|The {s} before {x} is [called|which one]?|Which {s} ends when {x} begins?|{x} comes after which {s}?|Which {s} stands before {x}?|Before {x} comes which {s}?|What comes before {x}?|Name the {s} before {x}.|What was before {x}?]",
            s=sort,
            x=here,
        )
        return [(asked, f"{other} comes before {here}.")]
    asked = say(
        rng,
        "[It is {x}. What {s} is it in {k} {s}s?|{x} plus {k} {s}s is which {s}?|Which {s} is {k} {s}s after {x}?]",
        s=sort,
        x=here,
        k=rng.choice((str(step), ONES[step])),
    )
    return [(asked, f"{other} is {ONES[step]} {sort}s after {here}.")]


def rhyme_or_opposite(rng: Random) -> list[Turn]:
    facts = table("knowledge")
    if rng.random() < 0.5:
        a, b = rng.sample(rng.choice(facts["opposites"]), 2)
        asked = say(
            rng,
            '[Tell me the opposite of {a}.|{a}: the opposite?|Not {a}, but?|What is the contrary of {a}?|The contrary of {a} [is|would be]?|Turn {a} around: what is its opposite?|Say the reverse of {a}.|[When|If] something is not {a}, it is what?|{a} is one thing, and the other?|Which word stands against {a}?|Which word means the opposite of "{a}"?|If it is not {a}, what is it?|{a} and its opposite?|I need the opposite of {a}.]',
            a=a,
        )
        return [(capital(asked), f"The opposite of {a} is {b}.")]
    word = rng.choice(list(facts["rhymes"]))
    found = rng.choice(facts["rhymes"][word])
    asked = say(
        rng,
        '[Find a rhyme for {w}.|I need a rhyme for "{w}".|Which word rhymes with {w}?|Rhyme with {w}!|A word that sounds like {w}?|Tell me a word that rhymes with {w}.|Do you know a rhyme for {w}?]',
        w=word,
    )
    return [(asked, f"{capital(found)} rhymes with {word}.")]


def question(rng: Random) -> list[Turn]:
    return rng.choices((word_problem, counting, calendar, rhyme_or_opposite), (46, 22, 18, 14))[0](
        rng
    )
