"""4-bit checkpoints, stored or quantised while they are read: transformers' logits on the same
quantised weights, read at once or carried, and a host that holds little at a time.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from falcon_mamba_app.checkpoint import host_memory, weights
from falcon_mamba_app.checkpoint.locate import Checkpoint, locate
from falcon_mamba_app.checkpoint.quantization import Quantization
from falcon_mamba_app.checkpoint.weights import load_model
from falcon_mamba_app.errors import CheckpointError
from falcon_mamba_app.model.batch import Batch
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.model.linear import Linear4bit, weights_bytes
from falcon_mamba_app.ops.select import select_ops
from falcon_mamba_app.settings import ModelSettings
from tests.support.checkpoints import make_tiny_checkpoint
from tests.support.engine_fixtures import logits_after
from tests.support.quantized import (
    FORMS,
    config_of,
    make_quantized_checkpoint,
    of_transformers,
    save_quantized,
)

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
PROMPT = [(7 * i) % 440 for i in range(40)]


def located(folder: Path | str) -> Checkpoint:
    return locate(ModelSettings(model=str(folder)), has_cuda=False)


def load(
    folder: Path | str,
    quantization: Quantization | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    kernels: str = "reference",
    device: torch.device = CPU,
) -> FalconMamba:
    checkpoint = located(folder)
    return load_model(
        checkpoint,
        device=device,
        dtype=dtype,
        make_model=partial(FalconMamba, ops=select_ops(device, kernels)),
        quantization=quantization or checkpoint.quantization,
    )


def logits_in_chunks(model: FalconMamba, sizes: list[int]) -> torch.Tensor:
    """The prompt's logits (t, v), its state carried from chunk to chunk; a 1 is a decode step."""
    c, device = model.config, model.device
    conv_states = torch.zeros(c.num_layers, 2, c.d_conv - 1, c.d_inner, dtype=model.dtype)
    ssm_states = torch.zeros(c.num_layers, 2, c.d_state, c.d_inner)
    conv_states, ssm_states = conv_states.to(device), ssm_states.to(device)
    parts = []
    for chunk in torch.tensor(PROMPT, device=device).split(sizes):
        starts = None if len(chunk) == 1 else torch.tensor([0, len(chunk)], device=device)
        batch = Batch(chunk, torch.tensor([1], device=device), starts)
        parts.append(logits_after(model, batch, conv_states, ssm_states))
    return torch.cat(parts).cpu()


def their_logits(folder: Path, **options) -> torch.Tensor:
    theirs = of_transformers(folder, **options)
    with torch.inference_mode():
        prompt = torch.tensor([PROMPT], device=theirs.device)
        return theirs(prompt, use_cache=False).logits[0].cpu()


@pytest.mark.parametrize("family", ["falcon_mamba", "mamba"])
@pytest.mark.parametrize(("kind", "is_double"), FORMS)
def test_a_folder_that_transformers_wrote_gives_its_logits(tmp_path, family, kind, is_double):
    folder = make_quantized_checkpoint(tmp_path, kind, is_double=is_double, family=family)
    model, theirs = load(folder), their_logits(folder)
    for sizes in ([40], [17, 3, *[1] * 20]):
        ours = logits_in_chunks(model, sizes)
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)


@pytest.mark.parametrize(("kind", "is_double"), FORMS)
def test_quantising_while_reading_gives_what_transformers_quantises(tmp_path, kind, is_double):
    folder = make_tiny_checkpoint(tmp_path, tie_word_embeddings=False, use_bias=True)
    config = config_of(kind, is_double=is_double)
    theirs = their_logits(folder, quantization_config=config)
    ours = logits_in_chunks(load(folder, Quantization(kind, is_double)), [17, 3, *[1] * 20])
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)


