"""A model in one GGUF file: the same numbers, ids and replies, and a sentence for every fault."""

from __future__ import annotations

import json
import struct
from functools import partial
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from falcon_mamba_app.checkpoint.gguf import tensors, write
from falcon_mamba_app.checkpoint.gguf.header import mapped, read_header
from falcon_mamba_app.checkpoint.gguf.tensors import logarithm, our_name, unpacked
from falcon_mamba_app.checkpoint.gguf.tokenizer import SPLITTING, WHOLE_KEY, _made
from falcon_mamba_app.checkpoint.locate import Checkpoint, locate
from falcon_mamba_app.checkpoint.placement import Machine, Room, decide
from falcon_mamba_app.checkpoint.weights import load_model, load_tokenizer
from falcon_mamba_app.errors import CheckpointError, SettingsError
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.ops.reference.weight_ggml import WeightGgml
from falcon_mamba_app.ops.select import select_ops
from falcon_mamba_app.settings import ModelSettings
from tests.support.checkpoints import CORPUS, make_tiny_checkpoint
from tests.support.engine_fixtures import States, decode, logits_from_nothing
from tests.support.fake_hub import HUB_ID, FakeHub

CPU = torch.device("cpu")
IDS = [5, 80, 130, 7, 200, 99, 31, 6, 250, 12]
HARD_TEXTS = (
    *CORPUS,
    "   leading, trailing   \n\n\ttabs 1234567 12,345.67 'tis we'll I'D",
    "don't!!! ... (a+b)=$5^~|`<> 你好 ١٢٣ ½ ﷺ",
    "\r\n\r\n  x\u3000y\u200b",
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def located(path: Path | str) -> Checkpoint:
    return locate(ModelSettings(model=str(path)), has_cuda=False)


def load(checkpoint: Checkpoint) -> FalconMamba:
    make_model = partial(FalconMamba, ops=select_ops(CPU, "reference"))
    return load_model(checkpoint, device=CPU, dtype=torch.float32, make_model=make_model)


def written(tmp_path: Path, kind: str = "F32", family: str = "falcon_mamba", **config) -> Path:
    folder = make_tiny_checkpoint(tmp_path / "original", family, **config)
    write.write_gguf(folder, tmp_path / f"tiny-{kind}.gguf", kind)
    return tmp_path / f"tiny-{kind}.gguf"


def refusal(path: Path | str) -> str:
    with pytest.raises(CheckpointError) as told:
        located(path)
    assert "\n" not in str(told.value)
    return str(told.value)


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("falcon_mamba", {}),
        ("falcon_mamba", {"tie_word_embeddings": False, "use_bias": True}),
        ("falcon_mamba", {"mixer_rms_eps": 1e-2}),
        ("mamba", {}),
        ("mamba", {"tie_word_embeddings": False, "use_conv_bias": False}),
    ],
)
def test_a_file_in_fp32_is_the_original_bit_for_bit(tmp_path, family, config):
    path = written(tmp_path, "F32", family, **config)
    original, ours = load(located(tmp_path / "original")), load(located(path))
    theirs = original.state_dict()
    for name, tensor in ours.state_dict().items():
        if name.endswith("A_log"):  # A = -exp(A_log) is what the file holds, and what is used
            assert torch.equal(tensor.exp(), theirs[name].exp()), name
        else:
            assert torch.equal(tensor, theirs[name]), name
    assert torch.equal(logits_from_nothing(ours, IDS), logits_from_nothing(original, IDS))
    assert ours.config == original.config


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0"])
def test_a_packed_file_is_the_original_with_its_matrices_packed_and_unpacked(tmp_path, kind):
    path = written(tmp_path, kind)
    original, ours = load(located(tmp_path / "original")), load(located(path))
    packed = GGMLQuantizationType[kind]
    changed = 0
    for name, tensor in original.state_dict().items():
        if name.endswith(write.MATRICES) and not tensor.shape[-1] % GGML_QUANT_SIZES[packed][0]:
            numbers = gguf.quants.quantize(tensor.numpy(), packed)
            expected = gguf.quants.dequantize(numbers, packed).astype(np.float32)
            assert torch.equal(ours.state_dict()[name], torch.from_numpy(expected)), name
            changed += not torch.equal(ours.state_dict()[name], tensor)
    assert changed
    difference = (logits_from_nothing(ours, IDS) - logits_from_nothing(original, IDS)).abs().max()
    assert difference > 0


