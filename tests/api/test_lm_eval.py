"""lm-evaluation-harness scores the bundled model through the API as transformers scores it.

Its `local-completions` model asks for `echo` with `logprobs` and one new token, which it cuts off.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.openai_completions import LocalCompletionsAPI
from lm_eval.tasks import TaskManager

from falcon_mamba_app.api.routes import create_api
from tests.support.api_fixtures import on_loopback
from tests.support.echo_service import EchoService
from tests.support.services import make_local_service

pytestmark = [
    pytest.mark.slow,
    # The harness and what it stands on warn of their own affairs.
    pytest.mark.filterwarnings("ignore"),
]

MODEL = Path(__file__).parents[2] / "assets" / "nano"
TASK = Path(__file__).parent / "lm_eval_task"
TOLERANCE = 2e-3  # natural logarithms, summed over an ending
PAIRS = [
    ("Once upon a time, there was a little", " girl named Lily."),
    ("Once upon a time, there was a little", " girl"),
    ("The end.", "\n"),
    ("Hello", "<|im_end|>"),
    ("Café zoë", " — 日本語 🙂"),
]


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))


@pytest.fixture
async def base_url():
    """The API over the bundled model in single precision."""
    service = make_local_service()
    await service.start()
    async with on_loopback(create_api(service)) as url:
        yield url
    await service.close()


def through_api(base_url: str, model: str = "nano", **options: Any) -> Any:
    """The harness's model behind the API; it counts the context's tokens by itself."""
    return LocalCompletionsAPI(
        base_url=f"{base_url}/v1/completions",
        model=model,
        tokenizer=str(MODEL),
        tokenizer_backend="huggingface",
        max_retries=1,
        **options,
    )


def with_transformers() -> Any:
    """The harness's own model: one forward pass for each request, without a cache."""
    return HFLM(str(MODEL), device="cpu", dtype=torch.float32, batch_size=1)


def log_likelihoods(model: Any) -> list[tuple[float, bool]]:
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(PAIRS)]
    return model.loglikelihood(requests)


def evaluate(model: Any) -> tuple[float, list[list[float]]]:
    """Accuracy in the task, and the log-likelihood of each ending of each question."""
    tasks = TaskManager(include_path=str(TASK), include_defaults=False)
    answer = simple_evaluate(model, tasks=["endings"], task_manager=tasks, bootstrap_iters=0)
    samples = sorted(answer["samples"]["endings"], key=lambda sample: sample["doc_id"])
    scores = [[score for score, _ in sample["filtered_resps"]] for sample in samples]
    return answer["results"]["endings"]["acc,none"], scores


@pytest.mark.parametrize("batch_size", [1, 4])
async def test_log_likelihoods_equal_those_of_transformers(base_url, batch_size):
    model = through_api(base_url, batch_size=batch_size)
    scores = await asyncio.to_thread(log_likelihoods, model)
    expected = await asyncio.to_thread(log_likelihoods, with_transformers())
    assert [score for score, _ in scores] == pytest.approx([s for s, _ in expected], abs=TOLERANCE)
    assert [is_greedy for _, is_greedy in scores] == [is_greedy for _, is_greedy in expected]


async def test_a_task_has_the_same_score_through_the_api(base_url, monkeypatch):
    monkeypatch.chdir(TASK)
    accuracy, scores = await asyncio.to_thread(evaluate, through_api(base_url, num_concurrent=3))
    expected_accuracy, expected = await asyncio.to_thread(evaluate, with_transformers())
    assert accuracy == expected_accuracy
    assert scores == [pytest.approx(row, abs=TOLERANCE) for row in expected]


async def test_the_harness_reads_what_a_service_without_a_model_answers():
    service = EchoService()
    await service.start()
    async with on_loopback(create_api(service)) as url:
        scores = await asyncio.to_thread(log_likelihoods, through_api(url, "echo"))
    assert len(scores) == len(PAIRS)
    assert all(score < 0 for score, _ in scores)
