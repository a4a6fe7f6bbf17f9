"""The whole model over the Triton kernels: thin in the interpreter, four layers of 7B's on a GPU.

The truth is the same model over the reference operations, in fp32.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.lib.models import FALCON_MAMBA_7B
from falcon_mamba_app.model.batch import Batch
from falcon_mamba_app.model.config import ModelConfig
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.ops import REFERENCE, Ops
from falcon_mamba_app.ops.triton.ops import TRITON
from tests.support.engine_fixtures import logits_after

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
NUM_SLOTS = 5

gpu = [pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="needs a CUDA GPU")]
THIN = ModelConfig(
    family="falcon_mamba",
    num_layers=2,
    hidden_size=16,
    d_inner=32,
    d_state=16,
    d_conv=4,
    dt_rank=4,
    vocab_size=50,
)
FOUR_LAYERS_OF_7B = replace(FALCON_MAMBA_7B, num_layers=4)


def random_model(config: ModelConfig, ops: Ops, dtype: torch.dtype) -> FalconMamba:
    """The same weights at every call. They remember: A from −1 to −n, Δ from 0.001 to 0.1."""
    torch.manual_seed(0)
    with torch.device(DEVICE):
        model = FalconMamba(config, ops)
        for weight in model.parameters():
            nn.init.ones_(weight)
            if weight.dim() > 1:
                nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
        delta = torch.logspace(-3, -1, config.d_inner)
        states = torch.arange(1.0, config.d_state + 1)
    for layer in model.backbone.layers:
        layer.mixer.dt_proj.bias.data.copy_(delta + torch.log(-torch.expm1(-delta)))
        layer.mixer.A_log.data.copy_(states.log().expand(config.d_inner, -1))
    model.to(dtype).prepare()
    return model


class Reader:
    """A model with states of its own, all zero at first."""

    def __init__(self, config: ModelConfig, ops: Ops, dtype: torch.dtype = torch.float32) -> None:
        self.model = random_model(config, ops, dtype)
        conv_shape, ssm_shape = config.state_shapes.of_slots(NUM_SLOTS)
        self.conv_states = torch.zeros(conv_shape, dtype=dtype, device=DEVICE)
        self.ssm_states = torch.zeros(ssm_shape, device=DEVICE)

    @torch.inference_mode()
    def run(self, batch: Batch) -> Tensor:
        return logits_after(self.model, batch, self.conv_states, self.ssm_states)

    def read(self, token_ids: Tensor, slots: list[int], starts: list[int]) -> Tensor:
        """Logits (t, v) after each token of packed sequences."""
        return self.run(Batch(token_ids, on_device(slots), on_device(starts)))

    def decode(self, token_ids: Tensor, slots: list[int]) -> Tensor:
        return self.run(Batch(token_ids, on_device(slots)))

    def forget(self) -> None:
        self.conv_states.zero_()
        self.ssm_states.zero_()


def on_device(numbers: list[int]) -> Tensor:
    return torch.tensor(numbers, device=DEVICE)


def random_ids(config: ModelConfig, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(config.vocab_size, (count,), generator=generator).to(DEVICE)


def divergence(logits: Tensor, truth: Tensor) -> float:
    """The largest KL divergence of a position's next-token distribution from the true one."""
    logits, truth = (F.log_softmax(x.double(), dim=-1) for x in (logits, truth))
    return F.kl_div(logits, truth, log_target=True, reduction="none").sum(-1).max().item()


@pytest.fixture(
    scope="module",
    params=[(THIN, 20), pytest.param((FOUR_LAYERS_OF_7B, 600), marks=gpu)],
    ids=["thin", "7b"],
)
def size(request) -> tuple[ModelConfig, int]:
    return request.param


@pytest.fixture(scope="module")
def config(size) -> ModelConfig:
    return size[0]


@pytest.fixture(scope="module")
def prompt(size) -> Tensor:
    return random_ids(*size)


@pytest.fixture(scope="module")
def reader_of_size(config) -> Reader:
    return Reader(config, TRITON)


@pytest.fixture
def reader(reader_of_size) -> Reader:
    reader_of_size.forget()
    return reader_of_size


