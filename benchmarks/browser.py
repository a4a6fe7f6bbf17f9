"""What one browser that reads the page leaves of the engine's speed, at a GPU's pace, what a first
visit transfers, and what long conversations cost the browser.

    python -m benchmarks.browser [--step-ms 5] [--rounds 5] [--messages 0 400 1000] [--save NAME]

Chromium reads long replies on the page while the engine writes them on a device that is a clock
(`paced.py`); service, server, page and browser are real. The figure is the engine's tokens a second
meanwhile over those of the engine alone, in rounds that take turns. The second table is of the
browser's main thread: a reply behind so many messages, and a scroll over all of them. Prints the
tables and one JSON line. Needs Playwright and Chromium ($CHROMIUM, else /usr/bin/chromium).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from playwright.async_api import Browser, Page, async_playwright

from benchmarks.lib.long_page import LongPage, measure_long_page
from benchmarks.lib.paced import pace
from benchmarks.lib.report import Table, about, finish_several
from benchmarks.serving import alone, on_engine, served
from falcon_mamba_app.ops.select import select_ops
from falcon_mamba_app.service.local.build import build_local
from falcon_mamba_app.service.local.service import LocalService
from falcon_mamba_app.settings import EngineSettings, ModelSettings

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ENGINE_STEPS = 200


async def read_on_page(page: Page, service: LocalService) -> float:
    """Tokens a second while a reply is written, from its first to its last."""
    before = _num_tokens(service)
    await page.locator("#composer textarea").fill("Tell me a story.")
    await page.locator("#composer textarea").press("Enter")
    points: list[tuple[float, int]] = []
    while not points or service.stats().running:
        num_tokens = _num_tokens(service) - before
        if num_tokens:
            points.append((time.perf_counter(), num_tokens))
        await asyncio.sleep(0.002)
    (start_s, first), (end_s, last) = points[0], next(p for p in points if p[1] == points[-1][1])
    await page.wait_for_function(
        "document.querySelector('.status-line')?.innerText.includes('Done')"
    )
    return (last - first) / (end_s - start_s)


async def opened(browser: Browser, url: str) -> Page:
    """The page of a new visitor."""
    page = await (await browser.new_context()).new_page()
    await _open(page, url)
    return page


async def _open(page: Page, url: str) -> None:
    await page.goto(url)
    await page.wait_for_selector(".status-line:not([data-phase=starting])")


async def bytes_of_first_visit(browser: Browser, url: str) -> int:
    """All that a new visitor's browser receives until the page can be used, Gradio's files too."""
    sizes: list[float] = []
    page = await (await browser.new_context()).new_page()
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("Network.enable")
    devtools.on("Network.loadingFinished", lambda told: sizes.append(told["encodedDataLength"]))
    await _open(page, url)
    await page.context.close()
    return int(sum(sizes))


def _num_tokens(service: LocalService) -> int:
    """Written since the service began."""
    total = service.stats().completion_tokens_total
    assert total is not None
    return total


async def measure(
    options: argparse.Namespace,
) -> tuple[int, list[dict[str, float]], list[LongPage]]:
    service = build_local(ModelSettings(model="nano", device="cpu"), EngineSettings())
    await service.start()
    try:
        await on_engine(service, partial(pace, step_s=options.step_ms / 1_000))
        async with served(service) as url, async_playwright() as playwright:
            arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
            num_bytes = await bytes_of_first_visit(browser, url)
            page = await opened(browser, url)
            rounds = []
            for _ in range(options.rounds):
                rate = await on_engine(service, alone, 1, ENGINE_STEPS)
                read = await read_on_page(page, service)
                rounds.append({"alone": rate, "with_browser": read, "share": read / rate})
            await page.context.close()
            long_pages = []
            for num_messages in options.messages:
                page = await opened(browser, url)
                count = partial(_num_tokens, service)
                long_pages.append(await measure_long_page(page, num_messages, count))
                await page.context.close()
            await browser.close()
            return num_bytes, rounds, long_pages
    finally:
        await service.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step-ms", type=float, default=5.0, help="of the device that is a clock")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, nargs="*", default=[0, 400, 1_000])
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.json and .md")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    num_bytes, rounds, long_pages = asyncio.run(measure(options))
    table = Table("round", "engine alone, tok/s", "with a browser, tok/s", "share")
    for number, found in enumerate(rounds, start=1):
        rates = f"{found['alone']:.1f}", f"{found['with_browser']:.1f}"
        table.add(str(number), *rates, f"{found['share']:.3f}")
    share = statistics.median(found["share"] for found in rounds)
    table.add("median", "", "", f"{share:.3f}")
    device = torch.device("cpu")
    facts = about("browser", device, select_ops(device, "reference"))
    facts |= {"kernels": f"none: a clock of {options.step_ms:g} ms a step", "load": f"{load:.1f}"}
    facts["a first visit transfers"] = f"{num_bytes / 1_000:.0f} kB"
    result: dict[str, Any] = {"benchmark": "browser", "share": share, "rounds": rounds}
    result["first_visit_bytes"] = num_bytes
    result["long_pages"] = [asdict(cost) for cost in long_pages]
    heads = "ms a token", "longest task, ms", "ms a frame, scrolled", "19 of 20 frames within, ms"
    costs = Table("messages", *heads)
    for cost in long_pages:
        figures = cost.ms_per_token, cost.longest_ms, cost.frame_ms, cost.slow_frame_ms
        costs.add(str(cost.num_messages), *(f"{figure:.1f}" for figure in figures))
    finish_several("A browser on the page", facts, [table, costs], result, options.save)


if __name__ == "__main__":
    main()
