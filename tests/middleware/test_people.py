"""Who is who: users at the page, their keys at the API, and names from a trusted proxy."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager

import pytest
from argon2 import PasswordHasher

from falcon_mamba_app.api.routes import create_api
from falcon_mamba_app.events import TextDelta
from falcon_mamba_app.middleware.proxy_user import PEER
from falcon_mamba_app.people.keys import Keys
from falcon_mamba_app.people.users import Users
from falcon_mamba_app.server import build_app
from falcon_mamba_app.settings import load_settings
from tests.support.api_fixtures import USER, in_process
from tests.support.echo_service import EchoService

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
CHAT = "/v1/chat/completions"


@pytest.fixture
def users(tmp_path):
    users = Users(tmp_path / "users", CHEAP)
    users.add("anna", "a long password")
    return users


@pytest.fixture
def keys(tmp_path):
    return Keys(tmp_path / "keys")


@asynccontextmanager
async def visiting(*options: str, peer: str = "127.0.0.1", seen: list | None = None):
    """A caller of the whole app, and the names of those who get to the page."""
    service = EchoService()
    await service.start()
    app = build_app(service, load_settings(options, {}))

    async def connected(scope, receive, send):
        if scope["type"] == "http":
            scope = {**scope, "state": {**scope.get("state", {}), PEER: peer}}
        await app(scope, receive, send)
        if seen is not None:
            seen.append(scope["state"].get("person"))

    async with in_process(connected, client=(peer, 1)) as client:
        client.service = service
        yield client


async def sign_in(client, user="anna", password="a long password"):
    form = {"username": user, "password": password}
    answer = await client.post("/login", data=form, headers={"accept": "text/html"})
    return answer


async def test_a_user_signs_in_under_their_own_name_and_a_removed_one_is_out(users, tmp_path):
    seen: list = []
    async with visiting("--users", str(tmp_path / "users"), seen=seen) as client:
        assert (await client.get("/config")).status_code == 401
        for wrong in (("anna", "wrong"), ("tom", "a long password"), ("", "")):
            assert (await sign_in(client, *wrong)).status_code == 401
        assert (await sign_in(client)).status_code == 303
        assert (await client.get("/config")).status_code == 200
        assert seen[-1] == "anna"
        users.add("anna", "another password")
        assert (await client.get("/config")).status_code == 401
        await sign_in(client, password="another password")
        assert (await client.get("/config")).status_code == 200
        users.remove("anna")
        assert (await client.get("/config")).status_code == 401


async def test_with_users_and_no_keys_the_api_is_closed(users, tmp_path):
    async with visiting("--users", str(tmp_path / "users")) as client:
        await sign_in(client)
        answer = await client.post(CHAT, json={"messages": [USER]})
        assert answer.status_code == 401
        assert (await client.get("/health")).status_code == 200


async def test_with_keys_alone_a_key_is_the_page_password_of_its_user(keys, tmp_path):
    seen: list = []
    key = keys.add("laptop", "anna")
    async with visiting("--keys", str(tmp_path / "keys"), seen=seen) as client:
        assert (await client.get("/config")).status_code == 401
        assert (await sign_in(client, "", "fm-wrong")).status_code == 401
        assert (await sign_in(client, "whoever", key)).status_code == 303
        assert (await client.get("/config")).status_code == 200
        assert seen[-1] == "anna"
        keys.remove("laptop")
        assert (await client.get("/config")).status_code == 401


async def test_the_one_login_stands_beside_users(users, tmp_path):
    options = ("--users", str(tmp_path / "users"), "--auth", "guest:secret")
    seen: list = []
    async with visiting(*options, seen=seen) as client:
        await sign_in(client, "guest", "secret")
        assert (await client.get("/config")).status_code == 200
        assert seen[-1] is None


async def test_all_keys_of_a_user_are_one_owner_and_another_users_are_not(keys, tmp_path):
    laptop, phone, toms = (
        keys.add("laptop", "anna"),
        keys.add("phone", "anna"),
        keys.add("x", "tom"),
    )
    async with visiting("--keys", str(tmp_path / "keys")) as client:
        body = {"messages": [USER], "prompt_cache_key": "talk"}
        for key in (laptop, phone, toms):
            headers = {"Authorization": f"Bearer {key}"}
            assert (await client.post(CHAT, json=body, headers=headers)).status_code == 200
        annas, again, others = (request.session_id for request in client.service.requests)
        assert annas == again != others
        made = await client.post(
            "/v1/responses",
            json={"input": "hi"},
            headers={"Authorization": f"Bearer {laptop}"},
        )
        path = f"/v1/responses/{made.json()['id']}"
        for key, status in ((phone, 200), (toms, 404)):
            answer = await client.get(path, headers={"Authorization": f"Bearer {key}"})
            assert answer.status_code == status
        metrics = await client.get("/metrics", headers={"Authorization": f"Bearer {laptop}"})
        assert 'key="laptop"' in metrics.text and laptop not in metrics.text


async def test_a_key_ends_when_it_says_or_when_it_is_removed(keys, tmp_path):
    old = keys.add("old", "anna", expires_s=1.0)
    lost = keys.add("lost", "anna")
    async with visiting("--keys", str(tmp_path / "keys")) as client:
        answer = await client.get("/v1/models", headers={"Authorization": f"Bearer {old}"})
        assert answer.status_code == 401 and "has expired" in answer.text
        headers = {"Authorization": f"Bearer {lost}"}
        assert (await client.get("/v1/models", headers=headers)).status_code == 200
        keys.remove("lost")
        assert (await client.get("/v1/models", headers=headers)).status_code == 401


@pytest.mark.parametrize("how", ["expires", "is removed"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": [USER], "stream": True}),
        (CHAT, {"messages": [USER], "stream": True, "n": 2}),
        (CHAT, {"messages": [USER]}),
        ("/v1/completions", {"prompt": "hi", "stream": True}),
        ("/v1/responses", {"input": "hi", "stream": True}),
        ("/v1/messages", {"messages": [USER], "max_tokens": 9, "stream": True}),
    ],
)
async def test_a_key_that_ends_ends_what_is_being_written_for_it(tmp_path, how, path, body):
    now_s = [1_000.0]
    keys = Keys(tmp_path / "keys", clock=lambda: now_s[0])
    secret = keys.add("laptop", "anna", expires_s=2_000.0)

    class Ending(EchoService):
        """The key ends when the first word has been written."""

        async def generate(self, request):
            async with aclosing(super().generate(request)) as events:
                async for event in events:
                    yield event
                    if not isinstance(event, TextDelta):
                        continue
                    if how == "expires":
                        now_s[0] = 2_000.0
                    elif keys.all:
                        keys.remove("laptop")

    service = Ending()
    await service.start()
    told = "has expired" if how == "expires" else "was removed"
    headers = {"Authorization": f"Bearer {secret}"}
    async with in_process(create_api(service, keys=keys)) as client:
        answer = await client.post(path, json=body, headers=headers)
        assert answer.status_code == (200 if "stream" in body else 401)
        assert f"the API key laptop {told}" in answer.text and "You said: hi" not in answer.text
        assert service.running == 0
        assert (await client.get("/v1/models", headers=headers)).status_code == 401


async def test_a_key_has_limits_and_a_share_of_its_own(keys, tmp_path):
    small = keys.add("small", "anna", replies_per_minute=2, weight=0.5)
    large = keys.add("large", "anna", weight=4.0)
    async with visiting("--keys", str(tmp_path / "keys")) as client:
        for key, statuses in ((small, [200, 200, 429]), (large, [200, 200, 200])):
            headers = {"Authorization": f"Bearer {key}"}
            answers = [
                await client.post(CHAT, json={"messages": [USER]}, headers=headers)
                for _ in range(3)
            ]
            assert [answer.status_code for answer in answers] == statuses
        weights = [request.weight for request in client.service.requests]
        assert weights == [0.5, 0.5, 4.0, 4.0, 4.0]


PROXIED = ("--user-header", "X-Remote-User", "--trusted-proxies", "192.0.2.0/24")


async def test_a_trusted_proxy_says_who_somebody_is_to_page_and_api():
    seen: list = []
    async with visiting(*PROXIED, peer="192.0.2.7", seen=seen) as client:
        named = {"X-Remote-User": "anna"}
        assert (await client.get("/config", headers=named)).status_code == 200
        answer = await client.post(CHAT, json={"messages": [USER]}, headers=named)
        assert answer.status_code == 200
        assert seen == ["anna", "anna"]
        assert (await client.get("/config")).status_code == 401
        assert (await client.post(CHAT, json={"messages": [USER]})).status_code == 401


@pytest.mark.parametrize("peer", ["203.0.113.5", "127.0.0.1", ""])
async def test_nobody_else_is_believed(peer):
    async with visiting(*PROXIED, peer=peer) as client:
        named = {"X-Remote-User": "anna", "X-Forwarded-For": "192.0.2.7"}
        assert (await client.get("/config", headers=named)).status_code == 401
        assert (
            await client.post(CHAT, json={"messages": [USER]}, headers=named)
        ).status_code == 401


@pytest.mark.parametrize("names", [[""], ["anna", "tom"], ["a" * 201], ["an%00na"]])
async def test_a_header_that_names_nobody_clearly_names_nobody(names):
    async with visiting(*PROXIED, peer="192.0.2.7") as client:
        headers = [("X-Remote-User", name) for name in names]
        assert (await client.get("/config", headers=headers)).status_code == 401
