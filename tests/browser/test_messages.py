"""What is shown is what was said, and nothing of a message is outside its bubble.

Random and hostile documents are drawn on the real page by the function that draws every message.
"""

from __future__ import annotations

from random import Random

import pytest

from tests.browser.conftest import open_page, send, transcript, wait_for_status

OVERLAY = (
    "- ```\n  code\n  ```\n\n<div style='position:fixed;inset:0;background:#fff;z-index:9999'>"
    "<a href='https://e.example/'>Session expired: sign in</a></div>"
)
VANISHES = "- ```\n  ls\n  ```\n\nThen put a <title> and a <script> into <head>, like List<String>."
# The sentence of each is what somebody must be able to read.
SAID = {
    OVERLAY: "<a href='https://e.example/'>Session expired: sign in</a>",
    VANISHES: "Then put a <title> and a <script> into <head>, like List<String>.",
    "[label]: https://e.example/ 'all of this'": "all of this",
    "<!-- a comment -->": "<!-- a comment -->",
    "&lt;b&gt; &nbsp; &copy;": "&lt;b&gt; &nbsp; &copy;",
    "```mermaid\ngraph TD; A[words]-->B\n```": "graph TD; A[words]-->B",
    "```python title='a b'\nx\n```": "python title='a b'",
    "[here](javascript:alert(1)) [there](/logout)": "[here](javascript:alert(1)) [there](/logout)",
    "| a |\n|---|\n| 1 | beyond |": "beyond",
    "$$\n\\phantom{unseen} \\color{white} x\n$$": "\\phantom{unseen} \\color{white} x",
    "1. one\n7. seven": "seven",
    "[^1]: a note": "[^1]: a note",
    "a <img src=x> ![y](/y.png) <b>z</b>": "a <img src=x> ![y](/y.png) <b>z</b>",
    "~~~\n```\n<b>\n~~~\n<i>": "<i>",
    "> " * 500 + "deep": "deep",
    "\u202eright to left": "right to left",
}

# Draws each document whole and as it grows; what is wrong with any, as sentences.
CHECK_JS = r"""async (documents) => {
  const place = document.createElement("div");
  place.className = "said prose";
  document.querySelector("#transcript .message").append(place);
  const fresh = () => { place.replaceChildren(); return new messages.Growing(place); };
  const ALLOWED = new Set(("P BR H1 H2 H3 H4 H5 H6 UL OL LI BLOCKQUOTE HR FIGURE FIGCAPTION PRE"
    + " CODE BUTTON SPAN DIV TABLE THEAD TBODY TR TH TD EM STRONG DEL A").split(" "));
  const ATTRIBUTES = new Set(
    "class dir value start tabindex role aria-label type href title target rel".split(" "));
  const faults = [];
  for (const text of documents) {
    const fault = (what) => faults.push(`${what}: ${JSON.stringify(text)}`);
    const growing = fresh();
    for (let end = 7; end < text.length; end += 7) growing.draw(text.slice(0, end));
    growing.draw(text);
    const grown = place.innerHTML.replaceAll(" drawn", "");
    fresh().draw(text);
    const whole = place.innerHTML.replaceAll(" drawn", "");
    const isPlain = !place.querySelector(".formula");
    if (isPlain && grown !== whole) fault(`grew into ${grown} and not ${whole}`);
    const seen = place.innerText;
    for (const word of text.match(/w\d+/g) ?? []) if (!seen.includes(word)) fault(`lost ${word}`);
    const bubble = place.getBoundingClientRect();
    if (!getComputedStyle(place).contain.includes("paint")) fault("is not contained");
    for (const element of place.querySelectorAll("*")) {
      if (!ALLOWED.has(element.tagName)) fault(`made a ${element.tagName}`);
      for (const { name } of element.attributes) if (!ATTRIBUTES.has(name)) fault(`has ${name}`);
      if (element.href && !/^(https?|mailto):/.test(element.href)) fault(`links ${element.href}`);
      if (element.closest("pre, .wide")) continue; // they scroll
      const box = element.getBoundingClientRect();
      if (box.left < bubble.left - 1 || box.right > bubble.right + 1) fault("is too wide");
      if (getComputedStyle(element).position === "fixed") fault("is fixed");
    }
  }
  place.remove();
  return faults;
}"""

# How long each document takes to draw, and how many characters and rules of it there are then.
TIME_JS = """(documents) => Object.fromEntries(Object.entries(documents).map(([kind, text]) => {
  const place = document.createElement("div");
  const started = performance.now();
  new messages.Growing(place).draw(text);
  const spent = performance.now() - started;
  return [kind, [spent, place.textContent.length + place.querySelectorAll("hr").length]];
}))"""

