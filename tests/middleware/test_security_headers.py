"""What browsers are told, and which other sites' pages may call."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from falcon_mamba_app.middleware.security_headers import inline_scripts
from falcon_mamba_app.middleware.stack import listening, protect
from falcon_mamba_app.settings import Platform, ServerSettings, Settings
from tests.support.api_fixtures import USER, in_process
from tests.support.web_fixtures import visiting

PATHS = ["/", "/config", "/v1/models", "/health", "/nowhere", "/theme.css", "/login"]
OTHER = "https://other.test"


def policy(response) -> dict[str, list[str]]:
    parts = response.headers["content-security-policy"].split("; ")
    return {part.split()[0]: part.split()[1:] for part in parts}


@pytest.mark.parametrize("path", PATHS)
async def test_every_answer_carries_the_headers(path):
    async with visiting() as client:
        response = await client.get(path)
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "same-origin"
    assert "camera=()" in response.headers["permissions-policy"]
    assert policy(response)["frame-ancestors"] == ["'self'"]
    assert policy(response)["object-src"] == ["'none'"]
    assert "server" not in response.headers


async def test_only_the_pages_own_scripts_may_run():
    async with visiting() as client:
        response = await client.get("/")
    allowed = policy(response)["script-src"]
    assert "'unsafe-inline'" not in allowed
    assert not [source for source in allowed if source.startswith(("http", "*"))]
    scripts = inline_scripts(response.content)
    assert any(b"falcon-mamba-theme" in script for script in scripts)  # Gradio adds page.js itself
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
        assert f"'sha256-{digest}'" in allowed
    assert len(scripts) == len([source for source in allowed if source.startswith("'sha256-")])


async def test_what_a_script_holds_is_found_whole():
    html = (
        b'<script src="a.js"></script><SCRIPT data-x>a\n<b</SCRIPT><script type="module">c</script>'
    )
    assert inline_scripts(html) == [b"a\n<b", b"c"]


async def test_html_is_compressed_for_who_can_read_it():
    async with visiting() as client:
        small = await client.get("/", headers={"Accept-Encoding": "gzip, br"})
        large = await client.get("/", headers={"Accept-Encoding": "identity"})
        head = await client.head("/", headers={"Accept-Encoding": "gzip"})
    assert small.headers["content-encoding"] == "gzip"
    assert int(small.headers["content-length"]) < int(large.headers["content-length"]) / 3
    assert "content-encoding" not in large.headers
    hidden = re.compile(r'"app_id":\d+')
    assert hidden.sub("", small.text) == hidden.sub("", large.text)
    assert head.content == b""


async def test_a_space_may_be_framed_by_the_hub_and_others_by_whom_they_name():
    async def told(is_space: bool, *named: str) -> dict[str, list[str]]:
        from falcon_mamba_app.api.routes import create_api
        from tests.support.echo_service import EchoService

        app = create_api(EchoService())
        server = ServerSettings(frame_ancestors=named)
        protect(app, Settings(server=server, platform=Platform(is_space=is_space)))
        async with in_process(app) as client:
            return policy(await client.get("/health"))

    async def ancestors(is_space: bool, *named: str) -> list[str]:
        return (await told(is_space, *named))["frame-ancestors"]

    hub = ["https://huggingface.co", "https://*.hf.space"]
    assert await ancestors(False) == ["'self'"]
    assert await ancestors(True) == ["'self'", *hub]
    assert await ancestors(False, OTHER) == ["'self'", OTHER]
    assert await ancestors(True, OTHER) == ["'self'", OTHER]
    assert (await told(False))["connect-src"] == ["'self'"]
    assert (await told(True))["connect-src"] == ["'self'", "https://huggingface.co"]
    assert (await told(True))["script-src"] == (await told(False))["script-src"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("origin", [OTHER, "null", "http://localhost:3000"])
async def test_other_origins_may_read_nothing(path, origin):
    async with visiting() as client:
        response = await client.get(path, headers={"Origin": origin})
        asked = await client.options(
            path, headers={"Origin": origin, "Access-Control-Request-Method": "POST"}
        )
    for answer in (response, asked):
        assert "access-control-allow-origin" not in answer.headers
        assert "access-control-allow-credentials" not in answer.headers
    assert asked.status_code == 400


async def test_a_named_origin_may_call_without_a_login():
    options = ("--cors-origins", OTHER, "--api-key", "the-key")
    async with visiting(*options) as client:
        preflight = await client.options(
            "/v1/chat/completions",
            headers={
                "Origin": OTHER,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type",
            },
        )
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == OTHER
        headers = {
            "Origin": OTHER,
            "Sec-Fetch-Site": "cross-site",
            "Authorization": "Bearer the-key",
        }
        answer = await client.post(
            "/v1/chat/completions", json={"messages": [USER]}, headers=headers
        )
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == OTHER
        assert "access-control-allow-credentials" not in answer.headers
        headers["Authorization"] = "Bearer wrong"
        answer = await client.post(
            "/v1/chat/completions", json={"messages": [USER]}, headers=headers
        )
        assert answer.status_code == 401
        assert answer.headers["access-control-allow-origin"] == OTHER  # so that the page is told


# What openai-node sends from a browser, and what its callers and tools add.
OPENAI_HEADERS = (
    "authorization,content-type,idempotency-key,openai-beta,openai-organization,openai-project,"
    "x-stainless-arch,x-stainless-async,x-stainless-helper-method,x-stainless-lang,x-stainless-os,"
    "x-stainless-package-version,x-stainless-retry-count,x-stainless-runtime,"
    "x-stainless-runtime-version,x-stainless-timeout,x-request-id,traceparent,x-my-own"
)


async def test_a_named_origin_may_send_what_it_asks_to_send_and_read_what_is_answered():
    async with visiting("--cors-origins", OTHER) as client:
        asking = {
            "Origin": OTHER,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": OPENAI_HEADERS,
            "Access-Control-Request-Private-Network": "true",
        }
        preflight = await client.options("/v1/chat/completions", headers=asking)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-headers"] == OPENAI_HEADERS
        assert preflight.headers["access-control-allow-private-network"] == "true"
        body = {"messages": [USER]}
        answer = await client.post("/v1/chat/completions", json=body, headers={"Origin": OTHER})
        readable = answer.headers["access-control-expose-headers"].lower().split(", ")
        assert {"*", "retry-after", "x-request-id"} <= set(readable)


@pytest.mark.parametrize("names", ["x" * 129, "a b", "x\x01", ",".join(["x-a"] * 101), "x:y"])
async def test_a_preflight_that_no_browser_would_send_is_refused(names):
    async with visiting("--cors-origins", OTHER) as client:
        asking = {
            "Origin": OTHER,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": names,
        }
        answer = await client.options("/v1/chat/completions", headers=asking)
    assert answer.status_code == 400
    assert "at most 100 headers" in answer.text


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_another_sites_page_may_not_act_here(site):
    async with visiting() as client:
        headers = {"Sec-Fetch-Site": site, "Origin": OTHER}
        for path in ("/v1/chat/completions", "/gradio_api/queue/join", "/gradio_api/cancel"):
            answer = await client.post(path, json={}, headers=headers)
            assert answer.status_code == 403, path
            assert "--cors-origins" in answer.text
        assert (await client.get("/", headers=headers)).status_code == 200  # a link may lead here
        own = {"Sec-Fetch-Site": "same-origin"}
        answer = await client.post("/v1/chat/completions", json={"messages": [USER]}, headers=own)
        assert answer.status_code == 200


async def test_only_named_hosts_are_answered_where_some_are_named():
    async with visiting("--allowed-hosts", "chat.example.com") as client:
        assert (await client.get("/config")).status_code == 400
        refused = await client.get("/v1/models")
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "unknown_host"
        named = {"Host": "chat.example.com:7860"}
        assert (await client.get("/config", headers=named)).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost", "[::1]:7860", "10.1.2.3"])
async def test_health_answers_under_every_name(host):
    """A container's own health check asks for it by an address."""
    async with visiting("--allowed-hosts", "chat.example.com") as client:
        assert (await client.get("/health", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("a.example.com", 200),
        ("A.b.Example.com:1", 200),
        ("example.com", 400),
        ("notexample.com", 400),
        ("[::1]:7860", 200),
        ("::1", 400),
    ],
)
async def test_a_name_may_stand_for_all_below_it(host, status):
    async with visiting("--allowed-hosts", "*.example.com, ::1") as client:
        assert (await client.get("/config", headers={"Host": host})).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://192.168.1.5:7861", "Host": "192.168.1.5:7860"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": OTHER}, 200),
        ({"Origin": "http://192.168.1.5:7860", "Host": "192.168.1.5:7860"}, 200),
        ({"Origin": "http://NAS.local", "Host": "nas.local"}, 200),
        ({"Origin": "http://me.example", "X-Forwarded-Host": "me.example", "Host": "app:1"}, 200),
        ({}, 200),  # a program
    ],
)
async def test_over_plain_http_the_origin_is_the_servers_own(headers, status):
    """Browsers send no Sec-Fetch-Site there; a page elsewhere could act in its visitors' names."""
    async with visiting("--cors-origins", OTHER) as client:
        answer = await client.post("/v1/completions", json={"prompt": "a"}, headers=headers)
        assert answer.status_code == status
        assert (await client.get("/", headers=headers)).status_code == 200


def test_only_a_relayed_server_believes_the_relay():
    def trusted(is_space: bool = False, **options) -> list[str]:
        server = ServerSettings(**options)
        chosen = listening(Settings(server=server, platform=Platform(is_space=is_space)))
        assert chosen["proxy_headers"] == bool(chosen["forwarded_allow_ips"])
        assert chosen["access_log"] is False
        return chosen["forwarded_allow_ips"]

    assert trusted() == []
    assert trusted(trusted_proxies=("192.0.2.1",)) == ["192.0.2.1"]
    assert trusted(share=True) == ["127.0.0.1", "::1"]
    assert "10.0.0.0/8" in trusted(is_space=True)
    assert "127.0.0.1" not in trusted(is_space=True)