def test_prefill_and_decode_give_the_logits_and_states_of_the_reference(reader, config, prompt):
    truth = Reader(config, REFERENCE)
    starts = [0, 1, 6, len(prompt)]
    ours, theirs = (r.read(prompt, [3, 1, 2], starts) for r in (reader, truth))
    assert divergence(ours, theirs) < 1e-8
    ours, theirs = (r.decode(prompt[:4], [2, 0, 3, 0]) for r in (reader, truth))
    assert divergence(ours[[0, 2]], theirs[[0, 2]]) < 1e-8
    ours, theirs = (r.decode(prompt[:1], [1]) for r in (reader, truth))
    assert divergence(ours, theirs) < 1e-8
    used = [1, 2, 3]
    torch.testing.assert_close(
        reader.ssm_states[:, used], truth.ssm_states[:, used], atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(
        reader.conv_states[:, used], truth.conv_states[:, used], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("num_chunks", [2, 5])
def test_chunked_prefill_equals_whole_prefill_over_the_kernels(reader, prompt, num_chunks):
    whole = reader.read(prompt, [2], [0, len(prompt)])
    bounds = torch.linspace(0, len(prompt), num_chunks + 1).int().tolist()
    parts = [
        reader.read(prompt[start:end], [1], [0, end - start]) for start, end in pairwise(bounds)
    ]
    assert divergence(torch.cat(parts), whole) < 1e-8
    states = reader.ssm_states
    torch.testing.assert_close(states[:, 1], states[:, 2], atol=1e-4, rtol=1e-4)


def test_dropping_the_states_changes_the_logits(reader, prompt):
    whole = reader.read(prompt, [1], [0, len(prompt)])
    half = len(prompt) // 2
    cold = reader.read(prompt[half:], [2], [0, len(prompt) - half])
    assert divergence(cold[-1:], whole[-1:]) > 1e-4


@pytest.mark.parametrize("config", [pytest.param(FOUR_LAYERS_OF_7B, marks=gpu)], ids=["7b"])
def test_in_bf16_the_kernels_are_as_near_the_truth_as_the_reference(config):
    prompt = random_ids(config, 600)
    starts = [0, len(prompt)]
    truth = Reader(config, REFERENCE).read(prompt, [1], starts)
    ours = Reader(config, TRITON, torch.bfloat16).read(prompt, [1], starts)
    theirs = Reader(config, REFERENCE, torch.bfloat16).read(prompt, [1], starts)
    print(f"KL from fp32: {divergence(ours, truth):.2e}, {divergence(theirs, truth):.2e}")
    assert divergence(ours, truth) < 1.5 * divergence(theirs, truth)


@pytest.mark.parametrize("dtype", [pytest.param(torch.bfloat16, marks=gpu)], ids=["bf16"])
def test_a_replayed_decode_graph_equals_eager_decode(dtype):
    config = FOUR_LAYERS_OF_7B
    eager, replayed = (Reader(config, TRITON, dtype) for _ in range(2))
    prompt = random_ids(config, 40)
    for reader in (eager, replayed):
        reader.read(prompt, [3], [0, 40])
    token_ids, slots = prompt[:4].clone(), on_device([0, 0, 0, 0])
    graph, logits = capture(replayed, Batch(token_ids, slots))
    for step, rows in enumerate([[3, 1, 0, 0], [3, 1, 4, 0], [1, 3, 4, 2]]):
        token_ids.copy_(prompt[step : step + 4])
        slots.copy_(on_device(rows))
        graph.replay()
        expected = eager.decode(token_ids, rows)
        real = [row for row, slot in enumerate(rows) if slot]
        assert torch.equal(logits[real], expected[real])
    assert torch.equal(replayed.ssm_states[:, 1:], eager.ssm_states[:, 1:])
    assert torch.equal(replayed.conv_states[:, 1:], eager.conv_states[:, 1:])


def capture(reader: Reader, batch: Batch) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """The decode of what `batch` holds at each replay; its slots must be 0 now."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        reader.run(batch)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = reader.run(batch)
    return graph, logits
