"""The page behind its login and its content policy, as a browser sees it."""

import pytest
import pytest_asyncio

from tests.browser.conftest import LAPTOP, open_page, send, wait_for_draft, wait_for_status
from tests.browser.test_access import LOW_CONTRAST_JS, NAMELESS_JS
from tests.support.echo_service import EchoService
from tests.support.page_server import serve_page

RUN_SCRIPT_JS = """() => {
  const script = document.createElement("script");
  script.textContent = "window.hasRun = true";
  document.body.append(script);
  const image = document.createElement("img");
  image.setAttribute("onerror", "window.hasRun = true");
  image.src = "data:image/png;base64,nonsense";
  document.body.append(image);
  return new Promise((done) => setTimeout(() => done(window.hasRun === true), 300));
}"""


@pytest.fixture(scope="module")
def locked_url():
    with serve_page(EchoService(), auth="ada:secret") as url:
        yield url


@pytest_asyncio.fixture(loop_scope="module", params=["light", "dark"])
async def watched(browser, request):
    """A new page in each theme, and what its console complains about."""
    context = await browser.new_context(viewport=LAPTOP, color_scheme=request.param)
    page = await context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: (
            complaints.append(message.text) if message.type in ("error", "warning") else None
        ),
    )
    yield page, complaints
    await context.close()


async def test_the_page_works_within_its_policy_without_a_complaint(watched, url):
    page, complaints = watched
    await open_page(page, url)
    await send(page, "hello `code` **bold** $x^2$ and\n\n```python\nprint(1)\n```\n\n| a |\n|---|")
    await wait_for_status(page, "Done")
    await page.get_by_role("button", name="Model behaviour").click()
    await page.get_by_role("button", name="Switch between light and dark").click()
    await page.locator("#retry").click()
    await wait_for_status(page, "Done")
    await page.locator("#clear").click()
    await wait_for_status(page, "New conversation")
    assert complaints == []


async def test_a_script_that_is_not_the_pages_own_does_not_run(page):
    assert await page.evaluate(RUN_SCRIPT_JS) is False


async def test_a_tabs_name_is_long_enough_not_to_be_guessed(browser, url):
    context = await browser.new_context(viewport=LAPTOP)
    names = set()
    for _ in range(3):
        page = await context.new_page()
        async with page.expect_request("**/gradio_api/heartbeat/*") as asked:
            await open_page(page, url)
        names.add((await asked.value).url.rpartition("/")[2])
    assert len(names) == 3
    assert min(len(name) for name in names) >= 10  # of 36 letters: 50 bits and more
    await context.close()


async def test_the_login_lets_in_who_knows_the_password(watched, locked_url):
    page, complaints = watched
    await page.goto(f"{locked_url}/?view=chat")
    assert page.url == f"{locked_url}/login?next=/%3Fview%3Dchat"
    assert await page.evaluate("document.activeElement.name") == "username"
    assert await page.evaluate(NAMELESS_JS) == []
    assert await page.evaluate(LOW_CONTRAST_JS) == []
    await page.keyboard.type("ada")
    await page.keyboard.press("Tab")
    await page.keyboard.type("wrong")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("[role=alert] >> text=the user or the password is wrong")
    assert await page.evaluate(LOW_CONTRAST_JS) == []
    assert await page.input_value("[name=username]") == "ada"
    await page.keyboard.type("secret")  # the focus is on the password
    await page.click("button")
    await page.wait_for_url(f"{locked_url}/?view=chat")
    await page.wait_for_selector("#composer textarea")
    await send(page, "hello")
    await wait_for_status(page, "Done")
    assert ["401" in text for text in complaints] == [True]  # of the wrong password
    await page.get_by_role("link", name="Sign out").click()
    await page.wait_for_url(f"{locked_url}/login")
    await page.goto(locked_url)
    assert "/login" in page.url


async def test_a_refused_event_is_told_and_the_message_stays(page):
    sentence = "more than 9 requests came from here within a minute; try again in 5 s"
    answer = {"status": 429, "json": {"detail": sentence}}
    await page.route("**/gradio_api/queue/join*", lambda route: route.fulfill(**answer))
    await send(page, "hello")
    await page.wait_for_selector(f"text={sentence}")
    await wait_for_draft(page, "hello")
    await page.unroute("**/gradio_api/queue/join*")
    await send(page, "hello again")
    await wait_for_status(page, "Done")


async def test_only_its_own_pages_show_this_one_in_a_frame(page, url):
    elsewhere = url.replace("127.0.0.1", "localhost")
    body = f"<iframe src='{url}/'></iframe>"
    for place in (url, elsewhere):
        await page.route(
            f"{place}/framing", lambda route: route.fulfill(content_type="text/html", body=body)
        )
    await page.goto(f"{url}/framing")
    await page.frame_locator("iframe").locator("#composer textarea").wait_for()
    await page.goto(f"{elsewhere}/framing")
    assert page.frames[1].url == "chrome-error://chromewebdata/"
