"""Questions nobody could answer from here: about the user's life, the present and the future.

The answer is a polite "I do not know", and why.
"""

from __future__ import annotations

from random import Random

from training.generator.grammar import Turn, say
from training.generator.phrasing import wrap_question
from training.generator.words import name

OWN_THINGS = (
    "bag|phone|car|house|room|desk|garden|bike|bed|coat|wallet|computer|fridge|office|kitchen|cellar|shelf|"
    "drawer|suitcase|cupboard|garage|notebook|calendar|passport|key|table|bathroom|window|sofa|camera|boat"
)
PEOPLE = (
    "mother|father|brother|sister|boss|teacher|neighbor|friend|uncle|aunt|cousin|doctor|wife|husband|son|"
    "daughter|grandmother|grandfather|coach|landlord|roommate|girlfriend|boyfriend|dog|cat"
)
THINGS = (
    "books|coins|shoes|pens|eggs|apples|photos|messages|letters|spoons|stamps|cups|plants|bottles|hats|socks|"
    "windows|chairs|pictures|cookies|pencils|buttons|stairs|candles|toys|songs"
)
TIMES = "today|yesterday|this morning|last night|last week|on Monday|last summer|an hour ago|at noon|this evening"
FUTURE = "tomorrow|next week|next month|next summer|in two years|in ten years|in the year 2050|on Sunday|next Monday"

QUESTIONS: dict[str, tuple[str, ...]] = {
    "own": (
        f"How many [{THINGS}] [do I have|are in my [{OWN_THINGS}]|did I buy [{TIMES}]|do I own|have I lost]?",
        f"What is in my [{OWN_THINGS}]?",
        f"What [color|size|age|brand] is my [{OWN_THINGS}]?",
        f"Where [is|did I put|did I leave|did I buy] my [{OWN_THINGS}]?",
        f"How [big|old|heavy|dirty|expensive|long] is my [{OWN_THINGS}]?",
        f"What is [behind|under|next to|on|near] my [{OWN_THINGS}]?",
        f"What did I [eat|drink|buy|wear|read|watch|cook|write|sing|say|do|see|lose|forget] [{TIMES}]?",
        "What am I [wearing|eating|drinking|looking at|thinking about|thinking of|doing|hearing] [now|right now|at the moment|]?",
        f"Who [called me|visited me|wrote to me|was with me|helped me|saw me] [{TIMES}]?",
        f"Where [was I|did I go|did I sleep|did I eat|did I sit] [{TIMES}]?",
        "When did I [get up|go to bed|eat|come home|call|wash my hands|go to school]?",
        "What is my [phone number|house number|street|weight|height|bank number|birthday|surname|middle name|email address|hair color|eye color|license number|zip code|favorite book|favorite song|shirt size|hat size]?",
        "How [tall|heavy|rich|tired|hungry|fast|strong|far from home] am I?",
        "[Is|Was] my [door|window|oven|car|light|phone] [open|closed|on|off|locked]?",
        "How many [brothers|sisters|children|friends|teeth|cousins|pets|neighbors] do I have?",
        "How many fingers am I [showing|holding up]?", "Am I [married|tall|a man or a woman|smiling|sitting|late|alone|wearing glasses]?",
        "What does my [face|house|room|hair|street|mother|dog] look like?", "Which [card|number|word|color|animal] am I thinking of?",
        "Can you guess what I [had for dinner|have in my pocket|am doing|did last year|look like]?",
        "What is my [secret|plan|problem|dream|wish|score|grade|ticket number|order number|room number]?",
    ),
    "others": (
        f"What is my [{PEOPLE}] [doing|thinking|eating|wearing|saying|reading|buying] [now|right now|today|at the moment|]?",
        f"[How tall|How far away|Where] is my [{PEOPLE}]?",
        f"What is [the phone number|the address|the age|the job|the birthday|the favorite food] of my [{PEOPLE}]?",
        f"What did my [{PEOPLE}] [say|do|eat|buy|dream|write|think] [{TIMES}]?",
        "What is {n}'s [phone number|address|age|birthday|job|favorite food|email address]?",
        "Where [does {n} live|is {n} right now|did {n} go yesterday|will {n} be tomorrow]?",
        "What did {n} [say|do|eat|buy] [yesterday|last night|this morning|last week]?",
        "Does {n} like me?", "Is {n} at home?", "Who is {n}?", "How old is {n}?",
        f"Does my [{PEOPLE}] [love me|like fish|know the answer|have time]?",
    ),
    "now": (
        "What time is it[ now| right now| in Tokyo| there| at your place|]?", "What is the [date|time|day|weather|temperature] [today|now|right now|outside|at the moment]?",
        "What day is it[ today|]?", "Which [day|month|year] is it[ now| today|]?", "Is it [raining|snowing|sunny|cold|warm|windy|dark|hot] [outside|now|today|in my town]?",
        "How [cold|warm|hot|windy|wet] is it [outside|today|here|in my garden]?", "What is [in the news|on TV|the news|happening in the world|in the newspaper] [today|now|tonight]?",
        "Who won the [game|match|race|election|prize] [yesterday|today|last night|this year]?", "Is the [bank|museum|library|supermarket|post office|bakery|school] open [now|today]?",
        "What is the price of [bread|oil|a ticket|a house|milk|silver] [today|now|in my town]?", "How many people are [here|online|in the room|on the bus|in the park] [now|right now|]?",
        "Is the train [late|on time]?", "What is the score of the game?", "Who is [at the door|on the phone|in the kitchen|next to me|in front of me|in this room]?",
        "What is that [noise|smell|light] [outside|in my room|]?", "Which shop sells the cheapest [shoes|apples|phones] today?", "Where is the nearest [bus stop|shop|hospital|bank]?",
        "What is the newest [phone|film|song|book]?", "Is there milk in the fridge?", "How is the [traffic|weather|water] [today|now|in my city]?",
    ),
    "future": (
        f"[Will it [rain|snow|be sunny|be cold|be windy]|What will the weather be] [{FUTURE}]?",
        f"Who will [win the game|win the race|be famous|be the winner|win the election|call me] [{FUTURE}]?",
        f"What will [I do|happen|happen to me|be in the news|I eat|my life be like] [{FUTURE}]?",
        f"How [rich|old|tall|happy] will [I|my friend {{n}}|{{n}}] be [{FUTURE}]?", "When will I [get married|die|be rich|find a job|win a prize|meet my love]?",
        f"Will I [pass my test|get the job|be happy|be rich|win|find my key] [{FUTURE}]?", "Which numbers will win [in the lottery|the prize|]?",
        "How many children will I have?", f"What will [bread|a house|a car|oil] cost [{FUTURE}]?", "When will the world end?", "Who will be the next [king|winner|champion|mayor]?",
        "Will my [team|friend|plan|cake] [win|come|work|be good]?",
    ),
}  # fmt: skip