MARKS = r"""
* ** *** _ __ ~~ ` `` ``` ~~~ [ ] ( ) ]( < > <b> </b> <!-- --> & &amp; ! | \ # ## > >> - + 1. 3)
--- === $$ \( \) \[ \] : :-: |---| ![ <script> <style> <iframe src= onclick= {{ }} @ = % [^1]
https://e.example/a http://e.example/b.png mailto:a@e.example javascript:x data:text/html,x
"""
PIECES = [
    *MARKS.split(),
    "[w1](https://e.example/ 'w2')",
    "![w3](https://e.example/x.png)",
    "[w4]: https://e.example/ 'w5'",
    "| w6 | w7 |\n|----|----|\n| w8 | w9 | w10 |",
    "```html w11\n<img src=https://e.example/y.png>\n```",
    "<div style='position:fixed;inset:0'>w12</div>",
    "\\(w13 + \\frac{1}{2}\\)",
    "\n$$\nw14^2\n$$\n",
    "مرحبا",
    "\u202e",
    "\u2060",
    "é́́́",
]
SPACES = ["", "", " ", " ", " ", "\n", "\n", "\n\n", "\n  ", "\n    ", "\t", "\r\n"]


def documents(num: int, seed: int) -> list[str]:
    rng = Random(seed)

    def piece() -> str:
        return f"w{rng.randrange(100, 999)}" if rng.random() < 0.4 else rng.choice(PIECES)

    return [
        "".join(piece() + rng.choice(SPACES) for _ in range(rng.randrange(1, 25)))
        for _ in range(num)
    ]


@pytest.fixture
async def asked(page):
    """What the page asks of any server."""
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    return urls


async def test_what_is_shown_is_what_was_said(page, asked, url):
    for said, sentence in SAID.items():
        await send(page, f"SAY {said}")
        await wait_for_status(page, "Done")
        sent, reply = (await transcript(page))[-2:]
        assert sent == f"SAY {said}"
        assert sentence in reply
    assert await page.locator("#transcript .said :is(script, style, img, form, title)").count() == 0
    links = page.locator("#transcript .said a")  # an address is one, and says where it leads
    assert set(await links.all_text_contents()) == {"https://e.example/"}
    assert not [u for u in asked if not u.startswith((url, "data:", "blob:"))]


async def test_two_thousand_random_documents_stay_in_their_bubbles_whole(page, asked, url):
    await send(page, "hello")
    await wait_for_status(page, "Done")
    assert await page.evaluate(CHECK_JS, documents(2_000, seed=1)) == []
    assert not [u for u in asked if not u.startswith((url, "data:", "blob:"))]


HOSTILE = {
    "brackets": "[" * 100_000,
    "links that do not end": "[a](" * 25_000,
    "links that almost end": "[a](https://e.example" * 5_000,
    "emphasis": "*_" * 50_000,
    "open emphasis": "*a _b " * 16_000,
    "closed emphasis": "a* b_ " * 16_000,
    "one run": "*" * 100_000,
    "backticks": "".join("`" * (i % 300 + 1) + " " for i in range(700)),
    "quotes": "> " * 50_000 + "a",
    "quotes line by line": "".join(">" * i + "a\n" for i in range(400)),
    "lists": "- " * 50_000 + "a",
    "indented lists": "".join(" " * i + "- a\n" for i in range(400)),
    "fences": "```\n~~~\n" * 12_000,
    "tables": "|a\n|-\n" * 16_000,
    "cells": "|" * 50_000 + "\n" + "|-" * 50_000,
    "formulas that do not end": "\\(a " * 25_000 + "\n$$\n" * 5_000,
    "formulas": "\\(a\\) " * 16_000,
    "angles": "<https://" * 11_000,
    "addresses": "https://e.example/" * 5_500,
    "addresses in brackets": "[https://e.example" + ")" * 1_000 + " " * 2,
    "spaces": " " * 100_000 + "a",
    "lines": "a\n" * 50_000,
    "backslashes": "\\" * 100_000,
    "headings": "# " + "#" * 100_000,
}


async def test_hostile_documents_are_drawn_in_bounded_time(page):
    for kind, (spent_ms, num_shown) in (await page.evaluate(TIME_JS, HOSTILE)).items():
        assert spent_ms < 4_000, kind  # all take milliseconds; what is quadratic takes minutes
        assert num_shown, kind


async def test_a_code_block_is_copied_as_it_was_written(page):
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await send(page, "SAY ```make\nall:\n\techo '<b>' &amp;\n```")
    await wait_for_status(page, "Done")
    await page.locator(".copy-code").click()
    assert await page.evaluate("navigator.clipboard.readText()") == "all:\n\techo '<b>' &amp;"


async def test_formulas_are_drawn_and_keep_their_source(page):
    await send(page, "SAY so \\(x^2\\) and\n\n$$\n\\frac{a}{b}\n$$\n\nbut $5 and $6")
    await wait_for_status(page, "Done")
    await page.wait_for_selector("#transcript .formula .katex-display")
    assert await page.locator("#transcript .katex").count() == 2
    assert "but $5 and $6" in (await transcript(page))[1]


async def test_a_link_opens_elsewhere_and_tells_where_it_leads(page):
    await send(page, "SAY see [this](https://e.example/a 'a title')")
    await wait_for_status(page, "Done")
    link = page.locator("#transcript .said a")
    assert await link.get_attribute("href") == "https://e.example/a"
    assert await link.get_attribute("target") == "_blank"
    assert "noopener" in await link.get_attribute("rel")
    assert "a title" in (await transcript(page))[1]


async def test_a_reload_shows_the_same(page, url):
    await send(page, f"SAY {OVERLAY}")
    await wait_for_status(page, "Done")
    before = await transcript(page)
    await open_page(page, url)
    await page.wait_for_selector("#transcript .said")
    assert await transcript(page) == before