@pytest.mark.parametrize("kind", ["Q4_K", "Q5_K", "Q6_K"])
def test_types_that_only_llama_cpp_writes_are_unpacked_in_slices(tmp_path, monkeypatch, kind):
    """Random blocks with finite scales; unpacked at once by the package, in slices by us."""
    packed = GGMLQuantizationType[kind]
    block, block_bytes = GGML_QUANT_SIZES[packed]
    rows, columns = 6, 2 * block
    raw = np.random.default_rng(0).integers(0, 256, (rows, 2 * block_bytes), dtype=np.uint8)
    scales = np.frombuffer(np.float16(0.02).tobytes() * 2, np.uint8)
    for start in range(0, raw.shape[1], block_bytes):
        at = start if kind != "Q6_K" else start + block_bytes - 2
        raw[:, at : at + min(4, start + block_bytes - at)] = scales[: start + block_bytes - at]
    writer = gguf.GGUFWriter(tmp_path / "one.gguf", "mamba")
    writer.add_tensor("token_embd.weight", raw, raw_dtype=packed)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    place = read_header(tmp_path / "one.gguf").tensors["token_embd.weight"]
    assert place.shape == (rows, columns) and place.kind == packed
    monkeypatch.setattr(tensors, "SLICE_NUMBERS", 2 * columns + 1)
    with mapped(tmp_path / "one.gguf") as data:
        ours = unpacked(data, place, torch.float32)
    whole = gguf.quants.dequantize(raw, packed)
    assert np.isfinite(whole).all()
    assert torch.equal(ours, torch.from_numpy(whole))


def test_a_logarithm_gives_the_same_decay_again():
    A_log = torch.linspace(-6.0, 5.0, 20_000)
    A = -A_log.exp()
    assert torch.equal(-logarithm(A).exp(), A)


def test_decays_that_grow_are_refused():
    with pytest.raises(CheckpointError, match="not negative"):
        logarithm(torch.tensor([-1.0, 0.5]))


@pytest.mark.parametrize("with_whole_tokenizer", [True, False])
def test_the_tokenizer_and_the_template_are_the_originals(
    tmp_path, monkeypatch, with_whole_tokenizer
):
    if not with_whole_tokenizer:
        monkeypatch.setattr("falcon_mamba_app.checkpoint.gguf.tokenizer.WHOLE_KEY", "another.key")
        monkeypatch.setattr(write.tokenizer, "WHOLE_KEY", "another.key")
        path = written(tmp_path)
        monkeypatch.setattr("falcon_mamba_app.checkpoint.gguf.tokenizer.WHOLE_KEY", WHOLE_KEY)
        assert WHOLE_KEY not in read_header(path).metadata
    else:
        path = written(tmp_path)
    original = AutoTokenizer.from_pretrained(tmp_path / "original")
    ours = load_tokenizer(located(path))
    for text in HARD_TEXTS:
        assert ours(text)["input_ids"] == original(text)["input_ids"], text
    chat = [{"role": "user", "content": "Hi"}]
    for tokenize in (False, True):
        assert ours.apply_chat_template(chat, tokenize=tokenize) == original.apply_chat_template(
            chat, tokenize=tokenize
        )
    assert (ours.eos_token_id, ours.pad_token_id) == (
        original.eos_token_id,
        original.pad_token_id,
    )


def test_a_splitting_that_is_not_known_takes_the_tokenizer_beside_the_file(tmp_path):
    folder = make_tiny_checkpoint(tmp_path / "original")
    path = tmp_path / "odd.gguf"
    write.write_gguf(folder, path, "F32", splitting="gpt-2")
    odd = path.read_bytes().replace(b"gpt-2", b"gpt-9").replace(WHOLE_KEY.encode(), b"x" * 26)
    path.write_bytes(odd)
    assert "put the model's tokenizer.json beside the file" in refusal(path)
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    assert len(load_tokenizer(located(path))) == len(AutoTokenizer.from_pretrained(folder))


def test_every_known_splitting_makes_a_tokenizer():
    for splitting in SPLITTING:
        made = _made(["a", "b", "ab", "<s>"], ["a b"], [1, 1, 1, 3], splitting)
        assert Tokenizer.from_str(json.dumps(made)).encode("ab<s>").ids == [2, 3]


def test_falcon_splits_punctuation_and_digits_as_its_own_tokenizer_does():
    tokenizer = Tokenizer.from_str(json.dumps(_made(["a"], [], [1], "falcon")))
    pieces = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str("it's 12345!!")]
    assert pieces == ["it", "'", "s", "Ġ", "123", "45", "!!"]


