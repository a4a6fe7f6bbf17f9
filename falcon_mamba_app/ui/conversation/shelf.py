"""One session's conversation in the library: what is written of it, and writing the rest.

The session is the copy in use; what it has become is written as differences. Whatever the library
fails in, the session goes on, and the next `save` brings what is missing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

from falcon_mamba_app.errors import FalconMambaError
from falcon_mamba_app.library import Changes, Library, MessageRecord, new_id
from falcon_mamba_app.library.tree import Tree as KeptTree
from falcon_mamba_app.protocol import Message
from falcon_mamba_app.ui.conversation.document import Continuation, Document
from falcon_mamba_app.ui.conversation.sound_facts import sound
from falcon_mamba_app.ui.conversation.tree import Facts, Node, Tree

MAX_TITLE_CHARS = 60
CONTINUATIONS = "continuations"  # only the completion page's text has them
SHOWN = ("prompt_tokens", "reused_tokens", "prefill_s", "settings", "strip")


class Shelf:
    """Where a session's conversation is kept, for its owner. `tell` hears of trouble, and of its
    end.
    """

    def __init__(
        self, library: Library, owner: str, tell: Callable[[FalconMambaError | None], None]
    ) -> None:
        self.library, self.owner, self._tell = library, owner, tell
        self.has_failed = False  # the last write; the session has what the library lacks
        self.is_gone = False  # all of the owner's was deleted: nothing is written any more
        self.writing: str | None = None  # the message that is being recorded, and not for `save`
        self._texts: dict[str, str] = {}  # of each message that is written
        self._known: dict[str, MessageRecord] = {}  # replies, beyond their text
        self.head_id: str | None = None  # that is written
        self._names: dict[str, str] = {}
        self._text_id = new_id("msg")  # under which the completion page's text is written
        self._lock = asyncio.Lock()
        self._running: set[asyncio.Task[None]] = set()

    def hold(self, kept: KeptTree) -> None:
        """The library has this, which the session has now too."""
        self._texts = {one.id: one.text for one in kept.messages}
        self._text_id = next((one.id for one in kept.messages if is_text(one)), self._text_id)
        self._known = {one.id: one for one in kept.messages if one.role == "assistant"}
        self.head_id = kept.conversation.head_id
        self._names = {branch.name: branch.message_id for branch in kept.branches}

    def hold_reply(self, reply: MessageRecord, text: str) -> None:
        """The library has this reply, as its newest message."""
        self._texts[reply.id], self._known[reply.id] = text, reply
        self.head_id = reply.id

    def known(self, node: Node) -> MessageRecord | None:
        """What the library knows of a reply."""
        return self._known.get(node.id)

    async def save(self, session_id: str, tree: Tree, document: Document) -> bool:
        """Write what the tree and the text have become since the last time. False where that was
        not possible; the next call tries again.
        """
        async with self._lock:
            changes = self._changes(session_id, tree, document)
            if changes is None or self.is_gone:
                return True
            try:
                await self.library.apply(self.owner, changes)
            except FalconMambaError as error:
                self.has_failed = True
                self._tell(error)
                return False
            self._take(changes)
            self.has_failed = False
            self._tell(None)
            return True

    def keep_running(self, work: Coroutine[Any, Any, None]) -> None:
        """Let it end although whoever began it has gone."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _changes(self, session_id: str, tree: Tree, document: Document) -> Changes | None:
        """What has become of both; None if the library has it all."""
        nodes = [node for node in tree if node.id != self.writing]
        added = [node for node in nodes if self._texts.get(node.id) != node.message.content]
        there = {node.id for node in tree}
        texts = [self._text(session_id, document)] if document.text else []
        there.update(one.id for one in texts)
        removed = tuple(name for name in self._texts if name not in there)
        head = tree.head
        if head is not None and head.id == self.writing:
            head = head.parent
        if head is not None:
            head_id: str | None = head.id
        else:
            head_id = texts[0].id if texts else None
        texts = [one for one in texts if self._texts.get(one.id) != one.text]
        names = {node.name: node.id for node in nodes if node.name}
        if (
            not added
            and not texts
            and not removed
            and (head_id, names) == (self.head_id, self._names)
        ):
            return None
        return Changes(
            conversation_id=session_id,
            title=title_of(tree.roots[0].message.content if tree.roots else document.text),
            added=(*(self._record(session_id, node) for node in added), *texts),
            removed=removed,
            head_id=head_id,
            branches=names,
        )

    def _take(self, changes: Changes) -> None:
        """The library has these changes now."""
        for gone in changes.removed:
            self._texts.pop(gone, None)
            self._known.pop(gone, None)
        self._texts |= {one.id: one.text for one in changes.added}
        self.head_id, self._names = changes.head_id, dict(changes.branches)

    def _text(self, session_id: str, document: Document) -> MessageRecord:
        """The completion page's text, as one message."""
        written = [[one.at, one.written] for one in document.continuations]
        return MessageRecord(
            id=self._text_id,
            conversation_id=session_id,
            parent_id=None,
            role="user",
            text=document.text,
            created_s=time.time(),
            extra={CONTINUATIONS: written},
        )

    def _record(self, session_id: str, node: Node) -> MessageRecord:
        """The node as the library keeps it, with what was known of it before."""
        facts = node.facts
        record = self._known.get(node.id) or MessageRecord(
            id=node.id,
            conversation_id=session_id,
            parent_id=None if node.parent is None else node.parent.id,
            role=node.message.role,
            text="",
            created_s=(facts.ended_s if facts else None) or time.time(),
        )
        if facts is not None:
            record = replace(
                record,
                status="stopped" if facts.is_cut_short else "complete",
                num_tokens=facts.completion_tokens,
                context_tokens=facts.context_tokens,
                model=facts.model or None,
                ttft_s=facts.ttft_s,
                tokens_per_s=facts.tokens_per_s,
                extra={**record.extra, **_extra(facts)},
            )
        return replace(record, text=node.message.content)


