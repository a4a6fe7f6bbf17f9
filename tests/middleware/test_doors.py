"""Locks: what is behind them, what is not, and how they are opened."""

from __future__ import annotations

import asyncio
import base64

import pytest

from falcon_mamba_app.api.routes import ALL_METHODS
from falcon_mamba_app.middleware.allowed_paths import is_offered
from falcon_mamba_app.middleware.credentials import LOGIN_S, Credentials, Signed
from tests.support.api_fixtures import USER
from tests.support.echo_service import EchoService
from tests.support.web_fixtures import every_route, visiting, whole_app

LOCKS = [
    ("--auth", "ada:secret"),
    ("--api-key", "the-key"),
    ("--auth", "ada:secret", "--api-key", "the-key"),
]
# Everything that answers without credentials, by name. Nothing here reveals or spends anything.
OPEN = {
    # Whether the server is up, for whoever restarts it; all but GET and HEAD are 405, and what is
    # not there is 404.
    *(
        (method, path)
        for method in ALL_METHODS
        for path in ("/health", "/health/live", "/health/ready", "/health/1")
    ),
    ("GET", "/login"),
    ("HEAD", "/login"),
    ("POST", "/login"),  # refuses, and counts, what is wrong
    ("POST", "/login/"),
    ("GET", "/logout"),
}
HTML = {"Accept": "text/html"}


async def signed_in(client, user="ada", password="secret"):
    form = {"username": user, "password": password}
    return await client.post("/login", data=form)


@pytest.mark.parametrize("options", LOCKS)
async def test_every_route_of_the_application_is_behind_a_lock(options):
    app = whole_app(*options)
    routes = set(every_route(list(app.routes)))
    assert len(routes) > 100  # the API's and Gradio's; a walk that finds fewer has gone wrong
    for expected in (
        ("GET", "/v1/models"),
        ("POST", "/gradio_api/queue/join"),
        ("GET", "/gradio_api/heartbeat/1"),
        ("POST", "/gradio_api/cancel"),
        ("GET", "/config"),
        ("GET", "/gradio_api/file=1"),
    ):
        assert expected in routes
    opened = []
    async with visiting(*options, "--wrong-keys-per-minute", "100000") as client:
        for method, path in sorted(routes):
            response = await asyncio.wait_for(client.request(method, path), timeout=60)
            is_shut = response.status_code in (401, 403) or not is_offered(path)
            if not is_shut and (method, path) not in OPEN:
                opened.append((method, path, response.status_code))
            if not is_offered(path):
                assert response.status_code == 404, (method, path)
    assert opened == []


@pytest.mark.parametrize("options", LOCKS)
async def test_a_path_written_in_another_way_opens_nothing(options):
    async with visiting(*options) as client:
        for path in (
            "//v1/models",
            "/./config",
            "/v1/../config",
            "/V1/models",
            "/%2Fconfig",
            "/health/../config",
            "/health/config",
            "/login/../config",
            "/v1;/../config",
            "/config/",
            "/metrics/",
            "/metrics/1",
            "/gradio_api//queue/data?session_hash=1",
            "/gradio_api/../config",
        ):
            response = await client.get(path)
            assert response.status_code in (401, 403, 404), path
            assert "components" not in response.text


async def test_what_the_page_does_not_need_is_not_there():
    async with visiting() as client:
        for method, path in (
            ("POST", "/gradio_api/upload"),
            ("GET", "/gradio_api/file=/etc/passwd"),
            ("GET", "/gradio_api/proxy=https://huggingface.co/x"),
            ("GET", "/gradio_api/runs"),
            ("GET", "/monitoring"),
            ("GET", "/monitoring/summary"),
            ("GET", "/gradio_api/dev/reload"),
            ("POST", "/gradio_api/component_server"),
            ("GET", "/docs"),
            ("GET", "/redoc"),
            ("GET", "/openapi.json"),
        ):
            response = await client.request(method, path)
            assert response.status_code == 404, path
            assert response.json()["detail"] == "there is no such page here"


