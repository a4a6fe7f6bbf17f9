"""Delete everything of mine: nothing of that owner is left, and nothing of others is touched."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest
from sqlalchemy import select

import falcon_mamba_app.library.schema as schema
from falcon_mamba_app import server as composition
from falcon_mamba_app.belongings import Belongings
from falcon_mamba_app.errors import StoreUnavailable
from falcon_mamba_app.keeping import Keeping
from falcon_mamba_app.people.keys import Keys
from falcon_mamba_app.settings import load_settings
from falcon_mamba_app.state_store.objects import MEMORY, open_store
from tests.support.api_fixtures import in_process
from tests.support.services import files_in, make_local_service

SIGNS = {"anna": "zanzibar", "tom": "wombat"}  # in whatever they say, and in the names of files
BOOK = "The {sign} kept a red lamp in the cellar. " * 4


class House:
    """A whole server with the bundled model, on a disk, with a store of states, and two people."""

    def __init__(self, folder) -> None:
        self.folder, self.store = folder / "data", open_store(MEMORY)
        keys = folder / "keys.json"
        self.tokens = {name: Keys(keys).add(f"key-of-{name}", user=name) for name in SIGNS}
        argv = ("--data-dir", str(self.folder), "--keys", str(keys), "--session-secret", "s" * 16)
        self.settings = load_settings(argv, {})

    async def open(self):
        self.service = make_local_service(open_files=files_in(self.store))
        await self.service.start()
        self.keeping = await Keeping.open(self.settings)
        self.build()
        return self

    def build(self) -> None:
        self.app = composition.build_app(self.service, self.settings, keeping=self.keeping)

    async def close(self):
        await self.service.close()
        await composition.Served(self.service, self.app, self.keeping).close()

    def client(self, name):
        headers = {"Authorization": f"Bearer {self.tokens[name]}"}
        return in_process(self.app, headers=headers, timeout=60)

    async def rows(self) -> dict[str, list[str]]:
        """All rows of the database, as text, by table."""

        def read(connection):
            return {
                name: [str(tuple(row)) for row in connection.execute(select(table))]
                for name, table in schema.metadata.tables.items()
            }

        return await self.keeping.library._database.read(read)

    def on_disk(self, word) -> list[str]:
        """The files below the folder in which the word stands, or in whose name."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return [p.name for p in files if word.encode() in p.read_bytes() or word in p.name]

    def states(self) -> set[str]:
        return {entry.path.split("/")[1] for entry in self.store.list("states")}


@pytest.fixture
async def house(tmp_path):
    house = await House(tmp_path).open()
    yield house
    await house.close()


async def fill(house, name) -> None:
    """One of everything that somebody can leave on a server."""
    sign = SIGNS[name]
    asked = {"max_tokens": 1, "temperature": 0}
    async with house.client(name) as client:

        async def post(path, **options):
            answer = await client.post(path, **options)
            assert answer.status_code == 200, answer.text
            return answer.json()

        first = await post("/v1/responses", json={"input": f"a {sign}", "max_output_tokens": 1})
        again = {"input": sign, "previous_response_id": first["id"], "max_output_tokens": 1}
        await post("/v1/responses", json=again)
        made = await post("/v1/sessions", json={"title": sign, "system_prompt": sign})
        said = {"messages": [{"role": "user", "content": f"a {sign}"}], **asked}
        await post("/v1/chat/completions", json={**said, "prompt_cache_key": f"key {sign}"})
        await post(f"/v1/sessions/key {sign}/state")
        await post("/v1/conversations", json={"metadata": {"sign": sign}})
        book = await post("/v1/books", json={"text": BOOK.format(sign=sign), "name": sign})
        while (await client.get(f"/v1/books/{book['id']}")).json()["status"] == "reading":
            await asyncio.sleep(0.01)
        await post(f"/v1/books/{book['id']}", json={"is_shared": True})
        line = {
            "custom_id": sign,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": (await client.get("/v1/models")).json()["data"][0]["id"], **said},
        }
        file = {"file": (f"{sign}.jsonl", json.dumps(line).encode())}
        sent = await post("/v1/files", files=file, data={"purpose": "batch"})
        batch = await post(
            "/v1/batches",
            json={
                "input_file_id": sent["id"],
                "endpoint": "/v1/chat/completions",
                "completion_window": "24h",
            },
        )
        while (await client.get(f"/v1/batches/{batch['id']}")).json()["status"] != "completed":
            await asyncio.sleep(0.01)
        assert made["id"]


async def listed(client) -> dict[str, int]:
    """How many of each kind a caller finds; of books their own."""
    found = {}
    for kind in ("sessions", "files", "batches", "books"):
        data = (await client.get(f"/v1/{kind}")).json()["data"]
        found[kind] = len([one for one in data if one.get("is_own", True)])
    return found


async def test_nothing_of_one_owner_is_left_and_nothing_of_another_is_touched(house):
    for name in SIGNS:
        await fill(house, name)
    before, states = await house.rows(), house.states()
    assert all(house.on_disk(sign) for sign in SIGNS.values())
    async with house.client("tom") as tom:
        toms = await listed(tom)
    async with house.client("anna") as anna:
        answer = (await anna.delete("/v1/sessions?everything=true")).json()
        assert answer["deleted"] and answer["object"] == "everything"
        gone = answer["num_deleted"]
        assert (gone["conversations"], gone["books"], gone["batches"]) == (3, 1, 1)
        assert gone["files"] == 2 and gone["states"] >= 1  # the batch's input and its answers
        assert set((await listed(anna)).values()) == {0}
    after = await house.rows()
    told = "\n".join(row for rows in after.values() for row in rows)
    assert "anna" not in told and SIGNS["anna"] not in told
    toms_rows = {
        kind: [row for row in rows if "anna" not in row and SIGNS["anna"] not in row]
        for kind, rows in before.items()
    }
    assert after["conversation"] == toms_rows["conversation"]
    assert [row for row in before["message"] if SIGNS["tom"] in row] == [
        row for row in after["message"] if SIGNS["tom"] in row
    ]
    assert house.on_disk(SIGNS["anna"]) == house.on_disk("anna") == []
    left = house.states()
    assert left < states and len(left) == len(states) - len(left)
    async with house.client("tom") as tom:
        assert await listed(tom) == toms


async def test_states_of_an_earlier_process_go_too(house):
    """No process remembers the names of all sessions: their folders tell whose they are."""
    said = {"messages": [{"role": "user", "content": "a state"}], "max_tokens": 1}
    for name in SIGNS:
        before = house.states()
        async with house.client(name) as client:
            await client.post("/v1/chat/completions", json={**said, "prompt_cache_key": "k"})
            assert (await client.post("/v1/sessions/k/state")).json()["num_tokens"] > 0
    toms = house.states() - before
    assert len(before) == len(toms) == 1
    house.build()  # as after a restart: with the same secret, and no memory of names
    async with house.client("anna") as client:
        await client.delete("/v1/sessions?everything=true")
    assert house.states() == toms


async def test_a_room_in_trouble_hinders_no_other_and_says_so():
    belongings, emptied = Belongings(), []

    async def full(request):
        raise StoreUnavailable("files cannot be reached")

    async def well(request):
        emptied.append(request)
        return 1

    belongings.add("files", full)
    belongings.add("books", well)
    with pytest.raises(StoreUnavailable):
        await belongings.delete(SimpleNamespace())
    assert len(emptied) == 1
