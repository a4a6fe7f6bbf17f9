"""SQLite's file: what it leaves behind, what it survives, where it is refused."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event

import falcon_mamba_app.library.schema as schema
from falcon_mamba_app.errors import LibraryUnavailable
from falcon_mamba_app.library import Library, Place, ReplyEnd
from falcon_mamba_app.library.migrate import MIGRATIONS
from falcon_mamba_app.library.sqlite import NETWORK_FILE_SYSTEMS, copy_file, file_system_of

ADA = "ada"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


async def one_turn(library: Library, text: str, reply: str = "Yes."):
    conversation = await library.create(ADA, title=text)
    question = await library.append(ADA, conversation.id, parent_id=None, role="user", text=text)
    writing = await library.begin_reply(ADA, conversation.id, parent_id=question.id)
    await library.extend_reply(ADA, writing.generation, 0, reply)
    return conversation, await library.finish_reply(ADA, writing.generation, ReplyEnd(text=reply))


def bytes_of(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()))


async def test_no_word_of_a_deleted_conversation_stays_in_the_files(folder):
    library = await Library.open(Place(folder=folder))
    kept, _ = await one_turn(library, "quokka wombat", "numbat")
    gone, _ = await one_turn(library, "xylophone zeppelin", "yacht" * 3_000)
    assert b"xylophone" in bytes_of(folder)
    await library.delete(ADA, gone.id)
    left = bytes_of(folder)
    for word in (b"xylophone", b"zeppelin", b"yacht", gone.id.encode()):
        assert word not in left, word
    assert b"quokka" in left
    assert [hit.conversation.id for hit in await library.search(ADA, "wombat")] == [kept.id]
    await library.delete_everything(ADA)
    assert b"numbat" not in bytes_of(folder) and b"quokka" not in bytes_of(folder)
    await library.close()


async def test_a_deleted_messages_words_go_too(folder):
    library = await Library.open(Place(folder=folder))
    _, reply = await one_turn(library, "question", "xylophone")
    await library.remove_branch(ADA, reply.id)
    assert b"xylophone" not in bytes_of(folder)
    await library.close()


async def test_a_locked_file_costs_a_sentence_and_works_again_afterwards(folder, monkeypatch):
    monkeypatch.setattr("falcon_mamba_app.library.sqlite.BUSY_TIMEOUT_S", 0.05)
    library = await Library.open(Place(folder=folder))
    await one_turn(library, "one")
    holder = sqlite3.connect(folder / "conversations.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(LibraryUnavailable, match="another program holds"):
        await library.create(ADA)
    assert len((await library.list(ADA)).conversations) == 1  # who reads does not wait
    holder.close()
    await one_turn(library, "two")
    assert len((await library.list(ADA)).conversations) == 2
    await library.close()


async def test_a_full_disk_costs_a_sentence_and_loses_nothing_that_was_written(folder):
    library = await Library.open(Place(folder=folder))
    conversation, _ = await one_turn(library, "one")
    writer = library._database._writer
    with writer.connect() as connection:
        raw = connection.connection.dbapi_connection
        pages = raw.execute("PRAGMA page_count").fetchone()[0]
        raw.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(LibraryUnavailable, match="is full"):
        await one_turn(library, "two " * 50_000)
    assert [one.text for one in await library.path(ADA, conversation.id)] == ["one", "Yes."]
    with writer.connect() as connection:
        connection.connection.dbapi_connection.execute("PRAGMA max_page_count=1000000")
    await one_turn(library, "two " * 50_000)
    await library.close()


async def test_a_file_that_may_not_be_written_costs_a_sentence(folder):
    library = await Library.open(Place(folder=folder))

    def protect(raw, _record, _proxy):
        raw.execute("PRAGMA query_only=ON")

    event.listen(library._database._writer, "checkout", protect)
    with pytest.raises(LibraryUnavailable, match="cannot be written to"):
        await library.create(ADA)
    await library.close()


async def test_a_folder_that_goes_away_costs_a_sentence_and_works_again_when_it_is_back(folder):
    library = await Library.open(Place(folder=folder))
    before, _ = await one_turn(library, "one")
    folder.rename(folder.with_name("elsewhere"))
    for asked in (library.create(ADA), library.get(ADA, before.id)):
        with pytest.raises(LibraryUnavailable, match="has gone; put its folder back"):
            await asked
    folder.with_name("elsewhere").rename(folder)
    await one_turn(library, "two")
    await library.close()
    again = await Library.open(Place(folder=folder))
    assert len((await again.list(ADA)).conversations) == 2
    await again.close()


async def test_a_copy_that_is_put_in_the_files_place_is_the_one_that_is_used(folder):
    library = await Library.open(Place(folder=folder))
    before, _ = await one_turn(library, "one")
    copy_file(folder / "conversations.db", folder / "copy")
    await one_turn(library, "two")
    for name in ("conversations.db", "conversations.db-wal", "conversations.db-shm"):
        (folder / name).unlink(missing_ok=True)
    (folder / "copy").rename(folder / "conversations.db")
    listed = (await library.list(ADA)).conversations
    assert [one.id for one in listed] == [before.id]
    await one_turn(library, "three")
    await library.close()


@pytest.mark.parametrize("damage", [b"", b"not a database " * 300, None])
async def test_a_damaged_file_costs_a_sentence_and_stays_as_it_is(folder, damage):
    library = await Library.open(Place(folder=folder))
    await one_turn(library, "one")
    await library.close()
    file = folder / "conversations.db"
    whole = file.read_bytes()
    torn = whole[:4096] + b"\xff" * (len(whole) - 4096) if damage is None else damage
    file.write_bytes(torn)
    if not torn:  # an empty file is a new one
        await (await Library.open(Place(folder=folder))).close()
        return
    with pytest.raises(LibraryUnavailable, match="damaged|lost its tables"):
        broken = await Library.open(Place(folder=folder))
        await broken.list(ADA)
    assert file.read_bytes()[:4096] == torn[:4096]


async def test_a_newer_schema_is_refused_and_left_alone(folder):
    await (await Library.open(Place(folder=folder))).close()
    with sqlite3.connect(folder / "conversations.db") as newer:
        newer.execute("UPDATE alembic_version SET version_num = '9999'")
    before = (folder / "conversations.db").read_bytes()
    with pytest.raises(LibraryUnavailable, match="newer version of this app .schema 9999"):
        await Library.open(Place(folder=folder))
    assert (folder / "conversations.db").read_bytes() == before


async def test_the_migrations_make_the_tables_that_the_code_names(place):
    library = await Library.open(place)

    def compare(connection):
        context = MigrationContext.configure(connection, opts={"include_object": _is_ours})
        return compare_metadata(context, schema.metadata)

    assert await library._database.read(compare) == []
    await library.close()
    assert ScriptDirectory(str(MIGRATIONS)).get_heads() == [schema.HEAD]


def _is_ours(_object, name, kind, _reflected, _compared):
    return "_words" not in name


def test_the_kind_of_file_system_is_the_deepest_mounts():
    mounts = "a / ext4 rw 0 0\nb /home nfs4 rw 0 0\nc /home/a\\040b ext4 rw 0 0\n"
    for path, kind in (("/tmp/x", "ext4"), ("/home/x", "nfs4"), ("/home/a b/x", "ext4")):
        assert file_system_of(Path(path), mounts) == kind
    assert file_system_of(Path("/home/x"), mounts) in NETWORK_FILE_SYSTEMS


async def test_a_network_file_system_is_refused_with_what_to_do(folder, monkeypatch):
    monkeypatch.setattr("falcon_mamba_app.library.sqlite.file_system_of", lambda path: "nfs4")
    with pytest.raises(LibraryUnavailable, match="nfs4.*--data-dir.*--database-url"):
        await Library.open(Place(folder=folder))
    assert not folder.exists()