@pytest.mark.parametrize(("kernels", "atol"), [("reference", 1e-3), ("numba", 1e-2)])
def test_the_bundled_model_in_4_bits_gives_the_logits_of_transformers(kernels, atol):
    """The CPU's step rounds its rows to 16 bits and the 16 codes to 15."""
    folder = ROOT / "assets" / "nano"
    theirs = their_logits(folder, quantization_config=config_of("nf4", is_double=True))
    model = load("nano", Quantization("nf4", is_double=True), kernels=kernels)
    ours = logits_in_chunks(model, [20, 5, *[1] * 15])
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours.float() - theirs).abs().mean() / theirs.abs().mean()).item()


ON_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    """Two layers of 7B."""
    sizes = {"hidden_size": 4096, "num_hidden_layers": 2, "time_step_rank": 256}
    folder = tmp_path_factory.mktemp("wide")
    return make_tiny_checkpoint(folder, dtype=torch.bfloat16, state_size=16, **sizes)


class TestOnAGpu:
    """Our kernels beside transformers over bitsandbytes' own, which computes in fp32 here."""

    pytestmark = ON_GPU
    device = torch.device("cuda")

    def agrees(self, folder: Path, theirs: torch.Tensor, quantization: Quantization | None) -> None:
        for dtype, allowed in ((torch.float32, 1e-3), (torch.bfloat16, 5e-2)):
            model = load(folder, quantization, dtype=dtype, kernels="triton", device=self.device)
            for sizes in ([40], [20, 5, *[1] * 15]):
                assert relative_error(logits_in_chunks(model, sizes), theirs) < allowed

    @pytest.mark.parametrize(("kind", "is_double"), FORMS)
    def test_the_bundled_model_gives_the_logits_of_transformers(self, kind, is_double):
        folder, config = ROOT / "assets" / "nano", config_of(kind, is_double=is_double)
        theirs = their_logits(folder, device=self.device, quantization_config=config)
        self.agrees(folder, theirs, Quantization(kind, is_double))

    @pytest.mark.parametrize(("kind", "is_double"), FORMS)
    def test_layers_of_7b_give_the_logits_of_transformers(self, wide, kind, is_double):
        config = config_of(kind, is_double=is_double)
        theirs = their_logits(wide, device=self.device, quantization_config=config)
        self.agrees(wide, theirs, Quantization(kind, is_double))

    @pytest.mark.parametrize(("kind", "is_double"), FORMS)
    def test_stored_layers_of_7b_give_the_logits_of_transformers(
        self, wide, tmp_path, kind, is_double
    ):
        """As in tiiuae/falcon-mamba-7b-4bit: products in fp32, x_proj and dt_proj too."""
        config = config_of(kind, is_double=is_double)
        folder = save_quantized(wide, tmp_path / "in_4bit", config, device=self.device)
        self.agrees(folder, their_logits(folder, device=self.device), None)


def test_4_bits_are_not_the_unquantised_model():
    """Or the tests above would hold of a model that ignores the setting."""
    full = logits_in_chunks(load("nano"), [40])
    packed = logits_in_chunks(load("nano", Quantization("nf4")), [40])
    assert (full - packed).abs().max() > 0.1


def test_every_product_of_the_layers_is_in_4_bits_and_no_other(tmp_path):
    """As in tiiuae/falcon-mamba-7b-4bit: fp4, products in fp32, x_proj and dt_proj too."""
    model = load(make_quantized_checkpoint(tmp_path, "fp4", is_double=False))
    packed = {name for name, m in model.named_modules() if isinstance(m, Linear4bit)}
    names = ("in_proj", "x_proj", "dt_proj", "out_proj")
    assert packed == {f"backbone.layers.{i}.mixer.{name}" for i in range(3) for name in names}


def test_products_are_taken_in_the_dtype_that_the_checkpoint_says(tmp_path):
    folder = make_quantized_checkpoint(tmp_path, "fp4", is_double=False)
    model = load(folder, dtype=torch.bfloat16)
    weight = model.backbone.layers[0].mixer.in_proj.weight
    assert weight.compute_dtype == torch.float32 and model.dtype == torch.bfloat16
    exact, rounded = logits_in_chunks(load(folder), [40]), logits_in_chunks(model, [40])
    assert (exact - rounded).abs().max() < 0.05 * exact.abs().max()


