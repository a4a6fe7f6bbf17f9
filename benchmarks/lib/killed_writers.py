"""Writers of conversations, each killed (SIGKILL) at a random point, and what the library has then.

    python -m benchmarks.lib.killed_writers FOLDER KILLS SEED

A writer is what the page has without a model: the session's shelf and the recording of its replies,
over one library. It tells what has been written, a line each. This process is the first of all
writers: it imports once, and forks them; it must have no threads, and so no torch.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import traceback
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any

import falcon_mamba_app.ui.conversation.recording as recording
from falcon_mamba_app.errors import FalconMambaError
from falcon_mamba_app.library import Library, MessageRecord, Place
from falcon_mamba_app.library.tree import packed_ids
from falcon_mamba_app.protocol import (
    Conversation,
    Finished,
    GenerationEvent,
    Message,
    TextDelta,
)
from falcon_mamba_app.ui.conversation.document import Document
from falcon_mamba_app.ui.conversation.shelf import Shelf
from falcon_mamba_app.ui.conversation.tree import Tree, new_node_id

OWNER = "ada"
WORDS = 8  # of a reply
PIECE_S = 0.001  # a kill is to fall between the pieces of a reply as often as between replies
MAX_LINES = 60  # after which a writer is killed; a turn tells about six
MAX_DELAY_S = 0.003


class TellingLibrary(Library):
    """Tells which pieces of replies have been committed."""

    tell: Callable[..., None]

    async def extend_reply(self, owner: str, generation: str, seq: int, text: str) -> None:
        await super().extend_reply(owner, generation, seq, text)
        self.tell("piece", text)


async def write(folder: Path, conversation_id: str, tell: Callable[..., None]) -> None:
    """Turns of a conversation, until somebody ends this process."""
    recording.PIECE_S = PIECE_S
    library = await TellingLibrary.open(Place(folder=folder))
    library.tell = tell
    shelf, tree = Shelf(library, OWNER, raise_trouble), Tree()
    for turn in range(sys.maxsize):
        tree.head = asked = tree.add(tree.head, Message("user", f"question {turn}"))
        saved = shelf.save(conversation_id, tree, Document())
        about = recording.Asked(
            conversation_id=conversation_id,
            reply_id=new_node_id(),
            parent_id=asked.id,
            prompt=Conversation([asked.message]),
        )
        tell("begin", about.reply_id, words_of(turn))
        events = recording.Recording(shelf, about, saved).follow(reply(turn))
        async for _ in events:
            pass
        tell("turn", about.reply_id, words_of(turn))
        answer = Message("assistant", words_of(turn))
        tree.head = tree.add(asked, answer, node_id=about.reply_id)
        await shelf.save(conversation_id, tree, Document())


def raise_trouble(error: FalconMambaError | None) -> None:
    if error is not None:
        raise error


async def reply(turn: int) -> AsyncGenerator[GenerationEvent, None]:
    for place, word in enumerate(words_of(turn).split(" ")):
        text = word if not place else f" {word}"
        yield TextDelta(text=text, completion_tokens=place + 1)
        await asyncio.sleep(PIECE_S)
    yield Finished(
        reason="stop",
        prompt_tokens=turn,
        reused_tokens=0,
        completion_tokens=WORDS,
        packed_ids=ids_of_turn(turn),
    )


def words_of(turn: int) -> str:
    return " ".join(f"word{turn}.{place}" for place in range(WORDS))


def ids_of_turn(turn: int) -> bytes:
    return packed_ids(range(turn, turn + WORDS))


async def look(folder: Path, conversation_id: str, told: list[list[str]]) -> dict[str, int]:
    """What is lost of what was told, after the kill; counts by kind."""
    library = await Library.open(Place(folder=folder))
    found: dict[str, MessageRecord] = {}
    if any(kind == "piece" for kind, *_ in told):
        found = (await library.tree(OWNER, conversation_id)).by_id
    await library.close()
    finished = [(reply_id, text) for kind, reply_id, *text in told if kind == "turn"]
    begun = [(reply_id, text) for kind, reply_id, *text in told if kind == "begin"]
    counts = dict.fromkeys(("turns", "lost_turns", "lost_words", "still_writing", "broken_off"), 0)
    for number, (reply_id, (text,)) in enumerate(finished):
        kept, counts["turns"] = found.get(reply_id), counts["turns"] + 1
        is_whole = kept is not None and (kept.text, kept.status) == (text, "complete")
        has_ids = kept is not None and kept.token_ids == ids_of_turn(number)
        counts["lost_turns"] += not (is_whole and has_ids)
    if len(begun) > len(finished):
        reply_id, (text,) = begun[-1]
        at = max(place for place, line in enumerate(told) if line[0] == "begin")
        committed = "".join(line[1] for line in told[at:] if line[0] == "piece")
        kept = found.get(reply_id)
        words = "" if kept is None else kept.text
        counts["lost_words"] += not (words.startswith(committed) and text.startswith(words))
        counts["broken_off"] += kept is not None and kept.status == "interrupted"
        counts["still_writing"] += kept is not None and kept.status == "writing"
    return counts


def forked(work: Callable[[Callable[..., None]], Coroutine[Any, Any, None]]) -> tuple[int, int]:
    """A process that does the work: its id, and where what it tells can be read."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    os.close(reading)

    def tell(*facts: object) -> None:
        os.write(writing, json.dumps(facts).encode() + b"\n")

    try:
        asyncio.run(work(tell))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)  # nothing of the parent's is cleared up twice


def killed_once(folder: Path, name: str, chance: random.Random) -> list[list[str]]:
    """What a writer told until it was killed."""
    child, reading = forked(lambda tell: write(folder, name, tell))
    with open(reading, "rb") as pipe:
        told = [pipe.readline() for _ in range(chance.randrange(MAX_LINES))]
        signal.sigtimedwait((), chance.uniform(0, MAX_DELAY_S))
        os.kill(child, signal.SIGKILL)
        told += pipe.readlines()
    os.waitpid(child, 0)
    return [json.loads(line) for line in told if line.endswith(b"\n")]


def looked_at(folder: Path, name: str, told: list[list[str]]) -> dict[str, int]:
    async def work(tell: Callable[..., None]) -> None:
        tell(await look(folder, name, told))

    child, reading = forked(work)
    with open(reading, "rb") as pipe:
        lines = pipe.readlines()
    os.waitpid(child, 0)
    (counts,) = json.loads(lines[0])
    return dict(counts)


def main() -> None:
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    chance, all_counts = random.Random(seed), []
    for number in range(kills):
        told = killed_once(folder, f"conv{number}", chance)
        all_counts.append(looked_at(folder, f"conv{number}", told))
    print(json.dumps({name: sum(one[name] for one in all_counts) for name in all_counts[0]}))


if __name__ == "__main__":
    main()
