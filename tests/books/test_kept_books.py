"""A book outlives the process, and its owner may share it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from falcon_mamba_app.books.bookcase import Bookcase
from falcon_mamba_app.books.books import Books
from falcon_mamba_app.books.desk import Reader
from falcon_mamba_app.documents.limits import Document
from falcon_mamba_app.library import Library
from falcon_mamba_app.protocol import Conversation, GenerationRequest, Message, SamplingParams
from falcon_mamba_app.state_store.objects import MEMORY, open_store
from tests.support.services import collect, files_in, make_local_service

TEXT = Document("The miller kept a red lamp in the cellar. " * 8, "text", 1)
ASK = GenerationRequest(
    prompt=Conversation([Message("user", "Where is the lamp?")]),
    sampling=SamplingParams(temperature=0.0, max_new_tokens=2),
)


async def test_after_a_restart_a_shared_book_is_begun_from_by_others_and_read_by_nobody():
    library, store = await Library.open(), open_store(MEMORY)
    keeping = SimpleNamespace(library=library, owner_of=lambda asking: None)
    anna, tom = (Bookcase(library, name, is_lasting=True) for name in ("anna", "tom"))
    first = make_local_service(open_files=files_in(store))
    await first.start()
    books = Books(first, keeping)
    begun = await books.begin(anna, await books.count("mill.txt", TEXT), Reader())
    while (await books.own(anna, begun.id)).status == "reading":
        await asyncio.sleep(0.01)
    assert [book.id for book in await books.books(tom)] == []
    await books.share(anna, begun.id, is_shared=True)
    await first.close()
    second = make_local_service(open_files=files_in(store))
    await second.start()
    books = Books(second, keeping)
    (book,) = await books.books(tom)
    (asked,) = await books.on(tom, book.id, ASK)
    end = (await collect(second, asked))[-1]
    assert end.reused_tokens == book.num_read == book.num_tokens
    await books.delete(anna, book.id)
    assert await books.books(tom) == []
    await second.close()
    await library.close()
