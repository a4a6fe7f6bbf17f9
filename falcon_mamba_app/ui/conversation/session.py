"""One conversation of the page while it is in use, and what its events may meet.

The server's copy of a conversation is the one that counts. Knows no model and no components.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from falcon_mamba_app.books.bookcase import Bookcase
from falcon_mamba_app.books.books import Books
from falcon_mamba_app.errors import FalconMambaError
from falcon_mamba_app.protocol import GenerationRequest, Message
from falcon_mamba_app.ui.conversation.document import Document
from falcon_mamba_app.ui.conversation.shelf import Shelf
from falcon_mamba_app.ui.conversation.tree import Node, Tree
from falcon_mamba_app.ui.conversation.turn import Turn
from falcon_mamba_app.visitors import Visitor


class Remark(NamedTuple):
    """A remark of the page below the conversation; the model never reads it."""

    title: str
    sentence: str


class Busy(FalconMambaError):
    """The session writes a reply already."""

    def __init__(self) -> None:
        super().__init__(
            "A reply is still being written in this conversation."
            " Stop it first, or wait for its end."
        )


class Lost(FalconMambaError):
    """An event of a page without a session: the server was restarted, or has freed the session."""

    def __init__(self) -> None:
        super().__init__("This page was away for long. It is being opened again")


@dataclass(frozen=True, slots=True)
class StandsOn:
    """The book that a conversation began from, and whose books that is one of."""

    book_id: str
    name: str
    num_tokens: int
    books: Books
    case: Bookcase

    async def request_on(self, request: GenerationRequest) -> GenerationRequest:
        """Raises NotFound where the book has been deleted, InvalidRequest."""
        return (await self.books.on(self.case, self.book_id, request))[0]


@dataclass(slots=True, eq=False)
class Session:
    """One conversation. `turn` is the reply being written; one at a time, whatever the page.

    Between turns `tree` holds what is shown; during one, `catch_up` makes it so.
    """

    id: str
    last_used_s: float
    tree: Tree = field(default_factory=Tree)
    document: Document = field(default_factory=Document)
    book: StandsOn | None = None  # what it began from
    removed: tuple[Node, int] | None = None  # the message taken out last, and which branch it was
    unanswered: str | None = None  # a message that got no reply, for the next page to return
    remark: Remark | None = None  # about the last turn
    system_prompt: str = ""  # under which its last reply was asked for
    was_titled: bool = False  # the model was asked for a title
    pair: tuple[str, str] | None = None  # two replies to one message, shown side by side
    is_cut: bool = False  # its last reply ended because no page watched it any more
    turn: Turn | None = None
    claimed_by: Visitor | None = None  # who used it last
    shelf: Shelf | None = None  # of a kept conversation, what the library has of it
    pages: set[str] = field(default_factory=set)  # that show it; the last one stays when it leaves
    left_s: float | None = None  # when its last page went away

    @property
    def visitor(self) -> Visitor:
        """The visitor for whom its replies count. Without one, no limit would apply."""
        assert self.claimed_by is not None, "a session is used that no visitor has claimed"
        return self.claimed_by

    @property
    def messages(self) -> list[Message]:
        """The branch of the conversation that is shown."""
        return self.tree.messages

    @property
    def context_tokens(self) -> int | None:
        """Tokens read and written up to the last message, as far as they are known."""
        head = self.tree.head
        return None if head is None or head.facts is None else head.facts.context_tokens

    def catch_up(self) -> None:
        """Bring the messages up to date with the reply being written."""
        if self.turn is not None:
            self.turn.target.take(self.turn.reply)

    async def save(self) -> bool:
        """Write what the conversation has become, if it is kept; False where that was not
        possible.
        """
        shelf = self.shelf
        return shelf is None or await shelf.save(self.id, self.tree, self.document)

    def stamp(self, strip: str | None) -> None:
        """Keep the picture of the state after the reply that is shown last."""
        head = self.tree.head
        if strip is not None and head is not None and head.facts is not None:
            head.facts = replace(head.facts, strip=strip)

    def remove(self, node: Node) -> None:
        """Take a message and what follows it out of the conversation; the last one can be put
        back.
        """
        self.removed = node, self.tree.place_of(node)[0]
        self.tree.remove(node)

    def removed_node(self, node_id: object) -> Node | None:
        """The message taken out last, if it is this one."""
        return self.removed[0] if self.removed and self.removed[0].id == node_id else None

    def put_back(self, node: Node) -> bool:
        """Put the removed message back where it was; False when it is not the last removed."""
        if self.removed is None or self.removed[0] is not node:
            return False
        self.tree.restore(*self.removed)
        self.removed = None
        return True

    def take_unanswered(self) -> str | None:
        """The message that got no reply, once."""
        text, self.unanswered = self.unanswered, None
        return text

    def begin(self) -> None:
        """Begin a new turn: clear the remark and the unanswered message of the previous one."""
        self.unanswered, self.remark, self.is_cut, self.pair = None, None, False, None

    def refuse_if_busy(self) -> None:
        """Raises Busy while a reply is being written."""
        if self.turn is not None:
            raise Busy

    def interrupt(self) -> None:
        """Stop the reply being written, if any, and let go of it."""
        if self.turn is not None:
            self.turn.drop()
            self.turn = None
