"""Under a proxy's path: what a browser is told begins there, cut off by the proxy or not."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from falcon_mamba_app.errors import SettingsError
from falcon_mamba_app.settings import load_settings
from tests.support.api_fixtures import USER
from tests.support.web_fixtures import visiting

LOCKED = ("--root-path", "/demo", "--auth", "ada:secret")
HTML = {"Accept": "text/html"}


@pytest.mark.parametrize("prefix", ["", "/demo"])
async def test_the_way_through_the_login_stays_under_the_root_path(prefix):
    async with visiting(*LOCKED) as client:
        refused = await client.get(f"{prefix}/?view=chat", headers=HTML)
        assert refused.headers["location"] == "/demo/login?next=/demo/%3Fview%3Dchat"
        form = await client.get(f"{prefix}/login?next=/demo/%3Fview%3Dchat", headers=HTML)
        assert 'action="/demo/login?next=/demo/%3Fview%3Dchat"' in form.text
        entered = await client.post(
            f"{prefix}/login?next=/demo/%3Fview%3Dchat",
            data={"username": "ada", "password": "secret"},
            headers=HTML,
        )
        assert entered.headers["location"] == "/demo/?view=chat"
        assert "Path=/demo;" in entered.headers["set-cookie"] + ";"
        cookie = {"Cookie": entered.headers["set-cookie"].partition(";")[0]}
        page = await client.get(f"{prefix}/", headers=HTML | cookie)
        assert '<base href="/demo/" />' in page.text
        assert 'href="/demo/manifest.json"' in page.text
        assert urlsplit(
            (await client.get(f"{prefix}/config", headers=cookie)).json()["root"]
        ).path == ("/demo")
        asked = await client.get(f"{prefix}/logout", headers=HTML | cookie)
        assert 'action="/demo/logout"' in asked.text
        left = await client.post(f"{prefix}/logout", headers=HTML | cookie)
        assert left.headers["location"] == "/demo/login"
        assert "Path=/demo;" in left.headers["set-cookie"] + ";"


async def test_no_login_ends_outside_the_root_path():
    async with visiting(*LOCKED) as client:
        form = {"username": "ada", "password": "secret"}
        for target in ("/", "/other", "//e.example", "/demo//e.example", "https://e.example/"):
            answer = await client.post(f"/login?next={target}", data=form, headers=HTML)
            assert answer.headers["location"] == "/demo/"


@pytest.mark.parametrize("prefix", ["", "/demo"])
async def test_the_api_answers_with_and_without_the_prefix(prefix):
    async with visiting("--root-path", "/demo") as client:
        assert (await client.get(f"{prefix}/health")).status_code == 200
        answer = await client.post(f"{prefix}/v1/chat/completions", json={"messages": [USER]})
        assert answer.status_code == 200
        missing = await client.get(f"{prefix}/v1/sessions/a%2Fb/state")
        assert missing.json()["error"]["code"] == "not_found"
        assert (await client.get("/demonstration")).status_code == 404


@pytest.mark.parametrize(
    ("given", "base_path"),
    [
        ("/demo", "/demo"),
        ("demo/", "/demo"),
        ("/a/b-c", "/a/b-c"),
        ("/", ""),
        ("https://example.org/demo/", "/demo"),
        ("https://example.org", ""),
    ],
)
def test_a_root_path_is_a_path_or_an_address(given, base_path):
    assert load_settings(["--root-path", given], {}).server.base_path == base_path
    assert load_settings([], {"GRADIO_ROOT_PATH": given}).server.base_path == base_path


@pytest.mark.parametrize(
    "given", ["//e.example", "/a b", "/a?b", "javascript:x", '/"><b>', "/a//b"]
)
def test_what_is_no_path_is_refused(given):
    with pytest.raises(SettingsError, match="--root-path: .* is no path, such as /demo"):
        load_settings(["--root-path", given], {})