def test_the_same_file_uses_the_same_folder_and_another_file_another(tmp_path):
    path = written(tmp_path)
    first = located(path)
    assert located(path).folder == first.folder
    assert first.id == "tiny-F32" and first.weight_files == ("tiny-F32.gguf",)
    other = tmp_path / "other"
    other.mkdir()
    assert located(written(other, family="mamba")).folder != first.folder


def test_a_folder_with_one_file_is_that_file_and_one_with_two_is_asked_about(tmp_path):
    path = written(tmp_path)
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "a.gguf").write_bytes(path.read_bytes())
    assert located(folder).gguf == folder / "a.gguf"
    (folder / "b.gguf").write_bytes(path.read_bytes())
    assert "holds 2 models: give `model` one of a.gguf, b.gguf" in refusal(folder)


def test_a_cache_that_cannot_be_written_is_replaced_by_temporary_files(tmp_path, monkeypatch):
    path = written(tmp_path)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    assert located(path).folder.is_relative_to(tmp_path / "temporary")


def as_stored(path: Path, kernels: str = "numba", dtype: str = "float32") -> FalconMamba:
    """The file as a start without a GPU loads it."""
    asked = ModelSettings(model=str(path), dtype=dtype, kernels=kernels)
    placement = decide(asked, Room(max_running=1, max_prefill_tokens=8), Machine())
    model = load_model(
        placement.checkpoint,
        device=placement.device,
        dtype=placement.dtype,
        make_model=partial(FalconMamba, ops=placement.ops),
        quantization=placement.quantization,
    )
    assert isinstance(model, FalconMamba)
    return model


def held(model: FalconMamba) -> set[str]:
    """The kinds of the matrices that are in blocks."""
    weights = (getattr(module, "weight", None) for module in model.modules())
    return {weight.kind for weight in weights if isinstance(weight, WeightGgml)}


# The steps round each row to 16 bits, and a small random model has large logits.
NEAR = {"atol": 2e-3, "rtol": 2e-3}


@pytest.mark.parametrize("kernels", ["numba", "reference"])
@pytest.mark.parametrize(
    ("kind", "config"),
    [("Q8_0", {}), ("Q8_0", {"tie_word_embeddings": False}), ("Q4_0", {"use_bias": True})],
)
def test_without_a_gpu_matrices_stay_in_their_blocks_and_give_the_same_logits(
    tmp_path, kind, config, kernels
):
    path = written(tmp_path, kind, **config)
    unpacked_model, kept = load(located(path)), as_stored(path, kernels)
    assert held(kept) == {kind}
    for ours, theirs in zip(kept.named_rows, unpacked_model.named_rows, strict=True):
        assert torch.equal(ours, theirs)  # a state of the one belongs to the other
    expected = logits_from_nothing(unpacked_model, IDS)
    torch.testing.assert_close(logits_from_nothing(kept, IDS), expected, **NEAR)
    torch.testing.assert_close(logits_of_steps(kept), expected, **NEAR)


def logits_of_steps(model: FalconMamba) -> torch.Tensor:
    """The logits after each token, fed one by one."""
    states = States(model.config)
    return torch.cat([decode(model, states, [1], [token]) for token in IDS])


def test_rows_in_blocks_are_the_same_bits_alone_and_in_a_batch(tmp_path):
    model = as_stored(written(tmp_path, "Q8_0"))
    together, alone = States(model.config), States(model.config)
    for a, b in zip(IDS, reversed(IDS), strict=True):
        both = decode(model, together, [1, 2], [a, b])
        assert torch.equal(both[:1], decode(model, alone, [1], [a]))
    assert torch.equal(together.ssm[:, 1], alone.ssm[:, 1])


@pytest.mark.parametrize(("kind", "dtype"), [("F32", "float32"), ("BF16", "bfloat16")])
def test_what_is_in_the_dtype_already_stays_in_the_file(tmp_path, kind, dtype):
    path = written(tmp_path, kind)
    asked = ModelSettings(model=str(path), dtype=dtype)
    assert decide(asked, Room(max_running=1, max_prefill_tokens=8), Machine()).quantization is None
    header, config = read_header(path), located(path).config
    fp32 = frozenset({"A_log", "D"})
    read = dict(tensors.read_as_stored(header, config, getattr(torch, dtype), fp32))
    assert all(
        torch.equal(read[name], tensor)
        for name, tensor in tensors.read_tensors(header, config, getattr(torch, dtype), fp32)
    )


