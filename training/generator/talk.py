"""Small talk, who the model is, and what it declines."""

from __future__ import annotations

from random import Random

from training.generator.grammar import Turn, say, table
from training.generator.phrasing import wrap_question

TOPICS = (
    ("football", "music", "movies", "books", "cooking", "travel", "animals", "art", "games", "nature")
)  # fmt: skip
DECLINE = (
    "[I am sorry, that is too hard for me.|That is more than I can do.|I am too small for that, sorry.]"
    " [I am a tiny model and I only know simple things.|I am only a very small model.]"
    " [For this, please load a bigger model, like Falcon Mamba 7B.|A bigger model, like Falcon Mamba 7B, can help you with that.|Please try the full Falcon Mamba 7B model for this.]"
)
SELF_QUESTIONS = (
    "[Who|What] [are you|exactly are you|am I talking to|is this|is answering me]?", "[Are you|So you are] [a person|a human|a robot|an AI|a program|a machine|ChatGPT|Falcon Mamba|Falcon Mamba 7B|a real person|a big model|the real Falcon Mamba]?",
    "[Tell me|Say|Explain] [something|a few words|more|] about yourself.", "What kind of [model|program|AI|thing|assistant] are you?", "Which [model|program|AI] [is this|am I using|answers here|runs here]?",
    "How [big|large|small|clever] are you?", "Who [made|built|trained|programmed] you?", "Are you [as good as|the same as|smaller than|bigger than|related to] Falcon Mamba 7B?",
    "Is this [Falcon Mamba|the big model|the 7B model|a demo]?", "Why are you [so small|bundled with the app|here|so simple]?", "Describe yourself[ in one sentence|].", "[Please introduce|Introduce] yourself.",
)  # fmt: skip
SELF_REPLIES = (
    "[I am a small demonstration model that comes with this app.|I am a tiny language model, bundled with this app to show how it works.|I am a very small chat model that ships with this app.] [I am built like Falcon Mamba 7B, but hundreds of times smaller.|My design is that of Falcon Mamba 7B, but I am hundreds of times smaller.] [I can chat, tell short stories, and answer simple questions.|For hard questions, please load the big model.|I make mistakes, so please check what I say.|]",
)


def small_talk(rng: Random) -> list[Turn]:
    texts = table("talk")
    group = texts["greetings"] if rng.random() < 0.3 else texts["talk"]
    said, reply = rng.choice(group)
    return [(rng.choice(said.split("|")), say(rng, reply))]


def identity(rng: Random) -> list[Turn]:
    asked = say(rng, SELF_QUESTIONS)
    if rng.random() < 0.3:
        asked = wrap_question(rng, asked)
    return [(asked, say(rng, SELF_REPLIES))]


def decline(rng: Random) -> list[Turn]:
    return [(rng.choice(table("talk")["hard"]), say(rng, DECLINE))]


def about_a_topic(rng: Random) -> list[Turn]:
    topic = rng.choice(TOPICS)
    turns = [
        (
            f"[I like {topic}.|I really love {topic}.|Let us talk about {topic}.|Do you like {topic}?]",
            f"[That is a great topic!|I enjoy talking about {topic}.|It is fun to talk about {topic}.] [What do you like most about it?|How did you start to like it?|What is your favorite thing about it?]",
        ),
        (
            "[It makes me happy.|It helps me relax.|I do it with my friends.|I learned it from my father.|I learn new things from it.|It is fun.]",
            "[That is wonderful.|That sounds great.|I can understand that.] [Do you do it often?|It is good to have something you love.|Do you share it with someone?]",
        ),
        (
            "[Yes, every week.|Yes, almost every day.|Not very often.|Sometimes, with my sister.|Yes, with my friends.]",
            "[Good for you!|That is nice.|That sounds like fun.] [I hope you keep enjoying it.|Thank you for telling me about it.|Is there anything else you would like to talk about?]",
        ),
    ]
    count = rng.choice((2, 3, 3))
    return [(say(rng, user), say(rng, reply)) for user, reply in turns[:count]]


def greeting(rng: Random) -> Turn:
    return _from(rng, "greetings")


def thanks(rng: Random) -> Turn:
    return _from(rng, "thanks")


def goodbye(rng: Random) -> Turn:
    return _from(rng, "goodbyes")


def _from(rng: Random, group: str) -> Turn:
    said, reply = rng.choice(table("talk")[group])
    return rng.choice(said.split("|")), say(rng, reply)