async def test_a_browser_is_led_to_the_login_and_back_again():
    async with visiting("--auth", "ada:secret") as client:
        led = await client.get("/?theme=dark", headers=HTML)
        assert led.status_code == 303
        form = await client.get(led.headers["location"], headers=HTML)
        assert 'name="password"' in form.text
        wrong = await client.post(led.headers["location"], data={"username": "ada"}, headers=HTML)
        assert wrong.status_code == 401
        assert "The user or the password is wrong." in wrong.text
        assert 'name="username" autocomplete="username" value="ada"' in wrong.text
        data = {"username": "ada", "password": "secret"}
        right = await client.post(led.headers["location"], data=data, headers=HTML)
        assert right.status_code == 303
        assert right.headers["location"] == "/?theme=dark"
        assert "gradio_config" in (await client.get("/", headers=HTML)).text
        assert (await client.post("/logout")).headers["location"] == "/login"
        assert (await client.get("/config")).status_code == 401


@pytest.mark.parametrize(
    ("method", "site", "is_signed_out"),
    [
        ("GET", "cross-site", False),  # an image on another site
        ("GET", "same-site", False),
        ("GET", None, False),  # the same over plain HTTP
        ("POST", "cross-site", False),
        ("GET", "same-origin", True),
        ("GET", "none", True),  # typed
        ("POST", "same-origin", True),
        ("POST", None, True),
    ],
)
async def test_only_the_page_itself_signs_its_visitor_out(method, site, is_signed_out):
    headers = {} if site is None else {"Sec-Fetch-Site": site}
    async with visiting("--auth", "ada:secret") as client:
        await client.post("/login", data={"username": "ada", "password": "secret"})
        answer = await client.request(method, "/logout", headers=headers)
        if method == "GET" and not is_signed_out:
            assert '<form method="post" action="/logout">' in answer.text
        assert ((await client.get("/config")).status_code == 401) == is_signed_out


@pytest.mark.parametrize(
    ("forwarded", "is_secure"),
    [("https, http", True), ("HTTPS", True), ("http, https", False), ("", False)],
)
async def test_behind_several_proxies_the_browsers_own_protocol_counts(forwarded, is_secure):
    async with visiting("--auth", "ada:secret") as client:
        data = {"username": "ada", "password": "secret"}
        headers = {"X-Forwarded-Proto": forwarded}
        answer = await client.post("/login", data=data, headers=headers)
    assert ("Secure" in answer.headers["set-cookie"]) == is_secure


@pytest.mark.parametrize("target", ["//evil.test", "https://evil.test", "/\\evil.test", "/a\r\nb"])
async def test_no_login_ends_on_another_site(target):
    async with visiting("--auth", "ada:secret") as client:
        data = {"username": "ada", "password": "secret"}
        response = await client.post("/login", params={"next": target}, data=data, headers=HTML)
        assert response.headers["location"] == "/"


async def test_the_login_does_not_open_the_api_nor_the_key_the_page():
    async with visiting("--auth", "ada:secret", "--api-key", "the-key") as client:
        assert (await signed_in(client)).json() == {"success": True}
        assert (await client.get("/config")).status_code == 200
        assert (await client.get("/v1/models")).status_code == 401
        assert (await client.get("/metrics")).status_code == 401
        client.cookies.clear()
        bearer = {"Authorization": "Bearer the-key"}
        assert (await client.get("/v1/models", headers=bearer)).status_code == 200
        assert (await client.get("/config", headers=bearer)).status_code == 401
        assert (await signed_in(client, "ada", "the-key")).status_code == 401


async def test_one_lock_locks_both_doors():
    async with visiting("--auth", "ada:secret") as client:
        bearer = {"Authorization": "Bearer ada:secret"}
        assert (await client.get("/v1/models")).status_code == 401
        assert (await client.get("/v1/models", headers=bearer)).status_code == 200
    async with visiting("--api-key", "one,two") as client:
        assert (await client.get("/config")).status_code == 401
        assert (await signed_in(client, "", "three")).status_code == 401
        assert (await signed_in(client, "whoever", "two")).status_code == 200
        assert (await client.get("/config")).status_code == 200


