"""Books on the page: files are counted, read, stood on, put in a row and shared."""

from __future__ import annotations

import base64

import pytest

from falcon_mamba_app.books.standing import Standing
from tests.browser.conftest import send, wait_for_status
from tests.documents.test_documents import pdf
from tests.support.page_server import serve_page
from tests.support.services import make_local_service

MILL = "# The mill\n\nThe miller kept a red lamp in the cellar. His sister Mira had a blue boat.\n"
SEA = "The sea is cold in March."
DROP = """([name, data]) => {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    const carried = new DataTransfer();
    carried.items.add(new File([bytes], name));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: carried, bubbles: true }));
}"""


@pytest.fixture(scope="module")
def service():
    return make_local_service()


@pytest.fixture(scope="module")
def url(service, tmp_path_factory):
    with serve_page(service, data_dir=tmp_path_factory.mktemp("library")) as url:
        yield url


def num_tokens(service, name: str, text: str) -> int:
    """As the API counts them."""
    return len(Standing.of(service.tokenizer, service.stats().model).ids_of(name, text.strip()))


async def test_files_are_counted_read_asked_put_in_a_row_and_shared(page, service):
    line = page.locator("#book .book")

    # A file that is chosen is counted before anything is spent, and read once.
    await page.get_by_role("button", name="Read a file").click()
    async with page.expect_file_chooser() as chooser:
        await line.get_by_role("button", name="Choose a document").click()
    mill = {"name": "mill.md", "mimeType": "text/markdown", "buffer": MILL.encode()}
    await (await chooser.value).set_files(mill)
    of_mill = num_tokens(service, "mill.md", MILL)
    await line.get_by_text(f"1 pages · {of_mill} tokens").wait_for()
    assert service.stats().requests_total == 0
    await line.get_by_role("button", name="Read", exact=True).click()
    await line.get_by_text(f"Stands on mill.md: {of_mill} tokens, read once").wait_for()
    await send(page, "Where is the lamp?")
    await wait_for_status(page, "Done")
    assert service.stats().reused_tokens_total >= of_mill

    # A dropped PDF is the second one.
    await page.evaluate(DROP, ["sea.pdf", base64.b64encode(pdf(SEA)).decode()])
    of_sea = num_tokens(service, "sea.pdf", SEA)
    await line.get_by_text(f"1 pages · {of_sea} tokens").wait_for()
    await line.get_by_role("button", name="Read", exact=True).click()
    await line.get_by_text(f"Stands on sea.pdf: {of_sea} tokens").wait_for()

    # What is longer than the model's training is said before it is read.
    trained = service.stats().model.trained_context_tokens
    long = base64.b64encode((MILL * (trained // 16)).encode()).decode()
    await page.evaluate(DROP, ["long.md", long])
    await line.get_by_text(f"more than the {trained:,} that the model was trained on").wait_for()
    await line.get_by_role("button", name="Cancel").click()

    # A row: chosen, changed, counted with what is known of it, and read as another state.
    await page.get_by_role("button", name="Read a file").click()
    await line.get_by_role("button", name="Then: mill.md").click()
    assert await line.get_by_role("button", name="Count them").is_disabled()
    await line.get_by_role("button", name="Then: sea.pdf").click()
    await line.get_by_text("another order is another state").wait_for()
    await line.get_by_role("button", name="↓: mill.md, later").click()
    order = line.locator("ol li")
    assert [text.split()[0] for text in await order.all_inner_texts()] == ["sea.pdf", "mill.md"]
    await line.get_by_role("button", name="Count them").click()
    await line.get_by_text(f"tokens, {of_sea} of them read already").wait_for()
    await line.get_by_role("button", name="Read", exact=True).click()
    await line.get_by_text("Stands on sea.pdf, then mill.md:").wait_for()

    # Its owner shares a book and takes it back.
    await page.get_by_role("button", name="Read a file").click()
    await line.get_by_role("button", name="Share: mill.md", exact=True).click()
    await line.get_by_text("everybody here may begin from it").wait_for()
    await line.get_by_role("button", name="Take back: mill.md", exact=True).click()
    await line.get_by_text("everybody here may begin from it").wait_for(state="detached")


async def test_a_stopped_book_is_what_was_read_of_it(page, service):
    line = page.locator("#book .book")
    long = base64.b64encode((MILL * 1_500).encode()).decode()
    await page.evaluate(DROP, ["endless.md", long])
    await line.get_by_role("button", name="Read", exact=True).click()
    await line.get_by_text("tokens/s").wait_for()
    await line.get_by_role("button", name="Stop").click()
    await line.get_by_text("Stands on endless.md:").wait_for()
    shown = (await line.inner_text()).split(": ")[1].split()[0]
    assert 0 < int(shown.replace(",", "")) < num_tokens(service, "endless.md", MILL * 1_500)
