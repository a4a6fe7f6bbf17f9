"""Small sums in figures, in words and in little stories; and other exercises with numbers."""

from __future__ import annotations

from random import Random

from training.generator.grammar import Turn, capital, say
from training.generator.phrasing import ask_for
from training.generator.words import name

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen twenty"
).split()
THINGS = (
    "apples pears books coins marbles cookies balloons pencils shells stamps flowers stones cards"
    " buttons eggs cups birds cats dogs cars toys plums nuts sweets stickers fish trees chairs hats"
    " socks keys leaves stars ducks sheep candles spoons"
).split()

SUM_QUESTIONS = (
    "What is {x}?", "What is {x}?", "what is {x}", "Calculate {x}.", "{x} = ?", "{x}=?", "{x}?",
    "{x}", "How much is {x}?", "What does {x} make?", "What do you get for {x}?", "Solve {x}.",
    "What do {a} and {b} make?", "What do {a} and {b} add up to?", "How much do {a} and {b} make?",
    "Add {a} and {b}.", "Add {b} to {a}.", "Please add {a} to {b}.", "Find the sum of {a} and {b}.",
    "What is the sum of {a} and {b}?", "What is {a} added to {b}?", "What is {b} more than {a}?",
    "What number is {b} more than {a}?", "What comes out of {x}?", "If you add {a} and {b}, what do you get?",
    "If I add {b} to {a}, what is the result?", "Take {a} and add {b}.", "{a} and {b} make what?",
    "{a} and {b}, how many is that?", "How many are {a} and {b}?", "Count {b} on from {a}.",
    "I have {a} and get {b} more. How many now?", "Begin with {a}, then add {b}. What is it?",
    "[Tell|Show] me [the sum|the total] of {a} and {b}.", "What [do|will] {a} and {b} [come to|total|amount to|give|equal]?",
    "[Could|Can|Will|Would] you [please |][figure out|calculate|count up|find|compute|do] {x}[ for me|]?",
    "[Please |][figure out|count up|add up] [{x}|{a} plus {b}|both, {a} and {b}|the numbers {a} and {b}].",
    "If [I|you|we|one] [put|place|lay|set] {a} [things|stones|coins|cups|beads] [beside|and|on top of|together with] {b}, how many [is that|are they|do we have|are there in all]?",
    "[I|We] [need|want|would like] [the answer to|the result of|to know] {x}.", "{a} [increased by|and then|together with|added to|along with] {b}[ is| gives| makes|] [what|how many|how much]?",
    "[Start|Begin] [with|from] {a}[,| and] [then |][add|count|go|move] {b} [more|further|up|on]. [What is it|Where do you end|What number is that|Where are we now]?",
    "[My|The] [first|one] number is {a}, the [second|other] is {b}. [Their sum|What is the sum|What do they make|And together]?",
    "What [total|sum|number|amount] [do you get|comes out|do I get|results] [from|with|for] {a} and {b}?", "[Quick|Fast|Easy one]: {x}!", "[Do|Solve] this [sum|one|problem]: {x}.",
    "[All together|In total|In all], {a} and {b} [are|is|make] how many?", "How [many|much] [is|are|do you have with] {a} [and|plus] {b} [together|in total|in all|combined]?",
    "Join {a} and {b}. How many [now|is that]?", "{a} is there. Then {b} [arrive|come|are added]. How many [in all|now|are there]?", "Sum: {a}, {b}.",
    "What must I write for {x}?", "The sum {x} is what number?", "Put {a} and {b} together. What do you get?",
    "I am at {a} and take {b} steps forward. At which number am I?", "Increase {a} by {b}.",
    "Compute {x} for me.", "Can you do {x}?", "What is the answer to {x}?", "What is the result of {x}?",
    "Give the result: {x}", "{x} equals what?", "{x} makes?", "How much will it be if I add {a} and {b}?",
)  # fmt: skip
SUM_NOUNS = (
    "the sum of {a} and {b}", "{x}", "the result of {x}", "the answer to {x}", "{a} and {b} added together",
    "the value of {x}", "the number that is {b} more than {a}", "what {x} makes", "{a} and {b} in all",
)  # fmt: skip
SUM_CLAUSES = (
    "what {x} is", "how much {x} is", "what {a} and {b} make", "how many {a} and {b} are",
    "what you get for {x}", "what I get if I add {a} and {b}", "what {x} comes to",
)  # fmt: skip
SUM_STORIES = (
    "{n} has {a} {o}. {n} gets {b} more. How many {o} does {n} have now?",
    "{n} has {a} {o} and finds {b} more. How many {o} are that?",
    "There are {a} {o} on the table. {n} brings {b} more. How many {o} are there?",
    "I had {a} {o} and bought {b} {o}. How many do I have?",
    "In one box there are {a} {o}, in the other {b}. How many {o} in both?",
    "{a} {o} and {b} {o}, how many {o} is that?",
    "One bag holds {a} {o} and another one {b}. How many {o} do I carry?",
    "{n} ate {a} {o} in the morning and {b} in the evening. How many {o} did {n} eat?",
    "I see {a} {o} here and {b} {o} there. How many {o} do I see?",
    "We were {a} people and {b} more came. How many people are we?",
    "Yesterday I read {a} pages and today {b}. How many pages did I read?",
    "{n} is {a} years old. How old will {n} be in {b} years?",
    "A bus has {a} people in it and {b} get on. How many people are in the bus?",
    "If {a} {o} lie on the floor and I add {b}, how many {o} lie there?",
    "{n} gives me {a} {o} and you give me {b} {o}. How many {o} do I get?",
    "[If|When|Suppose|Imagine] [I|you|we] [take|have|hold|own|carry] {a} {o} and [somebody gives me|then find|then get|a friend adds] {b} [more|{o}], how many [{o} |][is that|are there|in all]?",
    "[I|We|You] [put|place|lay|drop] {a} {o} in a [box|bag|bowl|row] and [then|after that|later] {b} [more|others]. How many [{o} |][are in it|are there now|is that|now]?",
    "A [shop|farm|school|garden|cook] has {a} {o} and [buys|gets|finds|orders] {b} more. [What is the total|How many now|How many does it have]?",
    "{a} {o} [here|on the left|in front] and {b} [there|on the right|behind]. [In total|How many in all|What is the sum]?",
    "{n} and I [found|sold|picked|counted] {o}: {a} and {b}. How many [together|in total]?",
)
TAKE_QUESTIONS = (
    "What is {x}?", "what is {x}", "Calculate {x}.", "{x} = ?", "How much is {x}?", "{x}?",
    "Take {b} away from {a}.", "Subtract {b} from {a}.", "What is {b} less than {a}?",
    "What is left of {a} if I take away {b}?", "What is the difference between {a} and {b}?",
)  # fmt: skip
TAKE_STORIES = (
    "{n} has {a} {o} and gives away {b}. How many {o} are left?",
    "There were {a} {o}, and {b} are gone. How many {o} remain?",
    "I had {a} {o} and lost {b} of them. How many do I still have?",
    "{n} had {a} {o} and ate {b}. How many {o} does {n} have now?",
)


