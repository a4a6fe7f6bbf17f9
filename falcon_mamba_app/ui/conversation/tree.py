"""A conversation as the tree that it is: an edit or a retry adds a branch, and takes none away.

One branch is shown, from the root to `head`. It knows no model and no page.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from falcon_mamba_app.protocol import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of one reply once it is over. None means "not known"."""

    context_tokens: int | None = None  # read and written up to its end
    completion_tokens: int | None = None
    prompt_tokens: int | None = None
    reused_tokens: int | None = None
    tokens_per_s: float | None = None
    ttft_s: float | None = None
    prefill_s: float | None = None
    is_cut_short: bool = False  # stopped, or at the limit: it can be continued
    settings: str = ""  # "temperature 0.7, seed 4"
    model: str = ""
    system: str = ""  # tells system prompts apart: the one under which all was read
    ended_s: float | None = None  # seconds since 1970
    strip: str | None = None  # the picture of the state after it


@dataclass(slots=True, eq=False)
class Node:
    """One message, and what was said after it in each branch."""

    id: str
    message: Message
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)
    facts: Facts | None = None
    name: str = ""  # a moment that the visitor has named

    def path(self) -> list[Node]:
        """From the first message to this one."""
        nodes: list[Node] = []
        node: Node | None = self
        while node is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    def newest_leaf(self) -> Node:
        """The end of the branch that was added last below this node."""
        node = self
        while node.children:
            node = node.children[-1]
        return node


class Tree:
    """All branches of one conversation."""

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        self.roots: list[Node] = []
        self.head: Node | None = None
        self._nodes: dict[str, Node] = {}
        for message in messages:
            self.head = self.add(self.head, message)

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    @property
    def path(self) -> list[Node]:
        """The branch that is shown."""
        return [] if self.head is None else self.head.path()

    @property
    def messages(self) -> list[Message]:
        """The texts of the branch that is shown."""
        return [node.message for node in self.path]

    def node(self, node_id: object) -> Node | None:
        """The message of this id, or None: pages may ask for anything."""
        return self._nodes.get(node_id) if isinstance(node_id, str) else None

    def add(self, parent: Node | None, message: Message, *, node_id: str | None = None) -> Node:
        """Add a message after `parent`, beside those that are there; it is not shown by that."""
        node = Node(node_id or new_node_id(), message, parent)
        self.branches_after(parent).append(node)
        self._nodes[node.id] = node
        return node

    def branches_after(self, parent: Node | None) -> list[Node]:
        """The messages that follow `parent`, or that begin the conversation."""
        return self.roots if parent is None else parent.children

    def place_of(self, node: Node) -> tuple[int, int]:
        """Which of how many branches it is, counted from 1."""
        siblings = self.branches_after(node.parent)
        return siblings.index(node) + 1, len(siblings)

    def remove(self, node: Node) -> None:
        """Take the message and all that follows it out; `restore` puts it back."""
        if node in self.path:
            self.head = node.parent
        self.branches_after(node.parent).remove(node)
        for gone in _below(node):
            del self._nodes[gone.id]

    def restore(self, node: Node, place: int) -> None:
        """Put a removed message back as branch number `place`, and show it."""
        self.branches_after(node.parent).insert(place - 1, node)
        for back in _below(node):
            self._nodes[back.id] = back
        self.head = node.newest_leaf()


def new_node_id() -> str:
    """Later ones sort later, and nobody guesses one."""
    return f"msg_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def _below(node: Node) -> Iterator[Node]:
    """The node and all that follow it; conversations are too deep for recursion."""
    left = [node]
    while left:
        node = left.pop()
        yield node
        left += node.children
