"""What the library promises, whatever database is under it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from falcon_mamba_app.errors import Conflict, InvalidRequest, NotFound
from falcon_mamba_app.library import (
    BranchRecord,
    Changes,
    Claim,
    ConversationRecord,
    Library,
    MessageRecord,
    Place,
    ReplyEnd,
    Tree,
)
from falcon_mamba_app.library.tree import ids_of, packed_ids

ADA, BOB = "user:Ada", "user:Bob"


async def asked(library: Library, text: str = "What is a mamba?", owner: str = ADA):
    """A conversation with one question."""
    conversation = await library.create(owner, title=text)
    question = await library.append(owner, conversation.id, parent_id=None, role="user", text=text)
    return conversation, question


async def replied(library: Library, conversation, question, text: str, **known):
    reply = await library.begin_reply(ADA, conversation.id, parent_id=question.id, model="nano")
    return await library.finish_reply(ADA, reply.generation, ReplyEnd(text=text, **known))


async def test_a_turn_comes_back_with_its_exact_ids(library):
    conversation, question = await asked(library)
    ids = (65_023, 0, 7, 7)
    reply = await library.begin_reply(
        ADA, conversation.id, parent_id=question.id, model="nano", sampling={"temperature": 0.5}
    )
    end = ReplyEnd(
        text="A snake.", token_ids=packed_ids(ids), num_tokens=4, context_tokens=9, ttft_s=0.25
    )
    await library.finish_reply(ADA, reply.generation, end)

    first, second = await library.path(ADA, conversation.id)
    assert (first.role, first.text) == ("user", "What is a mamba?")
    assert (second.role, second.text, second.status) == ("assistant", "A snake.", "complete")
    assert ids_of(second.token_ids) == ids
    assert (second.model, second.sampling, second.ttft_s) == ("nano", {"temperature": 0.5}, 0.25)
    found = await library.get(ADA, conversation.id)
    assert (found.head_id, found.num_messages, found.num_tokens) == (second.id, 2, 4)
    assert await library.context_tokens(ADA, [conversation.id, "another"]) == {conversation.id: 9}
    assert await library.context_tokens(BOB, [conversation.id]) == {}


async def test_a_reply_being_written_shows_the_words_so_far(library):
    conversation, question = await asked(library)
    reply = await library.begin_reply(ADA, conversation.id, parent_id=question.id)
    for seq, piece in enumerate(["A ", "sna", "ke"]):
        await library.extend_reply(ADA, reply.generation, seq, piece)
    *_, shown = await library.path(ADA, conversation.id)
    assert (shown.text, shown.status) == ("A snake", "writing")
    assert (await library.message(ADA, reply.id)).text == "A snake"

    ended = await library.finish_reply(ADA, reply.generation, ReplyEnd(status="stopped"))
    assert (ended.text, ended.status, ended.generation) == ("A snake", "stopped", None)


async def test_only_who_began_a_reply_goes_on_with_it_and_each_piece_counts_once(library):
    conversation, question = await asked(library)
    reply = await library.begin_reply(ADA, conversation.id, parent_id=question.id)
    await library.extend_reply(ADA, reply.generation, 0, "A ")
    with pytest.raises(Conflict, match="piece 0"):
        await library.extend_reply(ADA, reply.generation, 0, "B ")
    with pytest.raises(Conflict):
        await library.extend_reply(BOB, reply.generation, 1, "snake")
    await library.finish_reply(ADA, reply.generation, ReplyEnd())
    with pytest.raises(Conflict, match="over"):
        await library.extend_reply(ADA, reply.generation, 1, "snake")
    with pytest.raises(Conflict, match="over"):
        await library.finish_reply(ADA, reply.generation, ReplyEnd())


@pytest.mark.parametrize("place", ["file", "postgres"], indirect=True)  # that others can see
async def test_a_reply_is_broken_off_at_once_when_its_process_has_gone(library, place):
    writing = await Library.open(place)
    conversation, question = await asked(writing)
    reply = await writing.begin_reply(ADA, conversation.id, parent_id=question.id)
    await writing.extend_reply(ADA, reply.generation, 0, "A sna")
    assert await library.close_broken_off() == 0
    assert (await library.message(ADA, reply.id)).status == "writing"
    await writing.close()
    *_, kept = await library.path(ADA, conversation.id)
    assert (kept.text, kept.status, kept.generation) == ("A sna", "interrupted", None)
    assert (await library.message(ADA, reply.id)).status == "interrupted"


async def test_a_reply_of_a_version_that_named_no_process_is_broken_off(library, monkeypatch):
    monkeypatch.setattr("falcon_mamba_app.library.replies.new_generation", lambda _: "gen_old")
    conversation, question = await asked(library)
    reply = await library.begin_reply(ADA, conversation.id, parent_id=question.id)
    await library.extend_reply(ADA, reply.generation, 0, "A sna")
    assert (await library.tree(ADA, conversation.id)).by_id[reply.id].status == "interrupted"


async def test_an_edit_and_another_try_are_siblings_and_nothing_is_lost(library):
    conversation, question = await asked(library)
    first = await replied(library, conversation, question, "A snake.")
    second = await replied(library, conversation, question, "A model.")
    edited = await library.append(
        ADA, conversation.id, parent_id=None, role="user", text="And a cobra?"
    )
    tree = await library.tree(ADA, conversation.id)
    assert tree.siblings(second.id)[1] == 1
    assert [one.id for one in tree.siblings(first.id)[0]] == [first.id, second.id]
    assert [one.text for one in tree.path()] == ["And a cobra?"]
    assert [one.text for one in tree.path(first.id)] == ["What is a mamba?", "A snake."]
    assert {one.id for one in tree.ends} == {first.id, second.id, edited.id}
    assert [one.id for one in tree.forks] == [question.id]

    await library.set_head(ADA, conversation.id, first.id)
    assert [one.text for one in await library.path(ADA, conversation.id)][-1] == "A snake."


async def test_the_head_is_compared_before_it_is_swapped(library):
    conversation, question = await asked(library)
    version = (await library.get(ADA, conversation.id)).version
    await library.append(
        ADA,
        conversation.id,
        parent_id=question.id,
        role="user",
        text="first",
        expected_version=version,
    )
    for late in (
        library.append(
            ADA,
            conversation.id,
            parent_id=question.id,
            role="user",
            text="late",
            expected_version=version,
        ),
        library.set_head(ADA, conversation.id, None, expected_version=version),
        library.change(ADA, conversation.id, title="late", expected_version=version),
    ):
        with pytest.raises(Conflict, match="meanwhile"):
            await late
    assert len((await library.tree(ADA, conversation.id)).messages) == 2


async def test_moments_have_names(library):
    conversation, question = await asked(library)
    await library.name_branch(ADA, conversation.id, " start ", question.id)
    reply = await replied(library, conversation, question, "A snake.")
    await library.name_branch(ADA, conversation.id, "snake", question.id)
    await library.name_branch(ADA, conversation.id, "snake", reply.id)
    tree = await library.tree(ADA, conversation.id)
    assert [(b.name, b.message_id) for b in tree.branches] == [
        ("snake", reply.id),
        ("start", question.id),
    ]
    await library.unname_branch(ADA, conversation.id, "start")
    with pytest.raises(NotFound):
        await library.unname_branch(ADA, conversation.id, "start")


async def test_a_fork_is_a_conversation_of_its_own(library):
    conversation, question = await asked(library)
    reply = await replied(library, conversation, question, "A snake.", token_ids=b"\1\0\0\0")
    await replied(library, conversation, question, "A model.")
    fork = await library.fork(ADA, conversation.id, reply.id, title="Snakes")
    await library.delete(ADA, conversation.id)
    copied = await library.path(ADA, fork.id)
    assert [one.text for one in copied] == ["What is a mamba?", "A snake."]
    assert copied[1].token_ids == b"\1\0\0\0" and copied[1].id != reply.id
    assert (fork.title, fork.num_messages) == ("Snakes", 2)


async def test_lists_are_paged_the_pinned_first_then_the_last_changed(library):
    made = [await library.create(ADA, title=f"number {i}") for i in range(5)]
    await library.change(ADA, made[1].id, is_pinned=True)
    await library.change(ADA, made[2].id, is_archived=True)
    await library.append(ADA, made[0].id, parent_id=None, role="user", text="again")
    titles, cursor = [], None
    while True:
        page = await library.list(ADA, limit=2, cursor=cursor)
        titles += [one.title for one in page.conversations]
        cursor = page.next
        if cursor is None:
            break
    assert titles == ["number 1", "number 0", "number 4", "number 3"]
    archived = await library.list(ADA, is_archived=True)
    assert [one.title for one in archived.conversations] == ["number 2"]
    assert len((await library.list(ADA, is_archived=None)).conversations) == 5
    with pytest.raises(InvalidRequest, match="cursor"):
        await library.list(ADA, cursor="1:x:2")
    with pytest.raises(InvalidRequest, match="limit"):
        await library.list(ADA, limit=0)


async def test_the_conversations_of_a_folder_are_listed(library):
    for folder in ("Snakes", "Snakes", "Models", ""):
        await library.create(ADA, title=f"in {folder}", folder=folder)
    page = await library.list(ADA, folder="Snakes")
    assert [one.title for one in page.conversations] == ["in Snakes"] * 2
    with pytest.raises(InvalidRequest, match="folder"):
        await library.create(ADA, folder="x" * 101)


async def test_words_are_found_in_titles_and_on_every_branch(library):
    conversation, question = await asked(library, "What is a mamba?")
    await replied(library, conversation, question, "Ein Würgeschlange? No: a black SNAKE, 'tis.")
    await replied(library, conversation, question, "A state-space model.")
    other, _ = await asked(library, "Tell me of snakeskin")
    hits = await library.search(ADA, "snake")
    assert {hit.conversation.id for hit in hits} == {conversation.id, other.id}
    assert [hit.excerpt for hit in await library.search(ADA, "black snake")] == [
        "Ein Würgeschlange? No: a black SNAKE, 'tis."
    ]
    assert len(await library.search(ADA, "mam")) == 1
    assert await library.search(ADA, "snake cobra") == ()
    for hostile in (
        "",
        "   ",
        '"',
        "a' OR 1=1 --",
        "AND",
        "NEAR(",
        "text:",
        "*",
        ":*",
        "(",
        "\x00",
    ):
        await library.search(ADA, hostile)
    await library.change(ADA, other.id, title="Renamed")
    assert [hit.conversation.title for hit in await library.search(ADA, "renamed")] == ["Renamed"]


async def test_nothing_of_another_owner_is_found(library):
    conversation, question = await asked(library)
    reply = await replied(library, conversation, question, "A snake.")
    calls = (
        library.get(BOB, conversation.id),
        library.tree(BOB, conversation.id),
        library.path(BOB, conversation.id),
        library.message(BOB, reply.id),
        library.change(BOB, conversation.id, title="mine"),
        library.set_head(BOB, conversation.id, None),
        library.append(BOB, conversation.id, parent_id=None, role="user", text="x"),
        library.begin_reply(BOB, conversation.id, parent_id=question.id),
        library.name_branch(BOB, conversation.id, "mine", reply.id),
        library.unname_branch(BOB, conversation.id, "mine"),
        library.fork(BOB, conversation.id, reply.id),
        library.delete(BOB, conversation.id),
    )
    for call in calls:
        with pytest.raises(NotFound):
            await call
    assert (await library.list(BOB)).conversations == ()
    assert await library.search(BOB, "snake") == ()
    assert len(await library.delete_everything(BOB)) == 0
    assert len(await library.path(ADA, conversation.id)) == 2


async def test_a_message_of_another_conversation_is_no_parent(library):
    conversation, _ = await asked(library)
    _, foreign = await asked(library)
    for call in (
        library.append(ADA, conversation.id, parent_id=foreign.id, role="user", text="x"),
        library.set_head(ADA, conversation.id, foreign.id),
        library.name_branch(ADA, conversation.id, "x", foreign.id),
        library.fork(ADA, conversation.id, foreign.id),
    ):
        with pytest.raises(NotFound):
            await call
    assert (await library.get(ADA, conversation.id)).num_messages == 1


async def test_deleted_means_words_events_and_all(library):
    conversation, question = await asked(library)
    reply = await replied(library, conversation, question, "A snake.")
    writing = await library.begin_reply(ADA, conversation.id, parent_id=reply.id)
    await library.extend_reply(ADA, writing.generation, 0, "python")
    await library.name_branch(ADA, conversation.id, "here", reply.id)
    fork = await library.fork(ADA, conversation.id, reply.id)
    gone = await library.delete(ADA, conversation.id)
    assert (gone.conversation_ids, gone.num_messages) == ((conversation.id,), 3)
    with pytest.raises(NotFound):
        await library.message(ADA, reply.id)
    with pytest.raises(Conflict):
        await library.extend_reply(ADA, writing.generation, 1, "x")
    assert [hit.conversation.id for hit in await library.search(ADA, "snake")] == [fork.id]
    gone = await library.delete_everything(ADA)
    assert gone.conversation_ids == (fork.id,)
    assert await library.search(ADA, "snake") == ()


def said(conversation_id, id, parent_id, text, **known):
    return MessageRecord(
        id=id, conversation_id=conversation_id, parent_id=parent_id, text=text, role="user",
        created_s=1.0, **known,
    )  # fmt: skip


async def test_a_conversation_becomes_what_its_holder_made_of_it(library):
    first = (said("c", "a", None, "one"), said("c", "b", "a", "two", num_tokens=3))
    made = await library.apply(
        ADA,
        Changes(conversation_id="c", title="T", added=first, head_id="b", branches={"x": "a"}),
    )
    assert (made.title, made.num_messages, made.num_tokens, made.head_id) == ("T", 2, 3, "b")
    more = (said("c", "d", "a", "three"), said("c", "e", "d", "four"))
    made = await library.apply(
        ADA, Changes(conversation_id="c", title="no", added=more, removed=("b",), head_id="e")
    )
    tree = await library.tree(ADA, "c")
    assert [one.id for one in tree.messages] == ["a", "d", "e"]
    assert (made.title, made.num_tokens, tree.branches) == ("T", 0, ())
    assert [one.text for one in tree.path()] == ["one", "three", "four"]
    with pytest.raises(Conflict):
        await library.apply(BOB, Changes(conversation_id="c", added=(), head_id=None))
    assert await library.search(ADA, "two") == ()


async def test_a_reply_whose_end_was_not_written_is_written_by_its_holder(library):
    conversation, question = await asked(library)
    reply = await library.begin_reply(ADA, conversation.id, parent_id=question.id)
    await library.extend_reply(ADA, reply.generation, 0, "A sna")
    whole = replace(reply, text="A snake.", status="complete", generation=None, num_tokens=3)
    changes = Changes(conversation_id=conversation.id, added=(whole,), head_id=reply.id)
    made = await library.apply(ADA, changes)
    assert (made.num_messages, made.num_tokens) == (2, 3)
    (_, kept) = await library.path(ADA, conversation.id)
    assert (kept.text, kept.status) == ("A snake.", "complete")
    with pytest.raises(Conflict):
        await library.extend_reply(ADA, reply.generation, 1, "ke")


async def test_a_deleted_message_takes_along_what_follows_it(library):
    conversation, question = await asked(library)
    reply = await replied(library, conversation, question, "A snake.", num_tokens=2)
    kept = await replied(library, conversation, question, "A model.", num_tokens=3)
    await library.set_head(ADA, conversation.id, reply.id)
    await library.name_branch(ADA, conversation.id, "here", reply.id)
    with pytest.raises(NotFound):
        await library.remove_branch(BOB, reply.id)
    left = await library.remove_branch(ADA, reply.id)
    assert (left.head_id, left.num_messages, left.num_tokens) == (question.id, 2, 3)
    tree = await library.tree(ADA, conversation.id)
    assert [one.id for one in tree.messages] == [question.id, kept.id] and tree.branches == ()
    assert (await library.remove_branch(ADA, question.id)).head_id is None


async def test_retention_spares_what_is_new_and_what_is_pinned(library):
    await asked(library, "old")
    pinned, _ = await asked(library, "pinned")
    await library.change(ADA, pinned.id, is_pinned=True)
    assert len(await library.delete_older(days=1)) == 0
    assert len(await library.delete_older(days=-1)) == 1
    assert [one.title for one in (await library.list(ADA)).conversations] == ["pinned"]


async def test_texts_that_no_database_takes_are_kept_readable(library):
    conversation, _ = await asked(
        library, "nul \x00 and half \ud83d a smile \N{SLIGHTLY SMILING FACE}"
    )
    (message,) = await library.path(ADA, conversation.id)
    assert (
        message.text == "nul \N{REPLACEMENT CHARACTER} and half ? a smile \N{SLIGHTLY SMILING FACE}"
    )


async def test_an_id_of_the_callers_own_is_taken_once(library):
    conversation = await library.create(ADA, id="conv_mine")
    await library.append(ADA, "conv_mine", parent_id=None, role="user", text="x", id="msg_mine")
    with pytest.raises(Conflict):
        await library.create(BOB, id="conv_mine")
    with pytest.raises(Conflict):
        await library.append(ADA, "conv_mine", parent_id=None, role="user", text="y", id="msg_mine")
    assert (await library.get(ADA, conversation.id)).num_messages == 1


async def test_a_tree_of_thousands_of_messages_is_adopted_read_and_deleted(library):
    conversation = ConversationRecord(id="old", owner="somebody", title="Long", head_id="1499")
    messages = tuple(
        MessageRecord(
            id=str(number),
            conversation_id="old",
            parent_id=str(number - 1) if number else None,  # deeper than SQLite's cascades go
            role="user" if number % 2 == 0 else "assistant",
            text=f"number {number}",
            created_s=1.0,
            num_tokens=2,
        )
        for number in range(1_500)
    )
    tree = Tree(conversation, messages, (BranchRecord("here", "700"),))
    (adopted,) = await library.adopt(ADA, tree)
    assert (adopted.owner, adopted.title, adopted.num_messages) == (ADA, "Long", 1_500)
    assert adopted.id != "old" and adopted.num_tokens == 3_000
    path = await library.path(ADA, adopted.id)
    assert [one.text for one in path] == [f"number {i}" for i in range(1_500)]
    (branch,) = (await library.tree(ADA, adopted.id)).branches
    assert branch == BranchRecord("here", path[700].id)
    assert (await library.delete(ADA, adopted.id)).num_messages == 1_500


async def test_one_turn_at_a_time_is_claimed_and_the_next_waits_for_its_end(library):
    conversation, _ = await asked(library)
    claim = await library.claims.take(ADA, conversation.id)
    with pytest.raises(Conflict):
        await library.claims.take(ADA, conversation.id)
    with pytest.raises(NotFound):
        await library.claims.take(BOB, conversation.id)
    await library.claims.let_go(claim)
    again = await library.claims.take(ADA, conversation.id)
    await library.claims.let_go(claim)  # a second time, and it is another's by now
    with pytest.raises(Conflict):
        await library.claims.take(ADA, conversation.id)
    await library.delete(ADA, conversation.id)
    await library.claims.let_go(again)


async def test_of_many_who_claim_at_once_one_has_the_turn_in_two_processes_too(place):
    libraries = [await Library.open(place) for _ in range(1 if place == Place() else 2)]
    conversation, _ = await asked(libraries[0])
    tries = [libraries[n % len(libraries)].claims.take(ADA, conversation.id) for n in range(20)]
    taken = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(one, Claim) for one in taken) == 1
    assert sum(isinstance(one, Conflict) for one in taken) == 19
    for library in libraries:
        await library.close()


async def test_the_claim_of_a_process_that_has_gone_is_free(place):
    if place == Place():
        return  # nobody else sees a database in memory
    gone, library = await Library.open(place), await Library.open(place)
    conversation, _ = await asked(library)
    await gone.claims.take(ADA, conversation.id)
    with pytest.raises(Conflict):
        await library.claims.take(ADA, conversation.id)
    await gone.close()
    assert await library.claims.take(ADA, conversation.id)
    await library.close()


async def test_a_claim_that_nobody_lets_go_ends_after_an_hour(library, monkeypatch):
    conversation, _ = await asked(library)
    await library.claims.take(ADA, conversation.id)
    now_s = time.time()
    monkeypatch.setattr("falcon_mamba_app.library.claims.time.time", lambda: now_s + 3_601)
    assert await library.claims.take(ADA, conversation.id)