def opened(kept: KeptTree) -> Tree:
    """The page's tree of a kept conversation."""
    tree = Tree()
    nodes: dict[str, Node] = {}
    names = {branch.message_id: branch.name for branch in kept.branches}
    for record in kept.messages:
        if is_text(record):
            continue
        parent = nodes.get(record.parent_id or "")
        node = tree.add(parent, Message(record.role, record.text), node_id=record.id)
        node.name = names.get(record.id, "")
        node.facts = _facts(record) if record.role == "assistant" else None
        nodes[record.id] = node
    tree.head = nodes.get(kept.conversation.head_id or "")
    return tree


def is_text(record: MessageRecord) -> bool:
    """Whether it is the completion page's text, and no message of a chat."""
    return CONTINUATIONS in record.extra


def opened_text(kept: KeptTree) -> Document:
    """The completion page's text of a kept conversation; an empty one of a chat."""
    for record in kept.messages:
        if is_text(record):
            return Document(record.text, [*_continuations(record.extra[CONTINUATIONS])])
    return Document()


def _continuations(told: Any) -> Iterator[Continuation]:
    """The valid ones: the conversation may have come from a file."""
    for one in told if isinstance(told, list) else ():
        match one:
            case [int(at), str(written)]:
                yield Continuation(max(at, 0), written)


def title_of(text: str) -> str:
    """The beginning of the text, on one line."""
    line = " ".join(text[:1_000].split())
    return line if len(line) <= MAX_TITLE_CHARS else line[: MAX_TITLE_CHARS - 1].rstrip() + "…"


def _extra(facts: Facts) -> dict[str, Any]:
    """What only the page shows."""
    named = {name: getattr(facts, name) for name in (*SHOWN, "system")}
    return {name: value for name, value in named.items() if value is not None}


def _facts(record: MessageRecord) -> Facts:
    """What the library knows of a reply; the conversation may have come from a file."""
    system = record.extra.get("system")
    return Facts(
        context_tokens=record.context_tokens,
        completion_tokens=record.num_tokens,
        tokens_per_s=record.tokens_per_s,
        ttft_s=record.ttft_s,
        is_cut_short=record.status != "complete" or record.finish_reason == "length",
        model=record.model or "",
        ended_s=record.created_s + (record.duration_s or 0.0),
        system=system if isinstance(system, str) else "",
        **sound({**record.extra}, SHOWN),
    )
