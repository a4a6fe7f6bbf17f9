"""Two real copies over one PostgreSQL: a conversation goes on at the other, and limits add up."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks.lib.copies import Copies
from tests.support.cluster import copies_of
from tests.support.private_postgres import find, postgres

STORY = "Tell me a long story about a fox who wants to read a book, and the river behind the house."
SHORT = {"max_output_tokens": 4, "temperature": 0}
OWNER, GUEST = ({"Authorization": f"Bearer {key}-key"} for key in ("owner", "guest"))
PER_MINUTE = 60
# From elsewhere, as the proxy on this machine says; this machine itself is not limited.
AS_GUEST = {**GUEST, "X-Forwarded-For": "203.0.113.7"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def copies() -> Iterator[Copies]:
    if find("initdb") is None:
        pytest.skip("PostgreSQL's programs are not installed (apt-get install postgresql)")
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the database's user must be able to enter it
        with (
            postgres(folder / "pg") as url,
            copies_of(
                folder / "log",
                folder / "data",
                f"--database-url={url}",
                "--keep-conversations=on",
                "--api-key=owner-key,guest-key",
                "--trusted-proxies=127.0.0.1",
                f"--visitor-replies-per-minute={PER_MINUTE}",
            ) as copies,
        ):
            yield copies


def test_a_conversation_begun_at_one_copy_goes_on_at_the_other_with_its_state(copies):
    one, other = (
        httpx.Client(base_url=url, headers=OWNER, timeout=120) for url in copies.own_urls.values()
    )

    def answer(at: httpx.Client, **asked) -> dict:
        answered = at.post("/v1/responses", json={**SHORT, **asked})
        assert answered.status_code == 200, answered.text
        return answered.json()

    with one, other:
        conversation = one.post("/v1/conversations", json={}).json()["id"]
        first = answer(one, conversation=conversation, input=STORY)
        published = one.post(f"/v1/sessions/{conversation}/state").json()["num_tokens"]
        assert published > 20
        second = answer(other, conversation=conversation, input="And then?")
        assert second["usage"]["input_tokens_details"]["cached_tokens"] == published
        # Back at the first one, which has an older state in memory, and from an earlier reply.
        branch = answer(one, previous_response_id=first["id"], input="Or else?")
        assert branch["usage"]["input_tokens_details"]["cached_tokens"] == published
        items = [
            at.get(f"/v1/conversations/{conversation}/items?order=asc&limit=100").json()["data"]
            for at in (one, other)
        ]
        assert items[0] == items[1]
        texts = [item["content"][0]["text"] for item in items[0]]
        assert texts[0] == STORY and texts[2] == "Or else?"  # the branch that was written last


def test_replies_at_both_copies_count_against_one_limit(copies):
    """All that a minute allows is taken at one copy; the other one hears of it within seconds."""
    one, other = (
        httpx.Client(base_url=url, headers=AS_GUEST, timeout=120)
        for url in copies.own_urls.values()
    )
    asked = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    with one, other:
        for _ in range(PER_MINUTE // 10):
            assert one.post("/v1/chat/completions", json={**asked, "n": 10}).status_code == 200
        given, end_s = 0, time.monotonic() + 60
        while (
            "replies were asked for"
            not in (answer := other.post("/v1/chat/completions", json=asked)).text
        ):
            given += answer.status_code == 200
            assert time.monotonic() < end_s
            time.sleep(0.2)
    assert answer.status_code == 429
    assert given < PER_MINUTE // 2, "the other copy gave as much again"
