"""The page's scripts as they are sent."""

import gzip
import re

import pytest

from falcon_mamba_app.bundled import ASSETS
from falcon_mamba_app.ui.events.page_files import KEPT
from falcon_mamba_app.ui.view.head import head
from falcon_mamba_app.ui.view.laboratory import SCRIPTS
from falcon_mamba_app.ui.view.scripts import FIRST, LATER, script_of
from tests.support.web_fixtures import visiting

ALL = (*FIRST, *LATER, *(f"lab/{name}" for name in SCRIPTS))
COMMENTS = re.compile(r"(?://[^\n]*|/\*(?:(?!\*/).)*\*/|\s)*", re.DOTALL)
# Regular expressions and strings may hold a single one.
BACKTICKS = re.compile(
    r"\\.|(?<=\()/[^/\n]*/|(?<== )/(?:\[[^\n]*\]|[^/\n]*)/|\"`\"|[^`]", re.DOTALL
)


def test_every_script_of_the_page_is_sent_once():
    there = {path.relative_to(ASSETS).as_posix() for path in ASSETS.rglob("*.js")}
    assert sorted(ALL) == sorted(there)


def test_what_the_page_itself_brings_to_a_first_visit_is_small():
    """With Gradio's own files 400 kB at most; benchmarks/browser.py measures both."""
    sent = head() + (ASSETS / "style.css").read_text("utf-8")
    assert len(gzip.compress(sent.encode(), 5)) < 45_000


@pytest.mark.parametrize("name", ALL)
def test_a_script_loses_comments_and_indentation_and_nothing_else(name):
    lines = (ASSETS / name).read_text("utf-8").splitlines()
    # A text over several lines would lose what it begins its lines with.
    assert not [line for line in lines if len(BACKTICKS.sub("", line)) % 2]
    begun = [line.strip() for line in lines]
    kept = [line for line in script_of([name]).splitlines() if line]
    assert not [line for line in kept if line.startswith(("//", "/*", "*/", " "))]
    left_out = "\n".join(line for line in begun if line not in set(kept))
    assert COMMENTS.fullmatch(left_out)


async def test_later_scripts_are_kept_by_browsers_for_as_long_as_they_are_the_same():
    (address,) = re.findall(r'name="later" content="([^"]+)"', head())
    async with visiting() as client:
        answer = await client.get(f"/{address}")
        assert answer.text == script_of(LATER)
        assert answer.headers["cache-control"] == KEPT["Cache-Control"]
        older = await client.get(f"/{address.partition('?')[0]}?v=older")
        assert older.headers["cache-control"] == "no-store"