def number(rng: Random, value: int, *, in_words: bool) -> str:
    return ONES[value] if in_words and value < len(ONES) else str(value)


def small_pair(rng: Random) -> tuple[int, int]:
    """Two numbers; in three of four cases with a sum of at most 20."""
    if rng.random() < 0.75:
        total = rng.randrange(21)
        a = rng.randrange(total + 1)
        return a, total - a
    high = rng.choice((20, 20, 50, 100))
    return rng.randrange(high + 1), rng.randrange(high + 1)


def addition(rng: Random) -> list[Turn]:
    a, b = small_pair(rng)
    if rng.random() < 0.2:
        slots = {"a": a, "b": b, "n": name(rng), "o": rng.choice(THINGS)}
        asked = say(rng, SUM_STORIES, **slots)
        reply = rng.choice(("{a} + {b} = {c}.", "{a} + {b} = {c}, so the answer is {c}."))
        return [(asked, reply.format(a=a, b=b, c=a + b))]
    in_words = rng.random() < 0.15
    first, second = number(rng, a, in_words=in_words), number(rng, b, in_words=in_words)
    x = say(rng, "{a}[ + | + | plus |+| and ]{b}", a=first, b=second)
    slots = {"a": first, "b": second, "x": x}
    asked = ask_for(rng, SUM_QUESTIONS, SUM_NOUNS, SUM_CLAUSES, **slots)
    return [(asked, result(rng, f"{a} + {b}", f"{a} plus {b}", a + b))]