async def test_passwords_cannot_be_tried_without_end():
    async with visiting("--auth", "ada:secret", "--wrong-keys-per-minute", "3") as client:
        statuses = [(await signed_in(client, "ada", f"guess {n}")).status_code for n in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        refused = await signed_in(client)  # not even the right one
        assert refused.status_code == 429
        assert 0 < int(refused.headers["retry-after"]) <= 20
        assert "wrong keys or passwords" in refused.json()["detail"]
        form = await client.post("/login", data={"username": "ada"}, headers=HTML)
        assert form.status_code == 429
        assert "try again in" in form.text


async def test_passwords_that_come_all_at_once_are_counted_too():
    """A request that began before the limit was reached had its password looked at after it."""
    has_begun, may_go_on = asyncio.Event(), asyncio.Event()

    async def late_form():
        has_begun.set()
        await may_go_on.wait()
        yield b"username=ada&password=secret"

    async with visiting("--auth", "ada:secret", "--wrong-keys-per-minute", "3") as client:
        late = asyncio.create_task(client.post("/login", content=late_form()))
        await has_begun.wait()
        statuses = [(await signed_in(client, "ada", f"guess {n}")).status_code for n in range(4)]
        may_go_on.set()
        assert statuses == [401, 401, 401, 429]
        assert (await late).status_code == 429


async def test_api_keys_cannot_be_tried_without_end():
    async with visiting("--api-key", "the-key", "--wrong-keys-per-minute", "3") as client:
        for status in (401, 401, 401, 429):
            response = await client.get("/v1/models", headers={"Authorization": "Bearer guess"})
            assert response.status_code == status
        assert response.json()["error"]["code"] == "rate_limit_exceeded"
        assert response.headers["retry-after"]


def credentials(secret: bytes = b"x" * 16, auth: str = "ada:secret") -> Credentials:
    return Credentials(auth, (), secret)


def test_a_cookie_is_only_as_good_as_its_signature():
    cookie = credentials().sign(None, 1_000.0)
    assert credentials().read(cookie, 1_000.0) == Signed(None)
    assert credentials().read(cookie, 1_001.0 + LOGIN_S) is None
    assert credentials(auth="ada:new password").read(cookie, 1_000.0) is None
    assert credentials(secret=b"y" * 16).read(cookie, 1_000.0) is None
    ends, nonce, name, signature = cookie.split(".")
    for forged in (
        "",
        ".",
        "..",
        f"{int(ends) + 1}.{nonce}.{name}.{signature}",
        f"{ends}.{nonce}.{name}.",
        f"{ends}.{nonce}.YWRh.{signature}",
        f"{ends}.{nonce}.{name}.{signature[:-1]}",
        f"{ends}.{nonce}.{name}.{base64.b64encode(signature.encode()).decode()}",
        "\ud800.é.ö",
    ):
        assert credentials().read(forged, 1_000.0) is None, forged


async def test_a_login_and_a_session_outlive_a_restart_with_a_secret_of_ones_own():
    options = ("--auth", "ada:secret", "--session-secret", "sixteen letters and more")
    body = {"messages": [USER], "prompt_cache_key": "talk"}
    bearer = {"Authorization": "Bearer ada:secret"}
    before, after = EchoService(), EchoService()
    async with visiting(*options, service=before) as client:
        cookie = (await signed_in(client)).headers["set-cookie"].partition(";")[0]
        await client.post("/v1/chat/completions", json=body, headers=bearer)
    async with visiting(*options, service=after) as client:
        assert (await client.get("/config", headers={"Cookie": cookie})).status_code == 200
        await client.post("/v1/chat/completions", json=body, headers=bearer)
    assert before.requests[0].session_id == after.requests[0].session_id


async def test_in_a_frame_on_https_the_cookie_may_be_a_third_partys():
    async with visiting("--auth", "ada:secret") as client:
        plain = (await signed_in(client)).headers["set-cookie"]
        form = {"username": "ada", "password": "secret"}
        secure = await client.post("/login", data=form, headers={"X-Forwarded-Proto": "https"})
    assert "HttpOnly" in plain and "SameSite=lax" in plain and "Secure" not in plain
    cookie = secure.headers["set-cookie"]
    assert "SameSite=none" in cookie and "Secure" in cookie and "Partitioned" in cookie


async def test_a_password_with_bytes_that_are_no_text_is_compared_and_no_error():
    credentials = Credentials("ada:\udcffword", (), b"0" * 16)
    assert await credentials.match("ada", "\udcffword") == (True, None)
    assert await credentials.match("ada", "?word") == (False, None)
