"""Conversations that last: trees of messages with the model's own ids, in a database.

It knows no page, no HTTP and no tensors; a state is a name here, and bytes elsewhere. `library` is
the facade that everybody calls, `tree` holds its values. Below it, `conversations`, `messages`,
`replies`, `changes`, `removal` and `search` are the statements on the tables of `schema`, and
`rows` converts between both. `writers` tells whether another process still writes its reply,
`claims` who may write the next turn, `spending` what visitors have used at other copies.

`database` runs statements on its threads, `sqlite` and `postgres` set the two engines up, `wiping`
leaves nothing of deleted words in a file, `failures` words the database's errors. `migrate` applies
`migrations/`, the versions of the schema. `exchange/` brings conversations into files and back.
"""

from falcon_mamba_app.library.claims import Claim
from falcon_mamba_app.library.database import Place
from falcon_mamba_app.library.library import Library
from falcon_mamba_app.library.tree import (
    BranchRecord,
    Changes,
    ConversationRecord,
    Deleted,
    Hit,
    MessageRecord,
    Page,
    ReplyEnd,
    Tree,
    new_id,
)

__all__ = [
    "BranchRecord",
    "Changes",
    "Claim",
    "ConversationRecord",
    "Deleted",
    "Hit",
    "Library",
    "MessageRecord",
    "Page",
    "Place",
    "ReplyEnd",
    "Tree",
    "new_id",
]
