"""Random histories of conversations beside a plain tree in memory: same texts, same ids, and
nothing of another owner's.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from falcon_mamba_app.errors import NotFound
from falcon_mamba_app.library import Library, Place, ReplyEnd
from falcon_mamba_app.library.exchange import as_json, read
from falcon_mamba_app.library.tree import packed_ids

OWNERS = st.sampled_from(["ada", "bob"])
TEXTS = st.text(max_size=20).map(lambda text: text + "x")
IDS = st.lists(st.integers(0, 65_023), max_size=5).map(packed_ids)
PLACES = st.integers(0, 10**6)


class Plain:
    """A conversation as a dictionary: message → (parent, text, ids)."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.messages: dict[str, tuple[str | None, str, bytes | None]] = {}
        self.head: str | None = None
        self.names: dict[str, str] = {}

    def add(self, name: str, parent: str | None, text: str, ids: bytes | None = None) -> None:
        self.messages[name] = (parent, text, ids)
        self.head = name

    def pick(self, place: int) -> str | None:
        """One of the messages, or None."""
        names = [None, *self.messages]
        return names[place % len(names)]

    def below(self, name: str) -> set[str]:
        found = {name}
        for other, (parent, _, _) in self.messages.items():  # parents come first
            if parent in found:
                found.add(other)
        return found


class Histories(RuleBasedStateMachine):
    conversations = Bundle("conversations")

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.place = Place(folder=Path(self.folder.name))
        self.library = self.run(Library.open(self.place))
        self.plain: dict[str, Plain] = {}

    def run(self, work):
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        self.run(self.library.close())
        self.loop.close()
        self.folder.cleanup()

    @rule(target=conversations, owner=OWNERS, text=TEXTS)
    def create(self, owner, text):
        made = self.run(self.library.create(owner, title=text))
        self.plain[made.id] = Plain(owner)
        return made.id

    @rule(name=conversations, place=PLACES, text=TEXTS)
    def say(self, name, place, text):
        """Under any message: a send, an edit."""
        plain = self.plain[name]
        parent = plain.pick(place)
        made = self.run(
            self.library.append(plain.owner, name, parent_id=parent, role="user", text=text)
        )
        plain.add(made.id, parent, made.text)

    @rule(name=conversations, place=PLACES, pieces=st.lists(TEXTS, min_size=1, max_size=3), ids=IDS)
    def reply(self, name, place, pieces, ids):
        """Also a retry."""
        plain = self.plain[name]
        parent = plain.pick(place)
        made = self.run(self.library.begin_reply(plain.owner, name, parent_id=parent))
        for seq, piece in enumerate(pieces):
            self.run(self.library.extend_reply(plain.owner, made.generation, seq, piece))
        end = ReplyEnd(token_ids=ids)
        kept = self.run(self.library.finish_reply(plain.owner, made.generation, end))
        plain.add(kept.id, parent, kept.text, ids)

    @rule(name=conversations, place=PLACES)
    def switch(self, name, place):
        plain = self.plain[name]
        plain.head = plain.pick(place)
        self.run(self.library.set_head(plain.owner, name, plain.head))

    @rule(name=conversations, place=PLACES, label=st.sampled_from(["here", "there"]))
    def label(self, name, place, label):
        plain = self.plain[name]
        if (at := plain.pick(place)) is not None:
            self.run(self.library.name_branch(plain.owner, name, label, at))
            plain.names[label] = at

    @rule(name=conversations, place=PLACES)
    def delete_message(self, name, place):
        plain = self.plain[name]
        if (at := plain.pick(place)) is None:
            return
        self.run(self.library.remove_branch(plain.owner, at))
        gone, parent = plain.below(at), plain.messages[at][0]
        plain.messages = {one: kept for one, kept in plain.messages.items() if one not in gone}
        plain.names = {label: one for label, one in plain.names.items() if one not in gone}
        plain.head = parent if plain.head in gone else plain.head

    @rule(name=conversations, place=PLACES)
    def take_out_one_message(self, name, place):
        """What followed it follows its parent."""
        plain = self.plain[name]
        if (at := plain.pick(place)) is None:
            return
        self.run(self.library.remove(plain.owner, name, [at]))
        above, _, _ = plain.messages.pop(at)
        for other, (parent, text, ids) in plain.messages.items():
            plain.messages[other] = (above if parent == at else parent, text, ids)
        plain.names = {label: one for label, one in plain.names.items() if one != at}
        plain.head = above if plain.head == at else plain.head

    @rule(target=conversations, name=conversations, owner=OWNERS)
    def out_and_in_again(self, name, owner):
        """Export, and import for whomever."""
        plain = self.plain[name]
        ((tree,), _) = read(as_json(self.run(self.library.tree(plain.owner, name))).encode())
        (made,) = self.run(self.library.adopt(owner, tree))
        return self.take(made.id, owner)

    @rule(target=conversations, name=conversations, place=PLACES)
    def fork(self, name, place):
        plain = self.plain[name]
        at = plain.pick(place)
        if at is None:
            return self.create(plain.owner, "empty")
        return self.take(self.run(self.library.fork(plain.owner, name, at)).id, plain.owner)

    def take(self, name: str, owner: str) -> str:
        """A copy is as its original; from here on its ids are new."""
        tree = self.run(self.library.tree(owner, name))
        plain = self.plain[name] = Plain(owner)
        for one in tree.messages:
            plain.add(one.id, one.parent_id, one.text, one.token_ids)
        plain.head = tree.conversation.head_id
        plain.names = {branch.name: branch.message_id for branch in tree.branches}
        return name

    @rule(name=consumes(conversations))
    def delete(self, name):
        self.run(self.library.delete(self.plain.pop(name).owner, name))

    @rule()
    def restart(self):
        self.run(self.library.close())
        self.library = self.run(Library.open(self.place))

    @invariant()
    def both_are_the_same(self):
        for owner in ("ada", "bob"):
            listed = {one.id for one in self.run(self.library.list(owner)).conversations}
            assert listed == {name for name, plain in self.plain.items() if plain.owner == owner}
        for name, plain in list(self.plain.items())[-2:]:
            tree = self.run(self.library.tree(plain.owner, name))
            found = {one.id: (one.parent_id, one.text, one.token_ids) for one in tree.messages}
            assert found == plain.messages and tree.conversation.head_id == plain.head
            assert {b.name: b.message_id for b in tree.branches} == plain.names
            assert tree.conversation.num_messages == len(plain.messages)
            with pytest.raises(NotFound):
                self.run(self.library.tree("bob" if plain.owner == "ada" else "ada", name))


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=5,
    stateful_step_count=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
