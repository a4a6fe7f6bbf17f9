"""The runner of peers' suites, on a tiny suite of the same shape."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from falcon_mamba_app.api.routes import create_api
from tests.compat.peers import SUITES, run
from tests.support.api_fixtures import bounded, on_loopback
from tests.support.echo_service import EchoService

TESTS = """
import re
import pytest
from tests.utils import RemoteOpenAIServer
from peerlib.engine.config import Config
from peerlib.hub import hub

@pytest.fixture(scope="module")
def files():
    return hub().download(name="adapters")

@pytest.fixture(scope="module")
def server(files):
    with RemoteOpenAIServer("peers/model", ["--flag"]) as server:
        yield server

async def test_chats(server):
    async with server.get_async_client() as client:
        messages = [{"role": "user", "content": "hi"}]
        answer = await client.chat.completions.create(model="peers/model", messages=messages)
        assert answer.choices[0].message.content == "You said: hi"

def test_knows_the_model(server):
    assert server.get_client().models.retrieve("peers/model").id == "peers/model"

@pytest.mark.parametrize("n_prompt", [77])
@pytest.mark.parametrize("re_content", ["Suddenly"])
def test_compares_no_text_of_another_models(n_prompt, re_content):
    assert n_prompt == 5 and re.search(re_content, "You said: hi")

def test_takes_what_the_peer_gives(sample_pattern):
    assert sample_pattern == "[a-z]+"

def test_lora(server):
    assert False, "left out"

@pytest.mark.skipif(not Config.nothing, reason="a stand-in is true")
def test_wants_what_no_server_has(server):
    assert server.url_for("health") == "elsewhere"
"""
SUITE = replace(
    SUITES["vllm"],
    files=("tests/test_own.py",),
    models=("peers/model",),
    stand_ins=("peerlib",),
    fixtures=("tests.given",),
    left_out={"lora": "adapters"},
    other_models=("n_prompt", "re_content"),
)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").write_text("")
    (tmp_path / "tests" / "test_own.py").write_text(TESTS)
    given = "import pytest\n@pytest.fixture\ndef sample_pattern():\n    return '[a-z]+'\n"
    (tmp_path / "tests" / "given.py").write_text(given)
    (tmp_path / "tests" / "conftest.py").write_text("import what_only_the_peer_has")
    return tmp_path


@pytest.fixture
async def url():
    service = EchoService()
    await service.start()
    async with on_loopback(bounded(create_api(service, served_names=("peers/model",)))) as url:
        yield url


async def test_a_suite_runs_against_the_server_without_what_is_left_out(source, url, capfd):
    saved = source / "counts.md"
    status = await asyncio.to_thread(run, SUITE, source, url, save=saved)
    told = capfd.readouterr().out
    assert status == 1 and "left out: lora: adapters" in told
    assert "4 passed" in told and "1 failed" in told and "1 deselected" in told, told
    assert "test_wants_what_no_server_has" in told
    page = saved.read_text()
    assert "| tests/test_own.py | 6 | 4 | 1 | 1 |" in page and "- 1 of lora: adapters" in page
    assert "`test_own.py::test_wants_what_no_server_has`: " in page


async def test_what_cannot_be_run_is_said_in_a_line(source, url, capfd):
    other = replace(SUITE, models=("peers/model", "another"))
    assert await asyncio.to_thread(run, other, source, url) == 2
    assert "--served-model-name peers/model,another" in capfd.readouterr().out
    other = replace(SUITE, files=("tests/test_gone.py",))
    assert await asyncio.to_thread(run, other, source, url) == 2
    assert "has no tests/test_gone.py" in capfd.readouterr().out


@pytest.mark.parametrize("peer", SUITES)
def test_every_suite_says_why_it_leaves_something_out(peer):
    suite = SUITES[peer]
    assert suite.files and suite.models and all(suite.left_out.values())
