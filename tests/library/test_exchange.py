"""Conversations as files: each format comes back, and hostile ones cost a sentence."""

from __future__ import annotations

import io
import json
import time
import zipfile
from dataclasses import replace

import pytest

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.library import BranchRecord, ConversationRecord, MessageRecord, Tree
from falcon_mamba_app.library.exchange import (
    as_json,
    as_jsonl,
    as_markdown,
    bundle,
    read,
    unbundle,
)
from falcon_mamba_app.library.tree import packed_ids


def said(id, parent_id, text, **known):
    role = known.pop("role", "assistant" if known else "user")
    return MessageRecord(
        id=id,
        conversation_id="c",
        parent_id=parent_id,
        role=role,
        text=text,
        created_s=5.0,
        **known,
    )


TREE = Tree(
    ConversationRecord(
        id="c",
        owner="ada",
        title="Snakes",
        system_prompt="Be\nbrief.",
        settings={"temperature": 0.5},
        folder="Animals",
        is_pinned=True,
        created_s=1.0,
        updated_s=9.0,
        head_id="b",
    ),
    (
        said("a", None, "What is a mamba?"),
        said("b", "a", "A *snake*.", token_ids=packed_ids([7, 65_023]), num_tokens=2, model="nano"),
        said("c", "a", "A model.", status="stopped", tokens_per_s=3.5, extra={"settings": "warm"}),
        said("d", None, "Another beginning"),
    ),
    (BranchRecord("the snake", "b"),),
)


def shape(tree):
    """The tree without the names of its messages."""
    places = {message.id: place for place, message in enumerate(tree.messages)}
    return [(places.get(m.parent_id), m.role, m.text) for m in tree.messages], places.get(
        tree.conversation.head_id
    )


def test_our_own_json_brings_the_whole_tree_with_its_ids():
    ((tree,), states) = read(as_json(TREE).encode())
    assert states == {} and sorted(shape(tree)[0], key=str) == sorted(shape(TREE)[0], key=str)
    for message in TREE.messages:
        assert replace(tree.by_id[message.id], conversation_id="c") == message
    assert replace(tree.conversation, id="c", owner="ada") == TREE.conversation
    assert tree.branches == TREE.branches


def test_a_file_does_not_say_which_ids_the_model_goes_on_with():
    """The ids come along as facts; another one's are not fed to the model under these words."""
    ((tree,), _) = read(as_json(TREE).replace('"warm"', '"warm", "num_ids": 2').encode())
    assert "num_ids" not in tree.by_id["c"].extra


def test_the_zip_brings_the_states_too():
    data = bundle(TREE, {"0000000004-ab": b"state" * 1_000})
    ((tree,), states) = read(data)
    assert states == {"0000000004-ab": b"state" * 1_000}
    assert tree.by_id["b"].token_ids == TREE.by_id["b"].token_ids


def test_openais_messages_are_the_path_to_the_head():
    text = as_jsonl([TREE, TREE])
    assert [m["role"] for m in json.loads(text.splitlines()[0])["messages"]] == [
        "system",
        "user",
        "assistant",
    ]
    trees, _ = read(text.encode())
    assert len(trees) == 2 and trees[0].conversation.system_prompt == "Be\nbrief."
    assert [one.text for one in trees[0].path()] == ["What is a mamba?", "A *snake*."]


def test_markdown_is_for_reading():
    assert as_markdown(TREE) == (
        "# Snakes\n\n> Be\n> brief.\n\n**You**\n\nWhat is a mamba?\n\n**Falcon Mamba**\n\n"
        "A *snake*.\n"
    )


