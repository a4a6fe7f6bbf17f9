"""The page's second tab over the bundled model: what it draws is what the service counted."""

from __future__ import annotations

import json

import pytest

from falcon_mamba_app.lab.attention import LLAMA_3_1_8B
from tests.browser.conftest import LAPTOP, PHONE, open_page
from tests.support.services import make_local_service, settled


@pytest.fixture(scope="module")
def service():
    return make_local_service(max_prompt_tokens=20_000)


@pytest.fixture(scope="module")
def url(service):
    from tests.support.page_server import serve_page

    with serve_page(service) as url:
        yield url


async def open_laboratory(page):
    await page.get_by_role("tab", name="Laboratory").click()
    await page.get_by_role("tab", name="Memory against context").wait_for()


async def rows_of(page, section):
    """The table behind the section's plot, without the separators of thousands."""
    await page.locator(f"{section} details:has(.lab-table)").evaluate("d => { d.open = true; }")
    await page.locator(f"{section} td").first.wait_for()
    read = "rows => rows.map(row => [...row.cells].map(cell => cell.innerText.replaceAll(',', '')))"
    return await page.locator(f"{section} tbody tr").evaluate_all(read)


async def saved_json(page, section):
    async with page.expect_download() as downloading:
        await page.locator(section).get_by_role("button", name="JSON").click()
    return json.loads((await (await downloading.value).path()).read_text("utf-8"))


async def reopened(page, section, value):
    file = {"name": "r.json", "mimeType": "application/json", "buffer": json.dumps(value).encode()}
    await page.locator(f"{section} .lab-opener").set_input_files(file)
    await page.locator(f"{section} .lab-status", has_text="Opened").wait_for()


async def test_the_laboratory_is_fetched_when_its_tab_is_opened_and_the_keyboard_opens_it(
    browser, url
):
    context = await browser.new_context(viewport=LAPTOP)
    page, asked = await context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    await open_page(page, url)
    assert not [one for one in asked if "/lab/" in one]
    await page.locator("#tab-chat").focus()
    await page.keyboard.press("ArrowRight")
    await page.get_by_role("tab", name="Recall probe").wait_for()
    assert await page.evaluate("document.activeElement.id") == "tab-lab"
    assert not await page.get_by_role("textbox", name="Message").is_visible()
    await page.keyboard.press("ArrowLeft")
    await page.get_by_role("textbox", name="Message").wait_for()
    assert not await page.locator("#lab").is_visible()
    await page.goto(f"{url}/#laboratory")
    await page.reload()
    await page.get_by_role("tab", name="Recall probe").wait_for()
    await context.close()


