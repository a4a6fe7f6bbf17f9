"""The README's pictures of the page: light, dark, and on a phone.

    python -m tests.browser.screenshots http://127.0.0.1:7860

The address is of a server with the bundled model, without conversations (an empty --data-dir).
"""

from __future__ import annotations

import argparse
import asyncio

from playwright.async_api import Browser, async_playwright

from falcon_mamba_app.bundled import ASSETS
from tests.browser.conftest import CHROMIUM, PHONE, open_page, send, wait_for_status

WIDE = {"width": 1440, "height": 860}
SAID = (
    "Hello! My name is Zorvin and I live in Lisbon.",
    "Tell me a short story about a fox.",
    "What is my name?",
)


async def picture(browser: Browser, url: str, name: str, *, scheme: str, is_phone: bool) -> None:
    """Talk, and take one picture when the figures have settled."""
    context = await browser.new_context(
        viewport=PHONE if is_phone else WIDE,
        color_scheme=scheme,  # type: ignore[arg-type]
        is_mobile=is_phone,
        has_touch=is_phone,
        device_scale_factor=2 if is_phone else 1,
    )
    page = await context.new_page()
    page.set_default_timeout(120_000)
    await open_page(page, url)
    for text in SAID:
        await send(page, text)
        await wait_for_status(page, "Done")
    await page.wait_for_timeout(1_500)
    await page.screenshot(path=ASSETS / name)
    await context.close()


async def main() -> None:
    """Take all three."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    url = parser.parse_args().url
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        for name, scheme, is_phone in (
            ("screenshot.png", "light", False),
            ("screenshot-dark.png", "dark", False),
            ("screenshot-phone.png", "dark", True),
        ):
            await picture(browser, url, name, scheme=scheme, is_phone=is_phone)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
