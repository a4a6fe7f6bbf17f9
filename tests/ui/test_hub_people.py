"""Hugging Face's sign-in on a Space, as far as it goes without their server."""

from __future__ import annotations

import base64
import json
import time

import gradio.oauth
import itsdangerous
import pytest

from falcon_mamba_app.server import build_app
from falcon_mamba_app.settings import load_settings
from tests.support.api_fixtures import in_process
from tests.support.echo_service import EchoService

SPACE = {
    "SPACE_ID": "anna/demo",
    "OAUTH_CLIENT_ID": "an-id",
    "OAUTH_CLIENT_SECRET": "a-secret",
    "OAUTH_SCOPES": "openid profile",
    "OPENID_PROVIDER_URL": "https://hub.example",
}


def cookie(name: str, *, ends_in_s: float = 60.0, secret: str = "a-secret") -> str:
    """As Gradio signs the account of somebody who came back from the hub."""
    import hashlib

    info = {"userinfo": {"preferred_username": name}, "expires_at": time.time() + ends_in_s}
    data = base64.b64encode(json.dumps({"oauth_info": info}).encode())
    key = hashlib.sha256(f"{secret}-v4".encode()).hexdigest()
    return f"session={itsdangerous.TimestampSigner(key).sign(data).decode()}"


@pytest.fixture
async def space(monkeypatch):
    """The app as on a Space, and the person of each request that it answered."""
    for name in ("OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_SCOPES", "OPENID_PROVIDER_URL"):
        monkeypatch.setattr(gradio.oauth, name, SPACE[name])
    monkeypatch.setattr(gradio.oauth, "get_space", lambda: SPACE["SPACE_ID"])
    service = EchoService()
    await service.start()
    app = build_app(service, load_settings((), SPACE))
    people = []

    async def watched(scope, receive, send):
        await app(scope, receive, send)
        if scope["type"] == "http":
            people.append(scope["state"].get("person"))

    async with in_process(watched) as client:
        client.people = people
        yield client


async def test_who_signed_in_at_the_hub_has_that_name_here(space):
    for given, person in (
        ({}, None),
        ({"cookie": cookie("anna")}, "hf:anna"),
        ({"cookie": cookie("anna", ends_in_s=-1.0)}, None),
        ({"cookie": cookie("anna", secret="another")}, None),
    ):
        assert (await space.get("/config", headers=given)).status_code == 200
        assert space.people[-1] == person
    config = (await space.get("/config")).json()
    assert any(one["type"] == "loginbutton" for one in config["components"]) or any(
        one["props"].get("elem_id") == "sign-in" for one in config["components"]
    )


@pytest.mark.parametrize("missing", [*SPACE])
def test_without_all_of_the_spaces_variables_there_is_no_sign_in(missing):
    environment = {name: value for name, value in SPACE.items() if name != missing}
    assert not load_settings((), environment).platform.signs_in
