"""Runs over the bundled model: they are requests like any other, and tell the truth about them."""

import asyncio
from contextlib import aclosing, contextmanager

import pytest
import pytest_asyncio

from falcon_mamba_app.errors import PromptTooLong, TooManyRequests
from falcon_mamba_app.lab.answers import Plan
from falcon_mamba_app.lab.asking import Asker, HeldBack, merged
from falcon_mamba_app.lab.growth import Grown, Point, grow
from falcon_mamba_app.lab.probe import Asked, probe
from falcon_mamba_app.lab.texts import chronicle_ids
from falcon_mamba_app.protocol import GenerationRequest, SamplingParams, Text
from tests.support.api_fixtures import in_process
from tests.support.services import collect, make_local_service, settled
from tests.support.web_fixtures import ELSEWHERE, whole_app

pytestmark = pytest.mark.asyncio(loop_scope="module")
PLAN = Plan(lengths=(200,), depths=(0.0, 1.0), per_cell=2, seed=1)
SHORT = SamplingParams(max_new_tokens=2)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service():
    service = make_local_service(max_prompt_tokens=2_000)
    await service.start()
    yield service
    await service.close()


def ids(service, num_tokens):
    return chronicle_ids(service.tokenizer, service.stats().model, num_tokens, "1")


async def listed(events):
    async with aclosing(events):
        return [event async for event in events]


async def test_a_text_is_read_once_and_the_state_stays_as_it_is(service):
    before = service.stats()
    events = await listed(grow(Asker(service), ids(service, 1_000), num_written=4))
    after = service.stats()
    points = [event for event in events if isinstance(event, Point)]
    assert after.prompt_tokens_total - before.prompt_tokens_total == 1_000
    assert after.completion_tokens_total - before.completion_tokens_total == 4
    assert [points[0].tokens, points[-1].tokens] == [0, 999]  # the last one feeds the first reply
    assert [p.tokens for p in points] == sorted({p.tokens for p in points})
    assert {p.state_bytes for p in points} == {after.model.state_bytes}
    end = events[-1]
    assert isinstance(end, Grown) and (end.tokens, end.written) == (1_000, 4)
    assert end.tokens_per_s > 0 and end.write_tokens_per_s > 0


async def test_a_run_without_a_reply_only_reads(service):
    *_, end = await listed(grow(Asker(service), ids(service, 200), num_written=0))
    assert (end.written, end.write_tokens_per_s) == (0, None)


async def test_closing_a_run_ends_its_reading(service):
    events = grow(Asker(service), ids(service, 2_000), num_written=0)
    async for event in events:
        if isinstance(event, Point):
            break
    await events.aclose()
    await settled(lambda: service.stats().running == 0)


async def test_a_text_beyond_the_limit_costs_nothing(service):
    requests = service.stats().requests_total
    with pytest.raises(PromptTooLong, match="2,001 tokens"):
        await listed(grow(Asker(service), ids(service, 2_000) + ids(service, 1), num_written=0))
    assert service.stats().requests_total == requests


async def test_what_a_limit_refuses_is_asked_again_and_its_tokens_are_counted(service):
    refusals, counted = [0, 0], []

    @contextmanager
    def holds():
        if refusals:
            raise TooManyRequests("too many replies", retry_after_s=refusals.pop())
        yield

    asker = Asker(service, holds=holds, counts=counted.append)
    events = await listed(grow(asker, ids(service, 200), num_written=2))
    assert [e.reason for e in events if isinstance(e, HeldBack)] == ["too many replies"] * 2
    assert sum(counted) == 202


async def test_a_run_gives_its_place_to_whoever_comes():
    """The one place that there is: a text of hours would keep everybody else waiting."""
    service = make_local_service(max_running=1, max_prefill_tokens=64, max_prompt_tokens=4_000)
    await service.start()
    order = []

    async def read():
        async for event in grow(Asker(service), ids(service, 1_000), num_written=0):
            if isinstance(event, Point) and event.tokens:
                has_begun.set()
        order.append("run")

    has_begun = asyncio.Event()
    reading = asyncio.create_task(read())
    await has_begun.wait()
    await collect(service, GenerationRequest(prompt=Text("Hello"), sampling=SHORT))
    order.append("person")
    await reading
    await service.close()
    assert order == ["person", "run"]


async def test_a_question_costs_its_own_tokens_and_the_state_is_dropped(service):
    before = service.stats()
    events = await listed(probe(Asker(service), PLAN))
    asked = [event for event in events if isinstance(event, Asked)]
    assert [one.done for one in asked] == [1, 2, 3, 4]
    assert all(0 < one.tokens_read < 60 for one in asked)
    read = service.stats().prompt_tokens_total - before.prompt_tokens_total
    reused = service.stats().reused_tokens_total - before.reused_tokens_total
    assert read - reused < 2 * 250 + 4 * 60  # two texts, and four questions
    await settled(lambda: service.stats().snapshots == before.snapshots)


async def test_a_probe_gives_the_same_answers_again_and_goes_on_where_it_was(service):
    first = [e.answer for e in await listed(probe(Asker(service), PLAN)) if isinstance(e, Asked)]
    wide = await listed(probe(Asker(service), PLAN, width=2))
    answers = {e.answer.key: e.answer for e in wide if isinstance(e, Asked)}
    assert answers == {answer.key: answer for answer in first}
    rest = [e for e in await listed(probe(Asker(service), PLAN, first[:3])) if isinstance(e, Asked)]
    assert [e.answer for e in rest] == first[3:]
    assert [e.done for e in rest] == [4]


async def test_a_stopped_probe_leaves_nothing_behind(service):
    snapshots = service.stats().snapshots
    events = probe(Asker(service), PLAN)
    async for event in events:
        if isinstance(event, Asked):
            break
    await events.aclose()
    stats = service.stats
    await settled(lambda: stats().running == 0 and stats().snapshots == snapshots)


async def test_an_error_in_one_of_several_ends_them_all():
    closed = []

    async def source(name, error=None):
        try:
            yield name
            if error:
                raise error
            await asyncio.Event().wait()
        finally:
            closed.append(name)

    with pytest.raises(PromptTooLong):
        await listed(merged([source("a"), source("b", PromptTooLong("no"))]))
    assert sorted(closed) == ["a", "b"]


async def test_a_run_counts_within_its_visitors_limits(service):
    app = whole_app("--visitor-tokens-per-minute", "1500", service=service)
    async with in_process(app, client=(ELSEWHERE, 1)) as client:
        run = await client.post("/lab/growth", json={"tokens": 1_600})
        assert '"kind":"grown","tokens":1600' in run.text
        refused = await client.post("/v1/completions", json={"prompt": "Hello", "max_tokens": 1})
        assert refused.status_code == 429