# Parts for questions about the user's life: what nobody can know who was not told.
ACTIONS = (
    "finish school|learn to swim|learn to drive|start to work|buy a house|get married|move out|quit my job|"
    "plant my first tree|see the sea|ride a horse|break my arm|fly for the first time|meet my wife|read that book|"
    "write my first letter|lose my keys|sell my car|win a prize|stop smoking|begin to paint|visit my uncle|join the club"
)
OWN = (
    f"[In which year|When|In which month|At what age|Where|With whom|Why] did I [{ACTIONS}]?",
    f"Who [taught|told|asked|helped|showed] me to [{ACTIONS}]?",
    f"[What|How much] did I [pay|spend|get|give] for my [{OWN_THINGS}]?",
    f"What [is|was] [written|printed|painted|carved|drawn|stuck] on my [{OWN_THINGS}]?",
    f"[Which|What] [train|bus|road|boat] do I take [{TIMES}|to work|every day|home]?",
    "Do I [wear a hat|have a beard|eat meat|drink coffee|own a car|play an instrument|smoke|snore|have a garden|like my job|speak French|have a sister|sleep well|go to church]?",
    "How many [guests|friends|people|cousins|letters|years|hours|windows|languages|books] [came to my party|did I invite|did I work|did I read|do I speak|are on my list|has my house]?",
    "[Whom|Who] did I [invite|marry|visit|call first|meet on the train|forget to thank|write to]?",
    f"[Which|What] [{THINGS}|tool|gift|picture|tree] [stands|lies|hangs|gathers dust] in my [{OWN_THINGS}]?",
    f"How is my [{PEOPLE}|stepfather|godfather|lawyer|barber|hairdresser|stepmother] called?",
    "What is my favorite [dish|soup|fruit|flower|season|month|band|film|writer|book|song|game|smell|city|country|holiday|subject|ice cream|tree|shop|poem]?",
    "Who is my favorite [writer|actor|painter|teacher|player|cousin|hero]?",
    "[At which|In which|On which] [table|hotel|street|floor|bench|school|hospital|village|ship|bed] did I [sit|stay|sleep|wait|live as a child|work|get born|spend May|celebrate]?",
    f"[Which|What] [language|song|illness|sport|pet|toy|dream|job] did [I|my [{PEOPLE}]] have [as a child|at ten|before|long ago]?",
    f"What [does|did] my [{OWN_THINGS}] [weigh|cost|look like|contain|smell of]?",
    f"What did I [name|call] my first [{OWN_THINGS}|dog|cat|doll|boat]?",
    f"[Did|Has] my [parcel|letter|luggage|order|visa|{PEOPLE}] [arrive|come|reach me|call] [{TIMES}]?",
)

REASONS = {
    "own": (
        "[You have not told me.|You did not tell me that.|I only know what you tell me.|I cannot see you.|I cannot see where you are.|I know nothing about your life except what you write.]"
    ),
    "others": (
        "[You have not told me about that.|I only know what you tell me.|I do not know this person.|I cannot see other people.|I know nothing about other people's lives.]"
    ),
    "now": (
        "[I have no clock and no internet.|I cannot look outside.|I cannot look outside or use the internet.|I run without the internet.|I cannot see what is happening now.|I have no news.]"
    ),
    "future": (
        "[I cannot see the future.|Nobody knows the future.|No one can know that today.|That has not happened yet.]"
    ),
}
SORRY = (
    "[I am sorry, but I|I am sorry, I|Sorry, I|I'm sorry, I|I am afraid I|I|I] [do not know that|don't know that|cannot know that|do not know|can't know that|have no way to know that|do not know the answer].",
)
OFFERS = (
    "", "", "", "[Can you tell me?|Would you like to tell me?|What do you think?|Please tell me, if you like.|Maybe you can check it yourself.|You could look it up.|Perhaps somebody near you knows.]",
)  # fmt: skip


def own(rng: Random) -> str:
    """About the user's life."""
    return say(rng, OWN if rng.random() < 0.5 else QUESTIONS["own"])


def question(rng: Random) -> list[Turn]:
    kind = rng.choices(tuple(QUESTIONS), (45, 15, 22, 18))[0]
    asked = own(rng) if kind == "own" else say(rng, QUESTIONS[kind], n=name(rng))
    if rng.random() < 0.3:
        asked = wrap_question(rng, asked)
    reply = " ".join((say(rng, SORRY), say(rng, REASONS[kind]), say(rng, OFFERS)))
    return [(asked, reply.strip())]
