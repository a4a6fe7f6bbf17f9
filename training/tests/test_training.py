"""The recipe at toy size: rows, the scan's gradients, steps, checkpoints, and what is exported."""

from __future__ import annotations

import lzma
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from falcon_mamba_app.checkpoint.locate import locate
from falcon_mamba_app.checkpoint.weights import load_model
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.ops import REFERENCE
from falcon_mamba_app.settings import ModelSettings
from tests.support.engine_fixtures import logits_from_nothing
from training import train
from training.export import join_parts, write_parts
from training.generator import conversations, memory
from training.mixture import Batch
from training.model import TINY, TrainingModel, conv_silu, document_age
from training.prepare import prepare
from training.ranks import Ranks
from training.rows import END_OF_TEXT, FULL, PAD, TURN_END, Encoder, documents, pack, render
from training.scan import reference_scan, selective_scan
from training.schedule import Clock, learning_rate
from training.streams import FreshConversations, read_token_file
from training.trainer import Trainer

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / "assets" / "nano" / "tokenizer.json"


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(TOKENIZER)


@pytest.fixture(scope="module")
def data(tmp_path_factory, encoder) -> Path:
    """A folder as `--data` wants it: a tokenizer, a token file of each sort, and held-out lines."""
    folder = tmp_path_factory.mktemp("data")
    shutil.copy(TOKENIZER, folder)
    talks = encoder.encode([render(each) for each in conversations("files", 40)])
    tokens = np.concatenate(talks)
    for name in ("plain_test.bin.xz", "chat_human.bin.xz"):
        (folder / name).write_bytes(lzma.compress(tokens.tobytes()))
    return folder


def options_of(data: Path, out: Path, *more: str):
    out.mkdir(parents=True, exist_ok=True)
    fixed = ["--preset", "tiny", "--rows", "2", "--length", "64", "--workers", "0"]
    return train.parse(["--data", str(data), "--out", str(out), *fixed, *more])


def run(options) -> train.Run:
    made = train.Run(options, Ranks.join("cpu"))
    made.loop()
    return made


def test_a_seed_names_the_same_conversations_for_ever():
    assert conversations("a", 50) == conversations("a", 50)
    assert conversations("a", 50) != conversations("b", 50)


def test_conversations_alternate_and_fit_into_a_row(encoder):
    made = conversations("fit", 2_000)
    lengths = [len(ids) for ids in encoder.encode([render(each) for each in made])]
    assert 2_000 < max(lengths) <= 4097
    for messages in made:
        roles = [m["role"] for m in messages if m["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(m["content"].strip() == m["content"] != "" for m in messages)
        assert not any(re.search(r"{\w*}", m["content"]) for m in messages)  # no slot left open


@pytest.mark.parametrize("kind", memory.kinds())
def test_what_is_told_is_what_is_answered(kind):
    rng = Random(kind)
    for _ in range(60):
        fact = memory.make_fact(rng, kind)
        assert fact.value.casefold() in memory.tell(rng, fact).casefold()
        assert fact.value.casefold() in memory.answer(rng, fact).casefold()


@pytest.mark.parametrize("kind", ["name", "place", "age"])
def test_a_question_does_not_give_the_answer_away(kind):
    rng = Random(kind)
    for _ in range(200):
        fact = memory.make_fact(rng, kind)
        assert fact.value not in memory.ask(rng, fact).split()


def test_only_what_the_assistant_says_counts_in_full(encoder):
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "My name is Zorvin."},
        {"role": "assistant", "content": "Hello, Zorvin!"},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "See you."},
    ]
    (ids,) = encoder.encode([render(messages)])
    weights = encoder.conversation_weights(ids, listening=0)
    heard = ids[weights == FULL].tolist()
    said = encoder.encode(["Hello, Zorvin!<|im_end|>", "See you.<|im_end|>"])
    assert heard == [*said[0], *said[1]]
    assert heard.count(TURN_END) == 2