def test_blocks_can_be_unpacked_by_asking_for_none(tmp_path):
    path = written(tmp_path, "Q8_0")
    room = Room(max_running=1, max_prefill_tokens=8)
    kept = decide(ModelSettings(model=str(path)), room, Machine()).quantization
    assert kept is not None and kept.describe() == "Q8_0"
    asked = ModelSettings(model=str(path), quantization="none")
    assert decide(asked, room, Machine()).quantization is None
    on_gpu = Machine(gpu_capability=(9, 0), free_gpu_bytes=2**36)
    assert (
        decide(ModelSettings(model=str(path), kernels="reference"), room, on_gpu).quantization
        is None
    )


def test_it_is_not_quantised_again(tmp_path):
    asked = ModelSettings(model=str(written(tmp_path)), quantization="nf4")
    with pytest.raises(SettingsError, match="is packed in its own way"):
        decide(asked, Room(max_running=1, max_prefill_tokens=8), Machine())


def test_a_file_of_the_hub_is_chosen_by_its_kind_and_found_again_without_a_line(
    tmp_path, monkeypatch
):
    source = tmp_path / "source"
    source.mkdir()
    for kind in ("F32", "Q8_0"):
        (tmp_path / kind).mkdir()
        (source / f"tiny-{kind}.gguf").write_bytes(written(tmp_path / kind, kind).read_bytes())
    with FakeHub(source, tmp_path / "hub", monkeypatch) as hub:
        several = refusal(f"{HUB_ID}:tiny")
        assert "2 with 'tiny' in their names" in several and "tiny-Q8_0.gguf" in several
        assert "with 'Q9' in their names" in refusal(f"{HUB_ID}:Q9")
        checkpoint = located(f"{HUB_ID}:q8_0")
        assert checkpoint.gguf is not None and checkpoint.gguf.name == "tiny-Q8_0.gguf"
        assert hub.downloaded == ["tiny-Q8_0.gguf"] and checkpoint.hub_id == HUB_ID
        hub.close()
        assert located(f"{HUB_ID}:Q8_0").gguf == checkpoint.gguf
        assert "has 0 with 'F32' in their names" in refusal(f"{HUB_ID}:F32")


def patched(path: Path, old: bytes, new: bytes) -> Path:
    data = path.read_bytes()
    assert old in data and len(old) == len(new)
    path.write_bytes(data.replace(old, new, 1))
    return path


def test_faults_of_a_file_are_told_in_one_line(tmp_path):
    path = written(tmp_path)
    good = path.read_bytes()

    def told(data: bytes) -> str:
        path.write_bytes(data)
        return refusal(path)

    assert "is no GGUF file" in told(b"")
    assert "does not begin with 'GGUF'" in told(b"PK\x03\x04" + good[4:])
    assert "its version is 77" in told(good[:4] + struct.pack("<I", 77) + good[8:])
    huge = struct.pack("<Q", 2**60)
    assert "announces" in told(good[:8] + huge + good[16:])
    assert "announces" in told(good[:16] + huge + good[24:])
    assert "a text is" in told(good[:24] + huge + good[32:])
    for length in (10, 30, 100, 1_000, len(good) // 2, len(good) - 1):
        assert str(path) in told(good[:length])
    assert "is a 'llama'" in told(
        good.replace(b"\x05\0\0\0\0\0\0\0mamba", b"\x05\0\0\0\0\0\0\0llama", 1)
    )
    assert "does not say mamba.block_count" in told(
        good.replace(b"mamba.block_count", b"mamba.clock_bount", 1)
    )
    assert "which a falcon_mamba of its dimensions does not have" in told(
        good.replace(b"blk.1.ssm_d", b"blk.9.ssm_d", 1)
    )
    assert "is there twice" in told(good.replace(b"blk.1.ssm_d", b"blk.2.ssm_d", 1))
    at = good.index(b"mamba.ssm.state_size") + len(b"mamba.ssm.state_size") + 4
    assert "has the shape" in told(good[:at] + struct.pack("<I", 7) + good[at + 4 :])


def test_no_change_of_a_byte_of_its_head_is_more_than_a_sentence(tmp_path):
    """100 random changes: each loads, or is refused in one line."""
    path = written(tmp_path)
    good = bytearray(path.read_bytes())
    places = read_header(path).tensors
    head = min(place.offset for place in places.values())
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(100):
        data = bytearray(good)
        for at in rng.integers(0, head, rng.integers(1, 4)):
            data[at] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            header = read_header(path)
        except CheckpointError as error:
            refused += 1
            assert "\n" not in str(error)
            continue
        assert all(our_name(name) != "" for name in header.tensors)
    assert 10 < refused < 100
