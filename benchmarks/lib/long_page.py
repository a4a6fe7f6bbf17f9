"""A long conversation in a browser: its main thread's work for a token and for a scrolled frame."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from playwright.async_api import CDPSession, FilePayload, Page

WORDS = "A message of a usual length, with `code`, **words** and a list:\n\n- one\n- two\n- three"
FRAMES = 180
# From the first message to the last one; the frames' times in ms.
SCROLL = """(frames) => new Promise((done) => {
    const place = document.querySelector("#transcript .scroll");
    const end = place.scrollHeight - place.clientHeight;
    const times = [];
    let before = null;
    const step = (now) => {
        if (before !== null) times.push(now - before);
        before = now;
        place.scrollTop = end * times.length / frames;
        if (times.length < frames) requestAnimationFrame(step);
        else done(times);
    };
    requestAnimationFrame(step);
})"""
WATCH_LONG_TASKS = """() => {
    window.longest = 0;
    new PerformanceObserver((list) => list.getEntries().forEach((entry) => {
        window.longest = Math.max(window.longest, entry.duration);
    })).observe({ type: "longtask" });
}"""


@dataclass(frozen=True, slots=True)
class LongPage:
    """Times of the browser's main thread, in milliseconds."""

    num_messages: int
    ms_per_token: float  # all its work while a reply is written, by the reply's tokens
    longest_ms: float  # its longest task meanwhile; 0 where none took 50
    frame_ms: float  # work for a frame while scrolling
    slow_frame_ms: float  # between two frames, 19 of 20 times less


def export_of(num_messages: int) -> bytes:
    """A conversation as a file that the page opens."""
    roles = ("user", "assistant")
    said = [{"role": roles[i % 2], "content": f"{i}. {WORDS}"} for i in range(num_messages)]
    return json.dumps({"messages": said}).encode()


async def measure_long_page(
    page: Page, num_messages: int, count_tokens: Callable[[], int]
) -> LongPage:
    """On a page that has just opened; `count_tokens` tells how many the server has written."""
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("Performance.enable")
    if num_messages:
        file: FilePayload = {
            "name": "long.jsonl",
            "mimeType": "application/jsonl",
            "buffer": export_of(num_messages),
        }
        await page.set_input_files("#memory-file", file)
        shown = f"document.querySelectorAll('#transcript article').length === {num_messages}"
        await page.wait_for_function(shown)
        await page.wait_for_timeout(1_000)
    await page.evaluate(WATCH_LONG_TASKS)
    tokens, busy_s = count_tokens(), await _busy_s(devtools)
    await page.locator("#composer textarea").fill("Tell me a story.")
    await page.locator("#composer textarea").press("Enter")
    await page.wait_for_function(
        f"document.querySelectorAll('#transcript [data-testid=bot]').length > {num_messages // 2}"
        " && document.querySelector('.status-line').innerText.includes('Done')"
    )
    written_s = await _busy_s(devtools) - busy_s
    ms_per_token = 1_000 * written_s / (count_tokens() - tokens)
    busy_s = await _busy_s(devtools)
    frames = sorted(await page.evaluate(SCROLL, FRAMES))
    return LongPage(
        num_messages,
        ms_per_token,
        await page.evaluate("window.longest"),
        1_000 * (await _busy_s(devtools) - busy_s) / FRAMES,
        frames[int(0.95 * len(frames))],
    )


async def _busy_s(devtools: CDPSession) -> float:
    """The main thread's time in tasks since the page began."""
    told = await devtools.send("Performance.getMetrics")
    return float(next(m["value"] for m in told["metrics"] if m["name"] == "TaskDuration"))
