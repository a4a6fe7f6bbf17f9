"""Inside the state: the laboratory's figures are those of the API, and each plot has its table."""

from __future__ import annotations

import asyncio

import pytest

from falcon_mamba_app.inspection import StateLook
from tests.browser.conftest import send, wait_for_status
from tests.support.page_server import serve_page
from tests.support.services import make_local_service


@pytest.fixture(scope="module")
def service():
    return make_local_service(max_new_tokens=8)


@pytest.fixture(scope="module")
def url(service):
    with serve_page(service) as url:
        yield url


async def in_its_loop(service, work):
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, service._loop))


async def test_what_the_laboratory_shows_of_a_state_is_what_the_api_tells(page, service):
    for text in ("My name is Zorvic.", "What is my name?"):
        await send(page, text)
        await wait_for_status(page, "Done")
    await page.get_by_role("tab", name="Laboratory").click()
    await page.get_by_role("tab", name="Inside the state").click()
    place = page.locator("#lab-state")
    await place.get_by_role("button", name="Look into the state").click()
    await place.get_by_text("2 of 2 turns looked at").wait_for()
    asked = service._worker.call(lambda engine: {session for session, _ in engine.snapshots._order})
    [session_id] = await asyncio.wrap_future(asked)
    told = await in_its_loop(service, service.inspect_state(session_id, StateLook()))

    assert await place.locator("svg[role=img]").count() == 3
    for summary in await place.locator("summary").all():
        await summary.click()
    await place.locator("table").nth(1).wait_for()  # each is made when it is unfolded
    turns, layers = [await table_of(one) for one in await place.locator("table").all()]
    assert [row[1] for row in turns] == ["My name is Zorvic.", "What is my name?"]
    assert [row[2] for row in turns] == [f"{turn.start}–{turn.end}" for turn in told.turns]
    assert [row[3] for row in turns] == [percent(turn.distance) for turn in told.turns]
    assert turns[0][4] == nats(told.turns[0].kl) and turns[1][4] == "–"
    assert len(layers) == len(told.decays) == 12
    for row, norm, moved in zip(
        layers, told.points[-1].norms, told.turns[-1].layer_distances, strict=True
    ):
        assert float(row[1]) == pytest.approx(norm, rel=6e-3)
        assert row[-1] == percent(moved)
    middles = [layer.half_lives[2] for layer in told.decays]
    assert [float(row[4].replace(",", "")) for row in layers] == pytest.approx(middles, rel=0.06)


async def table_of(table) -> list[list[str]]:
    return await table.evaluate(
        "table => [...table.tBodies[0].rows].map(row => [...row.cells].map(c => c.textContent))"
    )


def percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.0995 else f"{round(100 * share)} %"


def nats(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
