"""What the README and the docs point to exists."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from falcon_mamba_app.settings import SECTIONS
from tests.support.settings_page import PAGE, settings_page

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def anchors(page: Path) -> set[str]:
    """The names of the page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", page.read_text(encoding="utf-8")):
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_variable_that_is_named_is_a_setting(page):
    known = {option.name.upper() for section in SECTIONS.values() for option in fields(section)}
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"FALCON_MAMBA_([A-Z_]*[A-Z])", text):
        assert name in known, name


def test_the_page_of_settings_is_what_the_settings_are():
    made = "made by `python -m tests.support.settings_page`"
    assert PAGE.read_text(encoding="utf-8") == settings_page(), f"{PAGE} is to be {made}"


def test_the_memory_of_a_cpu_server_is_what_was_measured():
    """Each figure in the sentence that cites the result, in its order."""
    text = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    sentence = re.search(r"The app with the bundled model takes (.*?)\(\[memory\]", text, re.DOTALL)
    result = json.loads((ROOT / "benchmarks/results/memory-cpu.json").read_text(encoding="utf-8"))
    first, later, turns, _, scored, most = result["memory_gb"].values()
    expected = [f"{gb:.2f}" for gb in (later, first, turns, scored, most)]
    assert sentence and re.findall(r"\b\d\.\d\d\b", sentence[1]) == expected