def test_rows_hold_whole_conversations_and_little_padding(encoder):
    ids = encoder.encode([render(each) for each in conversations("rows", 600)])
    rows = pack(((each, encoder.conversation_weights(each)) for each in ids), 4096)
    unpacked = [doc for row in rows.tokens for doc in documents(row)]
    assert sorted(map(bytes, unpacked)) == sorted(map(bytes, ids))
    assert (rows.tokens == PAD).mean() < 0.03
    assert not rows.weights[rows.tokens == PAD].any()


def test_a_document_that_is_longer_than_a_row_is_left_out():
    long, short = np.full(100, 9, np.uint16), np.array([9, END_OF_TEXT], np.uint16)
    rows = pack([(long, np.ones(100, np.uint8)), (short, np.ones(2, np.uint8))], 49)
    assert rows.tokens.shape == (1, 50)
    assert rows.tokens[0, :2].tolist() == short.tolist()


def test_the_data_is_cut_to_whole_documents(data, tmp_path):
    shutil.copy(data / "plain_test.bin.xz", data / "plain_simple.bin.xz")
    (data / "eval_synth.jsonl").write_text("{}\n")
    prepare(data, tmp_path, max_plain_tokens=600)
    tokens, whole = (read_token_file(folder / "plain_simple.bin.xz") for folder in (tmp_path, data))
    assert 0 < len(tokens) <= 600 < len(whole)
    assert tokens[-1] == END_OF_TEXT and np.array_equal(tokens, whole[: len(tokens)])
    (data / "plain_simple.bin.xz").unlink()


def test_workers_make_the_rows_that_one_process_would(data):
    alone = FreshConversations(TOKENIZER, seed=3, length=2048, num_workers=0)
    several = FreshConversations(TOKENIZER, seed=3, length=2048, num_workers=2)
    try:
        for _ in range(3):
            assert np.array_equal(alone.take()[0], several.take()[0])
    finally:
        several.close()


def scan_inputs(b: int, t: int, d: int, n: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    leaves = [random(b, t, d), random(b, t, d), random(d, n), random(b, t, n), random(b, t, n)]
    leaves += [random(d), random(b, t, 2 * d), random(d)]
    keep = (torch.rand(b, t, generator=generator) > 0.2).to(torch.uint8)
    keep[:, 0] = 0
    return [leaf.requires_grad_() for leaf in leaves], keep


def scan_and_gradients(scan, leaves, keep) -> list[torch.Tensor]:
    x, dt, A_log, B, C, D, xz, bias = leaves
    y = scan(x, dt, -A_log.exp(), B, C, D, xz.chunk(2, -1)[1], bias, keep)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.device)
    return [y, *torch.autograd.grad(y, leaves, dy)]


