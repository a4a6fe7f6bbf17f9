"""The database's own errors, as one sentence each.

Who calls the library goes on in memory after any of them: they all become LibraryUnavailable.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as NoConnection

from falcon_mamba_app.errors import Conflict, LibraryUnavailable

# How SQLite and PostgreSQL say it, in lower case; the first that fits is told.
SENTENCES = (
    ("disk is full", "the disk that holds the conversations is full"),
    ("no space left", "the disk that holds the conversations is full"),
    ("readonly database", "the file of the conversations cannot be written to"),
    ("read-only", "the file of the conversations cannot be written to"),
    ("database is locked", "another program holds the file of the conversations"),
    ("malformed", "the file of the conversations is damaged"),
    ("not a database", "the file of the conversations is damaged"),
    ("unable to open", "the file of the conversations cannot be opened"),
    ("no such file", "the file of the conversations has gone; put its folder back"),
    ("disk i/o error", "the disk that holds the conversations failed"),
    ("no such table", "the file of the conversations has lost its tables"),
    ("connection", "the database of the conversations cannot be reached"),
)
AFTER = "; what is said now is kept in memory only"


@contextmanager
def told_in_a_sentence() -> Iterator[None]:
    """Errors of the database leave as LibraryUnavailable; a name that is taken as Conflict."""
    try:
        yield
    except IntegrityError as error:
        raise Conflict("a conversation or message of this id is there already") from error
    except (DBAPIError, NoConnection, OSError) as error:
        raise LibraryUnavailable(sentence_about(error) + AFTER) from error


def sentence_about(error: BaseException) -> str:
    """What is wrong, without the words of a statement: those may be a visitor's."""
    original = getattr(error, "orig", None) or error
    told = str(original).lower()
    for words, sentence in SENTENCES:
        if words in told:
            return sentence
    return f"the database of the conversations failed ({type(original).__name__})"
