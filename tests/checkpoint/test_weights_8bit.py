"""8 bits, quantised while the files are read: the logits stay, and so does the weights' name."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks.loading import HostPeak
from falcon_mamba_app.checkpoint import weights_8bit
from falcon_mamba_app.checkpoint.locate import locate
from falcon_mamba_app.checkpoint.quantization import Quantization
from falcon_mamba_app.checkpoint.weights import load_model
from falcon_mamba_app.engine.states.file import fingerprint
from falcon_mamba_app.errors import CheckpointError
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.model.linear import EmbeddingPacked, Linear, LinearPacked, weights_bytes
from falcon_mamba_app.ops.reference.weight_8bit import dequantize, quantize
from falcon_mamba_app.ops.select import select_ops
from falcon_mamba_app.settings import ModelSettings
from tests.checkpoint.test_weights_4bit import logits_in_chunks
from tests.support.checkpoints import make_tiny_checkpoint

CPU, INT8 = torch.device("cpu"), Quantization("int8")


def load(
    folder: Path | str,
    quantization: Quantization | None = INT8,
    *,
    dtype: torch.dtype = torch.float32,
    kernels: str = "reference",
    **options,
) -> FalconMamba:
    return load_model(
        locate(ModelSettings(model=str(folder)), has_cuda=False),
        device=CPU,
        dtype=dtype,
        make_model=partial(FalconMamba, ops=select_ops(CPU, kernels)),
        quantization=quantization,
        **options,
    )


# On the CPU our kernels round a step's rows to 16 bits.
TOLERANCE = {"reference": 2e-4, "numba": 2e-3}


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("family", ["falcon_mamba", "mamba"])
@pytest.mark.parametrize("kernels", ["reference", "numba"])
def test_the_logits_are_those_of_the_matrices_that_8_bits_hold(tmp_path, family, is_tied, kernels):
    folder = make_tiny_checkpoint(
        tmp_path, family=family, tie_word_embeddings=is_tied, use_bias=True
    )
    model, rounded = load(folder, kernels=kernels), load(folder, None)
    for module in rounded.modules():
        if isinstance(module, Linear):
            module.weight.data = dequantize(quantize(module.weight.data), torch.float32)
    table = rounded.backbone.embeddings.weight
    if not is_tied:
        table.data = dequantize(quantize(table.data), torch.float32)
    else:
        rounded.backbone.embeddings.weight = rounded.lm_head.weight
    theirs = logits_in_chunks(rounded, [40])
    for sizes in ([40], [17, 3, *[1] * 20]):
        ours = logits_in_chunks(model, sizes)
        torch.testing.assert_close(ours, theirs, atol=TOLERANCE[kernels], rtol=0)


def test_every_matrix_is_in_8_bits_and_a_tied_one_once(tmp_path):
    model = load(make_tiny_checkpoint(tmp_path))
    held = [m for m in model.modules() if isinstance(m, LinearPacked | EmbeddingPacked)]
    assert len(held) == 3 * 4 + 2
    assert not any(isinstance(module, Linear) for module in model.modules())
    assert model.lm_head.weight is model.backbone.embeddings.weight
    assert model.backbone.layers[0].mixer.A_log.dtype == torch.float32


def test_the_bytes_are_those_that_were_counted_beforehand():
    model = load("nano", dtype=torch.bfloat16)
    # Decays are in fp32.
    assert weights_bytes(model) == pytest.approx(model.config.bytes_in_8bit(2), rel=0.02)


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_state_saved_in_one_form_belongs_to_the_other_too(tmp_path, is_tied):
    folder = make_tiny_checkpoint(tmp_path, tie_word_embeddings=is_tied)
    assert fingerprint(load(folder)) == fingerprint(load(folder, None))


def test_progress_counts_the_matrices(tmp_path):
    told = []
    load(make_tiny_checkpoint(tmp_path), on_progress=lambda share, what: told.append((share, what)))
    shares = [share for share, what in told if what == "quantising weights"]
    assert len(shares) == 3 * 4 + 1 and shares == sorted(shares) and shares[-1] < 1.0


def test_a_device_too_small_is_told_what_the_weights_take_in_8_bits(monkeypatch):
    def fail(*args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(weights_8bit, "put_in_8bit", fail)
    with pytest.raises(
        CheckpointError, match=r"nano needs 0\.0 GB for its weights in int8 and cpu"
    ):
        load("nano")


def test_the_host_never_holds_the_unquantised_model(tmp_path):
    """The files stay where they are; at the peak there is little beside the quantised weights."""
    sizes = {"hidden_size": 512, "num_hidden_layers": 24, "time_step_rank": 32, "expand": 2}
    folder = make_tiny_checkpoint(tmp_path, dtype=torch.bfloat16, vocab_size=2000, **sizes)
    load(folder, dtype=torch.bfloat16)  # imports what loading imports
    with HostPeak() as host:
        model = load(folder, dtype=torch.bfloat16)
    files = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert weights_bytes(model) < 0.55 * files
    assert host.num_bytes < weights_bytes(model) + 0.3 * files, f"{host.num_bytes / 1e6:.0f} MB"