async def test_the_plot_of_memory_shows_what_the_service_counted(page, service):
    await open_laboratory(page)
    await page.locator("#growth-tokens").fill("20001")
    await page.locator("#lab-growth").get_by_role("button", name="Run").click()
    refused = page.locator("#lab-growth .lab-trouble", has_text="at most 20,000")
    assert "--max-prompt-tokens" in await refused.inner_text()

    before = service.stats()
    await page.locator("#growth-tokens").fill("1500")
    await page.locator("#lab-growth").get_by_role("button", name="Run").click()
    await page.locator("#lab-growth .lab-status", has_text="Done in").wait_for()
    after = service.stats()
    rows = await rows_of(page, "#lab-growth")
    assert after.prompt_tokens_total - before.prompt_tokens_total == 1_500
    assert [rows[0][0], rows[-1][0]] == ["0", "1499"]
    assert {row[3] for row in rows} == {str(after.model.state_bytes)}
    assert int(rows[-1][4]) <= after.peak_process_memory_bytes
    assert float(rows[-1][6]) == LLAMA_3_1_8B.cache_bytes(1_499)
    drawn = await page.locator("#lab-growth path.state").get_attribute("d")
    assert drawn.count("L") + 1 == sum(int(row[0]) >= 100 for row in rows)

    # Another shape is computed by the server, and drawn at once.
    await page.get_by_text("Compared with", exact=True).click()
    await page.locator("#growth-layers").fill("16")
    await page.locator("#growth-layers").press("Tab")
    await page.locator("#lab-growth small", has_text="65,536 bytes a token").wait_for()
    assert float((await rows_of(page, "#lab-growth"))[-1][6]) == LLAMA_3_1_8B.cache_bytes(1_499) / 2

    value = await saved_json(page, "#lab-growth")
    assert len(value["points"]) == len(rows) and value["end"]["written"] == 32
    value["points"] = value["points"][:2]
    await reopened(page, "#lab-growth", value)
    assert len(await rows_of(page, "#lab-growth")) == 2
    async with page.expect_download() as downloading:
        await page.locator("#lab-growth").get_by_role("button", name="SVG").click()
    picture = (await (await downloading.value).path()).read_text("utf-8")
    assert picture.startswith("<?xml") and picture.count("<path") >= 4 and "class=" not in picture
    assert "Cache of" in picture and "Memory over tokens" in picture
    async with page.expect_download() as downloading:
        await page.locator("#lab-growth").get_by_role("button", name="PNG").click()
    assert (await (await downloading.value).path()).read_bytes().startswith(b"\x89PNG")


async def test_a_run_ends_with_escape_and_when_its_page_is_left(browser, url, service):
    context = await browser.new_context(viewport=PHONE)
    page = await context.new_page()
    await open_page(page, url)
    await open_laboratory(page)
    section = page.locator("#lab-growth")
    await page.locator("#growth-tokens").fill("20000")
    await section.get_by_role("button", name="Run").click()
    await section.locator("path.state").wait_for(state="attached")
    await page.keyboard.press("Escape")  # as in the chat
    await section.locator(".lab-status", has_text="Stopped").wait_for()
    await settled(lambda: service.stats().running == 0)
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    await section.get_by_role("button", name="Run").click()
    await settled(lambda: service.stats().running == 1)
    await context.close()
    await settled(lambda: service.stats().running == 0)


async def test_the_map_of_recall_shows_what_the_route_answers(page, url, service):
    plan = {"lengths": [200], "depths": [0, 1], "per_cell": 2, "seed": 4}
    told = await page.request.post(f"{url}/lab/probe", data=plan)
    lines = [json.loads(line[6:]) for line in (await told.text()).split("\n\n") if line]
    answers = [line["answer"] for line in lines if line["kind"] == "asked"]
    await open_laboratory(page)
    await page.get_by_role("tab", name="Recall probe").click()
    for name, value in (("lengths", "200"), ("depths", "0, 100"), ("per-cell", "2"), ("seed", "4")):
        await page.locator(f"#probe-{name}").fill(value)
    await page.locator("#lab-probe").get_by_role("button", name="Run").click()
    await page.locator("#lab-probe .lab-status", has_text="Done.").wait_for()
    rows = await rows_of(page, "#lab-probe")
    right = [sum(one["right"] for one in answers if one["depth"] == depth) for depth in (0, 1)]
    assert [row[:4] for row in rows] == [
        ["200", "0 %", str(right[0]), "2"],
        ["200", "100 %", str(right[1]), "2"],
    ]
    assert await page.locator("#lab-probe rect.heat").count() == 2
    value = await saved_json(page, "#lab-probe")
    assert value["answers"] == [list(one.values()) for one in answers]

    # A file with answers missing goes on with these alone.
    value["answers"] = value["answers"][:3]
    await reopened(page, "#lab-probe", value)
    requests = service.stats().requests_total
    await page.locator("#lab-probe").get_by_role("button", name="Go on: 1 questions").click()
    await page.locator("#lab-probe .lab-status", has_text="Done.").wait_for()
    assert service.stats().requests_total - requests == 2  # the text once more, and the question
