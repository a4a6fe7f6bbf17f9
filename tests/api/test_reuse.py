"""Whose earlier requests a request may begin from: the same caller's, unless somebody says no."""

from __future__ import annotations

import pytest

from falcon_mamba_app.api.routes import create_api
from falcon_mamba_app.middleware.stack import protect
from falcon_mamba_app.settings import Settings
from tests.support.api_fixtures import USER, in_process

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
FROM_ANNA, FROM_TOM = ({"authorization": f"Bearer {key}"} for key in ("key-of-anna", "key-of-tom"))


async def reuse_id(service, client, url=CHAT, headers=None, **fields) -> str | None:
    body = {"messages": [USER]} if url == CHAT else {"prompt": "a"}
    answer = await client.post(url, json={**body, **fields}, headers=headers)
    assert answer.status_code == 200, answer.text
    return service.requests[-1].reuse_id


async def test_a_caller_finds_its_own_whatever_it_asks_and_nobody_elses(service):
    async with in_process(create_api(service, api_keys=("key-of-anna", "key-of-tom"))) as client:
        annas = {
            await reuse_id(service, client, url, FROM_ANNA, **fields)
            for url in (CHAT, COMPLETIONS)
            for fields in ({}, {"temperature": 0}, {"n": 2}, {"prompt_cache_key": "k"})
        }
        toms = await reuse_id(service, client, headers=FROM_TOM)
        salted = await reuse_id(service, client, headers=FROM_ANNA, cache_salt="other")
    assert len(annas) == 1 and None not in annas
    assert len({*annas, toms, salted}) == 3


async def test_addresses_are_callers_where_there_are_no_keys(service):
    app = create_api(service)
    protect(app, Settings())
    seen = []
    for address in ("203.0.113.5", "203.0.113.6", "203.0.113.5"):
        async with in_process(app, client=(address, 1)) as client:
            seen.append(await reuse_id(service, client))
    assert seen[0] == seen[2] != seen[1]


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"store": False}, {}),
        ({"cache_prompt": False}, {}),
        ({}, {"x-prompt-reuse": "off"}),
        ({}, {"x-forwarded-for": "203.0.113.5"}),  # of a proxy that nobody said to trust
    ],
)
async def test_who_says_no_begins_from_nothing_and_leaves_nothing(service, fields, headers):
    app = create_api(service)
    protect(app, Settings())
    async with in_process(app) as client:
        assert await reuse_id(service, client, headers=headers, **fields) is None
        assert await reuse_id(service, client) is not None


async def test_the_operator_can_say_no_for_all(service):
    async with in_process(create_api(service, reuse_prompts=False)) as client:
        assert await reuse_id(service, client) is None


async def test_a_name_in_the_api_is_no_secret_and_the_pools_name_is(service):
    for secret in ("one secret of sixteen", "another secret of it"):
        async with in_process(create_api(service, session_secret=secret)) as client:
            await reuse_id(service, client, prompt_cache_key="reuse")
    first, second = service.requests
    names = {first.reuse_id, second.reuse_id, first.session_id, second.session_id}
    assert len(names) == 4