def test_decays_stay_in_fp32_beside_4_bits(tmp_path):
    folder = make_quantized_checkpoint(tmp_path, "nf4", is_double=False)
    full = load(tmp_path / "source")
    for layer, exact in zip(
        load(folder, dtype=torch.bfloat16).backbone.layers, full.backbone.layers, strict=True
    ):
        assert torch.equal(layer.mixer.A_log, exact.mixer.A_log)


@pytest.mark.parametrize("is_double", [False, True])
def test_the_bytes_are_those_that_were_counted_beforehand(is_double):
    model = load("nano", Quantization("nf4", is_double), dtype=torch.bfloat16)
    counted = model.config.bytes_in_4bit(2, is_double=is_double)
    # Decays are in fp32, and every matrix has tables of its own.
    assert weights_bytes(model) == pytest.approx(counted, rel=0.06)
    assert weights_bytes(model) < 0.45 * weights_bytes(load("nano", dtype=torch.bfloat16))


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_4bit_checkpoint_that_lost_its_scales_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = make_quantized_checkpoint(tmp_path, "nf4", is_double=False)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["backbone.layers.1.mixer.in_proj.weight.absmax"]
    save_file(tensors, path, metadata={"format": "pt"})
    assert "cannot be read" in refusal(folder) or "lacks" in refusal(folder)


def test_weights_that_are_not_what_the_config_says_are_refused(tmp_path):
    """A config of a 4-bit checkpoint before weights that are not quantised."""
    folder = make_quantized_checkpoint(tmp_path, "nf4", is_double=False)
    config = json.loads((folder / "config.json").read_text())
    mixed = Path(shutil.copytree(tmp_path / "source", tmp_path / "mixed"))
    (mixed / "config.json").write_text(json.dumps(config))
    assert "is not in 4 bits, as config.json says" in refusal(mixed)


def test_a_device_too_small_is_told_what_the_weights_take_in_4_bits(monkeypatch):
    def too_large(*args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    class TooLarge:
        from_pretrained = staticmethod(too_large)

    monkeypatch.setattr(weights, "_class_that_keeps_fp32", lambda checkpoint: TooLarge)
    with pytest.raises(CheckpointError, match=r"nano needs 0\.0 GB for its weights in nf4 and cpu"):
        load("nano", Quantization("nf4"))
    monkeypatch.setattr(weights, "read_plain", too_large)
    with pytest.raises(CheckpointError, match=r"nano needs 0\.1 GB for its weights in float32"):
        load("nano")


@pytest.mark.parametrize("trim", [None, lambda num_bytes: 1])
def test_progress_is_told_whether_or_not_the_c_library_returns_memory(monkeypatch, trim):
    told = []
    monkeypatch.setattr(host_memory, "_malloc_trim", lambda: trim)
    host_memory.returning_freed(lambda share, what: told.append((share, what)))(0.5, "reading")
    assert told == [(0.5, "reading")]


@pytest.mark.slow
def test_the_host_never_holds_the_unquantised_model(tmp_path):
    """At the peak there is less than what is made of the files, one of them, and 100 MB."""
    sizes = {"hidden_size": 1024, "num_hidden_layers": 32, "time_step_rank": 64, "expand": 2}
    folder = make_tiny_checkpoint(
        tmp_path, dtype=torch.bfloat16, max_shard_size="90MB", vocab_size=2000, **sizes
    )
    command = [sys.executable, "-m", "benchmarks.loading", str(folder), "--kernels", "reference"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(run.stdout.splitlines()[-1])
    limit = found["held_bytes"] + found["largest_file_bytes"] + 100_000_000
    assert limit < 0.8 * found["files_bytes"]
    peak = found["host_peak_bytes"]
    assert peak < limit, f"{peak / 1e6:.0f} MB at the peak, {limit / 1e6:.0f} allowed"
