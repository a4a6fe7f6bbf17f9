"""The bundled model in 4 bits on the CPU, through the whole way to the API and the page."""

from __future__ import annotations

import json

import httpx
import pytest
from gradio_client import Client

from tests.app.test_app import start, wait_until_ready

pytestmark = pytest.mark.slow  # each start imports torch, transformers and bitsandbytes

QUESTION = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
GREEDY = {"temperature": 0, "max_tokens": 24}


@pytest.fixture(scope="module")
def app():
    """In nf4: fp4 is another table of 16 numbers, and tests of ops and checkpoints have both."""
    options = ["--quantization", "nf4", "--double-quantization", "on", "--dtype", "float32"]
    process, address = start(*options)
    wait_until_ready(address)
    yield address
    process.kill()
    process.wait()
    process.stdout.close()


def test_it_answers_over_the_api_at_once_and_in_a_stream(app):
    url = f"{app}/v1/chat/completions"
    whole = httpx.post(url, json=QUESTION | GREEDY, timeout=60).json()["choices"][0]["message"]
    streamed = httpx.post(url, json=QUESTION | GREEDY | {"stream": True}, timeout=60).text
    chunks = [line.removeprefix("data: ") for line in streamed.splitlines() if "content" in line]
    text = "".join(json.loads(chunk)["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == whole["content"] != ""


def test_the_api_says_what_is_loaded(app):
    (model,) = httpx.get(f"{app}/v1/models").json()["data"]
    details = model["falcon_mamba"]
    assert details["quantization"] == "nf4, double quantisation"
    assert details["weights_bytes"] < 0.35 * 4 * details["num_parameters"]


def test_it_answers_on_the_page(app):
    client = Client(app, verbose=False)
    first = client.predict("My name is Tom.", temperature=0, max_new_tokens=24, api_name="/chat")
    assert first
    client.close()
