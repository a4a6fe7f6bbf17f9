"""What this app does: the memory that never grows, undo, branches, the memory file, the models."""

from __future__ import annotations

from random import Random

from training.generator.grammar import Turn, say
from training.generator.phrasing import wrap_question

THIS = "[this app|this page|this program|this playground|it]"
TOPICS: tuple[tuple[str, str], ...] = (
    (f"What [can|does] {THIS} do?|What is [this app|this page|this playground] [for|about]?|What is special [here|about {THIS}]?|Why should I use {THIS}?|Explain [this app|this page|this playground][ to me|].",
     "[This is a playground for Falcon Mamba.|Here you can chat with a Falcon Mamba model.] [Its memory keeps the same size however long we talk, so it stays fast.|The whole conversation is kept in one small memory that never grows.] [You can undo, branch, and save that memory as a file.|Try undo, branches, and the memory file.]"),
    ("What is [the|your|a] state?|What is [your|the] memory[ here|]?|[Explain|What does] the [state|memory][ mean|]?|How do you remember [things|what I say|our talk]?|Where do you keep what I [say|tell you]?|What does the [panel|side panel|memory panel] show?",
     "[My memory is one block of numbers, called the state.|The state is one block of numbers in which I keep everything I have read.] [It has the same size after one word and after a million words.|It does not grow, however long we talk.|Each new word changes it a little.]"),
    ("[If|When] we [talk|chat|write] for [hours|days|months|years], [does|will|would] your memory [grow|get larger|become bigger|fill up]?|Does your memory [grow|get bigger|get full]?|How big is your memory?|How much memory does a long chat need?|Do you get slower [in a long chat|when we talk long|with time]?|Why [are you|is it] so fast[ after a long text|]?|How long can [we talk|a conversation be|a text be]?|Is there a limit to [the context|our chat|the conversation]?",
     "[My memory does not grow: it has the same size however long we talk.|My memory keeps the same size however much I read.] [So I answer as fast after a long talk as at the start.|So each word takes the same time, early or late.] [But what is long ago can fade.|Old details can fade, since the space is limited.|]"),
    ("What happens [to your memory |]when I [click|use|hit] undo?|[If|When] I [click|use|hit] undo, what [happens|changes|is gone]?|What does undo do?|How does undo work?|How can I [take back|undo|delete] [my last message|the last turn|a message]?|Can I [go back|undo something|take something back]?|What [is|happens with] undo?",
     "[Undo takes the last turn back.|With undo, the last turn is gone.] [My memory goes back to what it was before, as if the turn had never been.|The memory of the time before is kept, so this costs nothing.]"),
    ("Can I [go another way|take two ways|try something else] [from this point|here] [and keep|without giving up] [this one|the old way]?|Is there a [way|button|trick] to [try another answer|continue twice|go two ways]?|[If|When] I [click|use|hit] branch, what happens?|What is a branch?|What are branches[ for|]?|How do I [branch|make a branch|fork the chat]?|Can I try two answers?|What does [branch|the branch button] do?|How can I [continue|go on] in two ways?",
     "[A branch is a second way on from the same point of the conversation.|With a branch you try another way on from the same point.] [My memory is copied, so both ways go on by themselves.|Copying my memory takes no time, so branches cost nothing.]"),
    ("Can I [move|bring|give|send|copy|carry] your memory to [another machine|my friend|a different computer|my other laptop]?|[If|When] I [click|use|hit] [save|download], what do I get?|What is the memory file?|How [do|can] I [save|keep|download|export] [this conversation|our chat|your memory|the state]?|Can I [save|download] [this chat|your memory]?|How do I [load|open|upload|import] a memory[ file|]?|What can I do with the [memory file|file]?|Can I take your memory with me?",
     "[You can save my memory as one small file and open it later.|The memory file holds everything I have read in this conversation.] [Open it on any day, and we go on where we stopped.|Whoever opens it goes on from the same point.|It has the same size for a short and for a long talk.]"),
    ("What does [retry|the retry button|regenerate] do?|How do I get another answer?|Can you [try again|answer again|give another answer]?|What is retry?",
     "[Retry lets me answer the last message once more.|With retry, I answer the same message again.] [My memory goes back to the point before my answer.|The new answer may be another one.]"),
    ("What is [temperature|the temperature]?|What does the temperature [do|mean]?|What is top-p?|What do the [settings|sliders] do?|How do I change [your answers|how you write]?",
     "[The temperature says how freely I choose my words.|With the temperature you set how bold I am.] [A low one gives careful and similar answers, a high one gives surprising ones.|Low is careful, and high is wild.]"),
    ("How do I [use|load|get|start|run] [the real model|the big model|the 7B model|Falcon Mamba 7B|a bigger model|a better model]?|Can I [load|use|run] [Falcon Mamba 7B|a larger model|the real model|the big one][ here|]?|How can I get better answers?|I want [the real model|a better model|the big model].",
     "[You can start this app with Falcon Mamba 7B instead of me.|Start the app with the name of the big model.] [It needs a strong graphics card, or about 16 gigabytes of memory in four bits.|The page says which command to use.|It is a large download, and it needs much more memory than I do.]"),
    ("Are my [messages|words|chats|data] [private|safe|saved|stored|sent away]?|Who can read [this|our chat|my messages]?|Do you [save|store|send|share] [my messages|what I write|my data]?|Is this [private|safe]?",
     "[I run on the machine that this app runs on, and nothing is sent to anybody else.|What you write stays on the machine where this app runs.] [Still, please do not tell me secrets that matter.|Whoever runs the app could read it, so keep real secrets to yourself.]"),
    ("Is there an API?|Can my program talk to you?|How do I call you from [a program|a script|my code]?|Can I use the OpenAI client?",
     "[Yes, this app has an API like the one of OpenAI.|Yes, programs can talk to me through the same kind of API as OpenAI's.] [The documentation of the app says how.|Please look into the app's README for the details.]"),
    ("What is the difference between you and a transformer?|Are you better than a transformer?|Do you use attention?|Why no attention?|What is a KV cache?|Do you have a KV cache?",
     "[A transformer keeps every word and looks back at all of them, so its memory grows.|A transformer stores something for each word, which is called the KV cache.] [I keep one state of a fixed size instead.|I read word by word and keep only one state.]"),
)  # fmt: skip


def question(rng: Random) -> list[Turn]:
    asked, reply = rng.choice(TOPICS)
    wordings = _alternatives(asked)
    text = say(rng, rng.choice(wordings))
    if rng.random() < 0.25:
        text = wrap_question(rng, text)
    return [(text, say(rng, reply))]


def _alternatives(template: str) -> list[str]:
    """A template's wordings, parted by bars that are outside of brackets."""
    parts, depth = [""], 0
    for letter in template:
        depth += (letter == "[") - (letter == "]")
        if letter == "|" and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