def subtraction(rng: Random) -> list[Turn]:
    b, a = sorted(small_pair(rng))
    slots = {"a": a, "b": b, "n": name(rng), "o": rng.choice(THINGS)}
    if rng.random() < 0.25:
        return [(say(rng, TAKE_STORIES, **slots), f"{a} - {b} = {a - b}.")]
    x = rng.choice((f"{a} - {b}", f"{a} minus {b}", f"{a}-{b}"))
    asked = say(rng, TAKE_QUESTIONS, x=x, **slots)
    return [(asked, result(rng, f"{a} - {b}", f"{a} minus {b}", a - b))]


def result(rng: Random, figures: str, words: str, value: int) -> str:
    forms = (
        f"{figures} = {value}.", f"{figures} = {value}.", f"{capital(words)} is {value}.",
        f"The answer is {value}.", f"{figures} = {value}",
    )  # fmt: skip
    return rng.choice(forms)


def times_and_parts(rng: Random) -> list[Turn]:
    a, b = rng.randrange(13), rng.randrange(13)
    if rng.random() < 0.5:
        x = rng.choice((f"{a} * {b}", f"{a} times {b}", f"{a} x {b}"))
        shown, words, value = f"{a} * {b}", f"{a} times {b}", a * b
    else:
        b, value = rng.randrange(1, 11), rng.randrange(1, 11)
        x = rng.choice((f"{b * value} / {b}", f"{b * value} divided by {b}"))
        shown, words = f"{b * value} / {b}", f"{b * value} divided by {b}"
    questions = ("What is {x}?", "what is {x}", "Calculate {x}.", "{x} = ?", "How much is {x}?")
    return [(say(rng, questions, x=x), result(rng, shown, words, value))]


def compare(rng: Random) -> list[Turn]:
    a, b = rng.sample(range(rng.choice((11, 21, 101))), 2)
    word, chosen = rng.choice((("bigger", max(a, b)), ("smaller", min(a, b))))
    other = a + b - chosen
    return [(f"Which number is {word}, {a} or {b}?", f"{chosen} is {word} than {other}.")]


def series(rng: Random) -> list[Turn]:
    pick, a = rng.randrange(5), rng.randrange(21)
    if pick == 0:
        return [(f"Is {a} even or odd?", f"{a} is {'odd' if a % 2 else 'even'}.")]
    if pick == 1:
        start, step = rng.randrange(1, 8), rng.choice((1, 2, 3, 5, 10))
        shown = ", ".join(str(start + step * i) for i in range(4))
        return [(f"What number comes next: {shown}?", f"The next number is {start + 4 * step}.")]
    if pick == 2:
        n = rng.randrange(3, 16)
        return [(f"Count from 1 to {n}.", ", ".join(str(i + 1) for i in range(n)) + ".")]
    if pick == 3:
        return [(f"What is half of {2 * a}?", f"Half of {2 * a} is {a}.")]
    return [(f"What number comes after {a}?", f"{a + 1} comes after {a}.")]


def exercise(rng: Random) -> list[Turn]:
    makers = (addition, subtraction, times_and_parts, compare, series)
    return rng.choices(makers, (62, 15, 10, 5, 8))[0](rng)


def sorting(rng: Random) -> list[Turn]:
    numbers = rng.sample(range(1, 100), rng.randrange(3, 7))
    rises = rng.random() < 0.6
    order = "small to big" if rises else "big to small"
    shown, done = (
        ", ".join(map(str, numbers)),
        ", ".join(map(str, sorted(numbers, reverse=not rises))),
    )
    return [(f"Sort these numbers from {order}: {shown}.", f"{done}.")]
