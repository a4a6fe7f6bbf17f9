"""What the README and the docs point to exists."""

from __future__ import annotations

import json
import os
import re
from dataclasses import fields
from pathlib import Path

import pytest

from falcon_mamba_app.commands.people import LIMITS
from falcon_mamba_app.settings import SECTIONS
from falcon_mamba_app.settings.flags import flag
from tests.support.settings_page import PAGE, settings_page

ROOT = Path(__file__).parents[2]
FOLDERS = ("assets", "benchmarks", "deploy", "docs", "examples", "training")
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md")),
]
# Files of other projects, of a data folder or of a Space's owner, and addresses of the page.
ELSEWHERE = {
    *("damaged/", "/lab/", "/memory/", "eval_synth.jsonl", "facts.json", "wn.json"),
    "ch07/01_main-chapter-code/instruction-data.json",
}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The names of the page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_within_the_repository_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", page.read_text(encoding="utf-8")):
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.fixture(scope="module")
def known_paths() -> set[str]:
    """Files and folders of the repository, and each shorter end of their paths."""
    found = set()
    for folder, names, files in os.walk(ROOT):
        names[:] = [name for name in names if not name.startswith((".", "__pycache__"))]
        below = Path(folder).relative_to(ROOT).parts
        for name in (*files, *(f"{name}/" for name in names)):
            parts = (*below, name)
            found |= {"/".join(parts[start:]) for start in range(len(parts))}
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_that_is_named_is_there(page, known_paths):
    suffixes = "py|md|json|jsonl|js|mjs|css|html|svg|yaml|yml|cfg|conf|toml|txt"
    named = re.findall(rf"`([\w./-]+(?:\.(?:{suffixes})|/))`", page.read_text(encoding="utf-8"))
    assert set(named) - known_paths - ELSEWHERE == set()


def source_of(module: str) -> str | None:
    """The text of one of our modules or scripts, None where it is somebody else's."""
    if module.split(".")[0] not in {path.name for path in ROOT.iterdir() if path.is_dir()}:
        return None
    path = ROOT.joinpath(*module.split("."))
    path = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__main__.py"
    return path.read_text(encoding="utf-8")


def options_of_the_product() -> set[str]:
    """Those of the server, and of every command of `falcon-mamba`."""
    settings = {flag(option.name) for section in SECTIONS.values() for option in fields(section)}
    commands = (ROOT / "falcon_mamba_app" / "commands").rglob("*.py")
    texts = (path.read_text(encoding="utf-8") for path in commands)
    named = {name for text in texts for name in re.findall(r'"(--[\w-]+)"', text)}
    return settings | named | {flag(name) for name in LIMITS} | {"--help", "--version"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_of_ours_names_a_script_or_a_target_and_its_options(page):
    """In lines of code and in code within sentences; a line that goes on is one."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```(?:sh|ini|yaml)?\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    without_blocks = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    inline = (code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", without_blocks))
    lines = [line.partition("  #")[0] for block in blocks for line in block.splitlines()]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for code in (*lines, *inline):
        for command in re.split(r"&&|\|\s|;\s", code):
            options = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", command))
            if target := re.match(r"\s*make ([a-z]+)", command):
                assert re.search(rf"^{target[1]}:", makefile, flags=re.MULTILINE), command
            if script := re.search(r"python[\d.]* -m ([\w.]+)", command):
                source = source_of(script[1])
                assert source is None or "__main__" in source, command
                if source is not None and script[1] != "falcon_mamba_app":
                    missing = {one for one in options if f'"{one}"' not in source}
                    missing -= {"--nproc-per-node"}  # torchrun's
                    assert missing == set(), command
            elif re.match(r"\s*(\w+=\S*\s+)*(falcon-mamba|python app\.py)\s", command):
                assert options - options_of_the_product() == set(), command


@pytest.mark.parametrize("page", PAGES, ids=name_of)
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