def test_the_kernels_have_the_gradients_of_the_plain_recurrence():
    from training.triton_scan import TritonScan

    leaves, keep = scan_inputs(2, 24, 32, 4)
    if torch.cuda.is_available():
        leaves = [leaf.detach().cuda().requires_grad_() for leaf in leaves]
        keep = keep.cuda()
    wanted = scan_and_gradients(reference_scan, leaves, keep)
    for ours, theirs in zip(
        scan_and_gradients(TritonScan.apply, leaves, keep), wanted, strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_the_convolutions_kernels_have_its_values_and_gradients():
    from training.triton_conv import TritonConv

    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    age = document_age(torch.randint(0, 9, (2, 64), generator=generator), 3).to(device)
    shapes = ((2, 64, 128), (64, 4), (64,), (2, 64, 64))
    xz, weight, bias, dy = (torch.randn(*s, generator=generator).to(device) for s in shapes)
    leaves = [leaf.requires_grad_() for leaf in (xz, weight, bias)]
    pairs = []
    for conv in (conv_silu, TritonConv.apply):
        y = conv(xz.chunk(2, -1)[0], weight, bias, age)
        pairs.append([y, *torch.autograd.grad(y, leaves, dy)])
    for ours, theirs in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_document_does_not_see_the_one_before_it():
    torch.manual_seed(0)
    model = TrainingModel(TINY)
    before, after = torch.randint(4, 99, (1, 7)), torch.randint(4, 99, (1, 9))
    end = torch.tensor([[END_OF_TEXT]])
    together = model(torch.cat([before, end, after], 1))
    torch.testing.assert_close(together[:, 8:], model(after), atol=1e-5, rtol=1e-5)


def test_age_counts_the_tokens_of_the_same_document():
    tokens = torch.tensor([[5, 6, END_OF_TEXT, 7, 8, 9, 4, 4, END_OF_TEXT, END_OF_TEXT, 3]])
    assert document_age(tokens, 3).tolist() == [[0, 1, 2, 0, 1, 2, 3, 3, 3, 0, 0]]


def test_the_scan_needs_whole_tiles():
    from training.triton_scan import TritonScan

    leaves, keep = scan_inputs(1, 17, 64, 8)
    x, dt, A, B, C, D, xz, bias = leaves
    with pytest.raises(ValueError, match="17 tokens"):
        TritonScan.apply(x, dt, A, B, C, D, xz.chunk(2, -1)[1], bias, keep)
    assert selective_scan(x, dt, -A.exp(), B, C, D, xz.chunk(2, -1)[1], bias, keep).shape == x.shape


def test_the_rate_rises_stays_and_falls_to_almost_nothing():
    points = ((0, 0.04), (39, 0.05), (79, 0.1), (500, 0.3), (900, 0.65), (999, 1.0))
    rates = [learning_rate(step, progress, 1.0) for step, progress in points]
    assert rates == pytest.approx([1 / 80, 0.5, 1.0, 1.0, 0.505, 0.01])


def test_a_clock_counts_what_was_spent_before():
    clock = Clock(None, limit_s=100.0, spent_s=60.0, started_s=time.monotonic() - 20.0)
    assert clock.progress(0) == pytest.approx(0.8, abs=0.01)
    assert Clock(10, limit_s=1.0).progress(5) == 0.5


def test_training_learns(data, tmp_path):
    options = options_of(data, tmp_path / "out", "--steps", "12", "--lr", "0.01")
    made = train.Run(options, Ranks.join("cpu"))
    batch = made.mixture.batch(2, 0.5, torch.device("cpu"))
    losses = [made.trainer.step(batch, 0.01).item() for _ in range(12)]
    assert losses[-1] < losses[0] - 1.0


def test_a_batch_that_overflows_does_not_end_the_run(data, tmp_path):
    made = train.Run(options_of(data, tmp_path / "out", "--steps", "1"), Ranks.join("cpu"))
    batch = made.mixture.batch(2, 0.5, torch.device("cpu"))
    broken = Batch(batch.inputs, batch.targets, batch.weights * float("inf"))
    made.trainer.step(broken, 0.01)
    assert all(weight.isfinite().all() for weight in made.trainer.model.parameters())


def test_a_resumed_run_ends_as_one_that_was_not_stopped(data, tmp_path):
    file = tmp_path / "checkpoint.pt"
    whole = run(options_of(data, tmp_path / "whole", "--steps", "6"))
    first = train.Run(
        options_of(data, tmp_path / "part", "--steps", "6", "--checkpoint", str(file)),
        Ranks.join("cpu"),
    )
    for _ in range(3):
        first.advance(1)
    first.look(0.5)
    rest = run(
        options_of(data, tmp_path / "part", "--steps", "6", "--checkpoint", str(file), "--resume")
    )
    assert rest.step == whole.step == 6
    for ours, theirs in zip(
        rest.trainer.model.parameters(), whole.trainer.model.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)
    with pytest.raises(SystemExit, match="with --optimizer muon"):
        resumed = ("--checkpoint", str(file), "--resume", "--optimizer", "adamw")
        run(options_of(data, tmp_path / "part", "--steps", "6", *resumed))


def test_a_run_is_resumed_from_a_file(capsys):
    with pytest.raises(SystemExit):
        train.parse(["--resume"])
    assert "--resume needs --checkpoint FILE" in capsys.readouterr().err


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[Path, TrainingModel]:
    """A checkpoint folder from parts, and the model it was made of."""
    torch.manual_seed(1)
    model, parts = TrainingModel(TINY), tmp_path_factory.mktemp("parts")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not name.endswith(("A_log", ".D")):
                weight.copy_(weight.bfloat16())  # as it will be stored
    write_parts(parts, model.state_dict(), TINY)
    folder = tmp_path_factory.mktemp("nano")
    join_parts(parts, folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(ROOT / "assets" / "nano" / name, folder)
    return folder, model


def test_an_export_is_the_same_model_in_transformers(exported):
    folder, model = exported
    ids = torch.randint(4, 999, (1, 21))
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits
    torch.testing.assert_close(model(ids), theirs, atol=1e-4, rtol=1e-4)


def test_an_export_is_the_same_model_in_this_app(exported):
    folder, model = exported
    ours = load_model(
        locate(ModelSettings(model=str(folder)), has_cuda=False),
        device=torch.device("cpu"),
        dtype=torch.float32,
        make_model=lambda config: FalconMamba(config, REFERENCE),
    )
    ids = torch.randint(4, 999, (21,))
    torch.testing.assert_close(
        logits_from_nothing(ours, ids.tolist()), model(ids[None])[0], atol=1e-4, rtol=1e-4
    )


def test_parts_are_small_and_a_missing_export_is_said(exported, tmp_path, monkeypatch):
    _, model = exported
    monkeypatch.setattr("training.export.PART_BYTES", 500_000)
    parts = write_parts(tmp_path, model.state_dict(), TINY)
    assert len(parts) > 1 and max(part.stat().st_size for part in parts) <= 500_000
    assert not list(tmp_path.glob("*.partial"))
    with pytest.raises(FileNotFoundError, match="model.part0"):
        join_parts(tmp_path / "nothing", tmp_path / "target")


def test_a_run_may_start_with_the_weights_of_a_checkpoint(exported, data, tmp_path):
    folder, model = exported
    options = options_of(data, tmp_path / "out", "--weights", str(folder), "--first-shard", "100")
    started = train.Run(options, Ranks.join("cpu"))
    assert started.mixture.state()["fresh"]["shard"] == 100
    for name, weight in started.trainer.model.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name])


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_a_whole_export(data, tmp_path):
    """Rented machines end without asking: what was written before must load."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "training.train", "--data", str(data), "--out", str(out)]
    command += ["--preset", "tiny", "--rows", "2", "--length", "64", "--workers", "1"]
    command += ["--minutes", "9", "--evaluate-s", "0.2"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline_s = time.monotonic() + 60
    while not (out / "log.jsonl").exists() or len((out / "log.jsonl").read_text().split("\n")) < 4:
        assert time.monotonic() < deadline_s and process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    path = join_parts(out, tmp_path / "joined")
    from safetensors.torch import load_file

    assert set(load_file(path)) == set(
        Trainer(TINY, Ranks.join("cpu"), seed=1, is_compiled=False).model.state_dict()
    )


@pytest.mark.slow
def test_without_gpus_two_processes_train_one_model(exported, data, tmp_path):
    """With the options of a run that goes on from weights, which torchrun must not take for its."""
    folder, _ = exported
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--standalone", "-m", "training.train", "--data", str(data)]
    command += ["--out", str(tmp_path), "--preset", "tiny", "--rows", "2", "--length", "64"]
    command += ["--workers", "0", "--steps", "2", "--weights", str(folder), "--first-shard", "100"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=100)
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    assert '"step": 2' in line and '"tokens": 512' in line