SHARE_GPT = [
    {"id": "x", "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]}
]


def gpt(role, parent, *parts):
    return {"message": {"author": {"role": role}, "content": {"parts": parts}}, "parent": parent}


CHAT_GPT = [
    {
        "title": "Snakes",
        "create_time": 1_700_000_000.5,
        "current_node": "r2",
        "mapping": {
            "root": {"id": "root", "message": None, "parent": None, "children": ["s"]},
            "s": gpt("system", "root", ""),
            "u": gpt("user", "s", "hi"),
            "t": gpt("tool", "u", "looked up"),
            "r1": gpt("assistant", "u", "one"),
            "r2": gpt("assistant", "t", "two", {"image": 1}),
        },
    }
]
OPEN_WEBUI = [
    {
        "id": "1",
        "user_id": "2",
        "title": "Snakes",
        "updated_at": 1_700_000_000,
        "chat": {
            "system": "Be brief.",
            "history": {
                "currentId": "b",
                "messages": {
                    "a": {"id": "a", "parentId": None, "role": "user", "content": "hi"},
                    "b": {"id": "b", "parentId": "a", "role": "assistant", "content": "one"},
                    "c": {"id": "c", "parentId": "a", "role": "assistant", "content": "two"},
                },
            },
        },
    }
]


def test_sharegpts_conversations_are_read():
    ((tree,), _) = read(json.dumps(SHARE_GPT).encode())
    assert shape(tree) == ([(None, "user", "hi"), (0, "assistant", "yo")], 1)


def test_chatgpts_export_is_read_with_its_branches_alone_and_in_its_zip():
    ((tree,), _) = read(json.dumps(CHAT_GPT).encode())
    two = [(None, "user", "hi"), (0, "assistant", "one"), (0, "assistant", "two")]
    assert shape(tree) == (two, 2)
    assert (tree.conversation.title, tree.conversation.created_s) == ("Snakes", 1_700_000_000.5)
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("conversations.json", json.dumps(CHAT_GPT))
        archive.writestr("chat.html", "<html>")
    assert shape(read(data.getvalue())[0][0]) == (two, 2)


def test_open_webuis_export_is_read_with_its_branches():
    ((tree,), _) = read(json.dumps(OPEN_WEBUI).encode())
    two = [(None, "user", "hi"), (0, "assistant", "one"), (0, "assistant", "two")]
    assert shape(tree) == (two, 1) and tree.conversation.system_prompt == "Be brief."


async def test_a_whole_file_is_adopted_at_once(library):
    trees, _ = read(json.dumps(SHARE_GPT * 150).encode())
    made = await library.adopt("ada", *trees)
    assert len({one.id for one in made}) == 150 and made[0].num_messages == 2


async def test_what_is_adopted_is_exported_as_it_came(library):
    ((tree,), _) = read(as_json(TREE).encode())
    (made,) = await library.adopt("ada", tree)
    kept = await library.tree("ada", made.id)
    assert shape(kept) == shape(tree)
    assert [m.token_ids for m in kept.messages] == [m.token_ids for m in tree.messages]
    ((again,), _) = read(as_json(kept).encode())
    assert shape(again) == shape(tree)


def ours(messages, **about):
    return {
        "format": "falcon-mamba conversation",
        "version": 1,
        "conversation": about,
        "messages": messages,
        "branches": [],
    }


def node(id, parent_id):
    return {"id": id, "parent_id": parent_id, "role": "user", "text": "x"}


def zipped(*files, compression=zipfile.ZIP_DEFLATED):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return data.getvalue()


HOSTILE = {
    "nothing": b"",
    "no text": b"\xff\xfe\x00\x01",
    "no json": b"hello",
    "null": b"null",
    "an empty list": b"[]",
    "a number": b"[1]",
    "deep nesting": b"[" * 200_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a circle of two": json.dumps(ours([node("a", "b"), node("b", "a")])).encode(),
    "its own parent": json.dumps(ours([node("a", "a")])).encode(),
    "one id twice": json.dumps(ours([node("a", None), node("a", None)])).encode(),
    "a newer version": json.dumps({**ours([]), "version": 2}).encode(),
    "a circle in chatgpt's": json.dumps(
        [{"mapping": {"a": {"parent": "b"}, "b": {"parent": "a"}}}]
    ).encode(),
    "a million messages": json.dumps([{"role": "user", "content": "x"}] * 200_000).encode(),
    "no roles": json.dumps({"messages": [{"content": "x"}]}).encode(),
    "no words": json.dumps({"messages": [{"role": "user", "content": {"x": 1}}]}).encode(),
    "nodes that are lists": json.dumps([{"mapping": {"a": []}}]).encode(),
    "damaged ids": json.dumps(ours([{**node("a", None), "token_ids": "?"}])).encode(),
    "a zip that was folded otherwise": zipped(
        ("conversation.json", b"[]"), compression=zipfile.ZIP_LZMA
    ),
    "a zip that is none": b"PK\x03\x04" + b"\x00" * 100,
}  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_costs_a_sentence(data):
    with pytest.raises(InvalidRequest) as refused:
        read(data)
    assert 10 < len(str(refused.value)) < 400


def test_a_zip_bomb_costs_a_sentence_and_little_memory_or_time():
    bomb = zipped(("conversation.json", b"[" + b" " * 100_000_000 + b"]"))
    started_s = time.process_time()
    with pytest.raises(InvalidRequest, match="unfolds to more than"):
        read(bomb)
    assert time.process_time() - started_s < 2.0
    many = zipped(*((f"{number}.json", b"") for number in range(1_001)))
    with pytest.raises(InvalidRequest, match="1,001 files; allowed are 1,000"):
        read(many)
    with pytest.raises(InvalidRequest, match="has no conversation.json"):
        read(zipped(("other.json", b"[]")))


def test_a_state_outside_of_its_folder_is_not_taken():
    data = zipped(("conversation.json", as_json(TREE)), ("states/../../x.safetensors", b"x"))
    assert unbundle(data)[1] == {}


def test_a_conversation_deeper_than_python_is_read():
    deep = ours([node(str(n), str(n - 1) if n else None) for n in range(20_000)], head_id="19999")
    ((tree,), _) = read(json.dumps(deep).encode())
    assert len(tree.path()) == 20_000


def test_every_flipped_byte_of_a_zip_costs_a_sentence_or_nothing():
    whole = bundle(TREE, {"b": b"a state"})
    for place in range(len(whole)):
        try:
            read(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        except InvalidRequest as refused:
            assert len(str(refused)) < 400, place


def test_lines_of_a_file_end_where_json_says_so():
    text = "one\u2028two\u2029three\x85four"
    talk = Tree(TREE.conversation, (said("a", None, text),))
    talk = replace(talk, conversation=replace(talk.conversation, head_id="a"))
    trees, _ = read(as_jsonl([talk, talk]).replace("\n", "\r\n").encode())
    assert [tree.messages[0].text for tree in trees] == [text, text]


def test_a_number_that_is_none_becomes_nothing():
    data = json.dumps(ours([node("a", None)], settings={"temperature": 1.5, "seed": 1}))
    data = data.replace("1.5", "1e400").replace('"seed": 1', '"seed": NaN')
    ((tree,), _) = read(data.encode())
    assert tree.conversation.settings == {"temperature": None, "seed": None}


async def test_what_a_file_does_not_say_is_made_of_what_it_does(library):
    talk = {"messages": [{"role": "user", "content": "  a numbat\n" + "and more " * 20}]}
    (tree,), _ = read(json.dumps(talk).encode())
    (made,) = await library.adopt("ada", tree)
    assert made.title.startswith("a numbat and more") and len(made.title) <= 60
    assert made.created_s == made.updated_s > 1e9
    assert (await library.path("ada", made.id))[0].created_s == made.created_s
