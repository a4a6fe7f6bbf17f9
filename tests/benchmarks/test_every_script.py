"""No runnable script is left outside the tests: each runs once, at its smallest size."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import httpx
import pytest
import torch

from benchmarks import all as all_of_them
from benchmarks import (
    cpu,
    cpu_choices,
    cpu_file,
    cpu_quantized,
    few_rows,
    kernels,
    library,
    page,
    responses,
    reuse,
)
from benchmarks.lib import checkpoint, random_gguf, report, roofline
from falcon_mamba_app.api.routes import create_api
from falcon_mamba_app.ops import REFERENCE
from falcon_mamba_app.ui.conversation.sessions import Sessions
from falcon_mamba_app.ui.page import build_page
from tests.support.api_fixtures import on_loopback
from tests.support.checkpoints import make_model
from tests.support.echo_service import EchoService
from tests.support.engine_fixtures import ours

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
HERE = "tests/benchmarks/test_every_script.py"
BENCHMARKS = "tests/benchmarks/test_benchmarks.py"

# Where each script is run, by its module.
RUN_IN = {
    "benchmarks.accuracy": BENCHMARKS,
    "benchmarks.all": HERE,
    "benchmarks.book": HERE,
    "benchmarks.browser": BENCHMARKS,
    "benchmarks.cluster": "tests/cluster/test_copies.py",
    "benchmarks.context": BENCHMARKS,
    "benchmarks.cpu": HERE,
    "benchmarks.cpu_choices": HERE,
    "benchmarks.cpu_file": HERE,
    "benchmarks.cpu_quantized": HERE,
    "benchmarks.decode": BENCHMARKS,
    "benchmarks.fairness": HERE,
    "benchmarks.few_rows": HERE,
    "benchmarks.forms": "tests/benchmarks/test_forms.py",
    "benchmarks.killed": "tests/benchmarks/test_killed.py",
    "benchmarks.killed_writers": HERE,
    "benchmarks.kernels": HERE,
    "benchmarks.library": HERE,
    "benchmarks.llama_cpp": "tests/benchmarks/test_llama_cpp.py",
    "benchmarks.loading": "tests/checkpoint/test_weights_4bit.py",
    "benchmarks.memory": BENCHMARKS,
    "benchmarks.page": HERE,
    "benchmarks.plot": BENCHMARKS,
    "benchmarks.prefill": BENCHMARKS,
    "benchmarks.quantization": BENCHMARKS,
    "benchmarks.refusals": HERE,
    "benchmarks.responses": HERE,
    "benchmarks.reuse": HERE,
    "benchmarks.serving": BENCHMARKS,
    "benchmarks.snapshots": BENCHMARKS,
    "benchmarks.soak": "tests/benchmarks/test_soak.py",
    "benchmarks.speculation": HERE,
    "benchmarks.stall": "tests/benchmarks/test_stall.py",
    "benchmarks.startup": "Makefile",
    "benchmarks.states": BENCHMARKS,
    "benchmarks.lib.checkpoint": HERE,
    "benchmarks.lib.health": "benchmarks/stall.py",
    "benchmarks.lib.killed_writers": "benchmarks/killed_writers.py",
    "benchmarks.lib.llama_cpp": "benchmarks/llama_cpp.py",
    "benchmarks.lib.readers": "benchmarks/serving.py",
    "benchmarks.lib.roofline": HERE,
    "training.average": "training/tests/test_average.py",
    "training.evaluate": HERE,
    "training.export": HERE,
    "training.prepare": HERE,
    "training.streams": "training/streams.py",  # itself, as the worker of test_training.py's runs
    "training.train": "training/tests/test_training.py",
}


def test_every_script_is_run_somewhere():
    scripts = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for folder in ("benchmarks", "training")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"^if __name__ == .__main__.:", path.read_text(encoding="utf-8"), re.M)
    }
    assert scripts == RUN_IN.keys()
    for script, place in RUN_IN.items():
        name = script.rpartition(".")[2]
        assert re.search(rf"\b{name}\b", (ROOT / place).read_text(encoding="utf-8")), script


@pytest.fixture
def results(monkeypatch, tmp_path):
    """The folder that results are saved in."""
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    return tmp_path


async def test_the_library_is_measured(tmp_path):
    timings, _, size_mb = await library.run(tmp_path, 12, 1)
    found = {one.what: one.found for one in timings}
    assert found["list: the first page"] == 11 and found["search: a title's only word"] == 1
    assert size_mb > 0 and len(library.show(timings).lines) == len(timings) + 2


def test_a_killed_writer_loses_no_turn_and_no_word_that_it_had_reported(run):
    found, table = run("killed_writers", "--kills", "10")
    assert found["is_kept"] and found["turns"], table
    assert not found["lost_turns"] and not found["lost_words"] and not found["still_writing"]


def test_readers_of_a_book_begin_where_it_ends(run):
    found, table = run("book", "--tokens", "300", "--readers", "2", "--rounds", "1")
    assert found["reused_tokens"] == [300], table
    assert found["state_bytes_added_by_readers"] == 0
    assert min(found["ttft_on_book_s"], found["ttft_reading_again_s"], found["read_s"]) > 0


async def test_an_update_of_the_page_is_measured():
    service = EchoService()
    blocks, _ = build_page(service, Sessions(service.forget))
    cost = await page.measure(blocks, service.stats(), 4, 8)
    assert cost.num_messages == 4
    assert min(cost.text_ms, cost.panel_ms, cost.diff_bytes) > 0


@pytest.fixture
def small(monkeypatch):
    """benchmarks.cpu with a short prompt."""
    monkeypatch.setattr(cpu, "PROMPT", 32)
    return cpu.Effort(rounds=1, new_tokens=16, prompts=(32,), memory_prompts=(1, 2))


def test_the_cpu_is_measured_beside_transformers(small):
    figures = cpu.measure(small)
    assert [row.program for row in figures[:2]] == ["transformers", "ours, numba"]
    assert len(figures) == 5 and all(row.decode_gb_per_s > 0 for row in figures)
    assert len(cpu.show(figures).lines) == 7
    ours = figures[1].tokens_per_s
    ours["prefill 32"] = ours["decode 1"] = 1.0  # far below what either side does
    assert len(cpu.shortfalls(figures, cpu.MAX_PROMPT_MEMORY_MB + 1)) == 3
    del ours["prefill 32"]  # as where no prompts were read
    assert [words.split(" is ")[0] for words in cpu.shortfalls(figures, 0)] == ["decode 1"]


def test_the_peak_of_a_prompt_is_read_from_the_system(capsys):
    cpu.print_own_peak(16)
    assert float(capsys.readouterr().out) > 50


def test_each_product_is_timed_by_the_function_that_its_column_names(monkeypatch):
    """Once the column "ours" timed somebody else's."""
    called = []
    for name in ("onednn_linear", "rows_of_step"):
        whole = getattr(cpu_choices.products, name)
        column = next(key for key, value in cpu_choices.PRODUCTS.items() if value is whole)
        spy = lambda *args, name=name, whole=whole: called.append(name) or whole(*args)  # noqa: E731
        monkeypatch.setitem(cpu_choices.PRODUCTS, column, spy)
    monkeypatch.setattr(cpu_choices, "HEAD", (64, 512))
    table = cpu_choices.products_table([2], num_layers=1)
    assert len(table.lines) == 4
    assert set(called) == {"onednn_linear", "rows_of_step"}
    product, calls = cpu_choices.products.dense.linear, []
    monkeypatch.setattr(
        cpu_choices.products.dense, "linear", lambda *args: calls.append(1) or product(*args)
    )
    cpu_choices.products.rows_of_step(torch.ones(1, 8), torch.ones(4, 8), None)
    assert calls == [1]


def test_our_own_speeds_are_cells_of_the_table_of_spin_counts(small, monkeypatch):
    cells = cpu_choices.own_speeds(repeats=1, new_tokens=16).split(" | ")
    assert all(float(cell.replace(",", "")) > 0 for cell in cells)
    monkeypatch.setattr(cpu_choices, "_speeds_of", lambda spin_count: cells)
    monkeypatch.setattr(cpu_choices, "BUSY", "input()")
    table = cpu_choices.spin_table(["100"])
    assert len(table.lines) == 4
    assert len({line.count("|") for line in table.lines}) == 1


def test_packed_matrices_are_measured_in_every_form():
    """Small ones, whose speeds mean nothing; a floor that is missed is named."""
    figures = [cpu_quantized.measure(kind, cpu_quantized.QUICK) for kind in cpu_quantized.KINDS]
    assert [row.kind for row in figures] == ["Q8_0", "Q4_K", "int8"]
    for row in figures:
        assert min(row.tokens_per_s, row.share, row.rows_ratio, row.prompt_ratio) > 0
    slow = dataclasses.replace(figures[0], share=0.1, rows_ratio=3, prompt_ratio=1)
    assert cpu_quantized.shortfalls([slow]) == ["Q8_0: share of the bandwidth is 0.10, not 0.65"]


def test_a_file_of_the_7b_s_kinds_is_loaded_and_measured(tmp_path, monkeypatch):
    """A small one; a bound that is missed is named."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cpu_file, "STEPS", 2)
    monkeypatch.setattr(cpu_file, "TURNS", 1)
    path = tmp_path / "random.gguf"
    config = dataclasses.replace(cpu_quantized.QUICK.config, vocab_size=8_300)
    random_gguf.write_random_gguf(path, config)
    found = cpu_file.inside(path, 8)
    assert min(found.values()) > 0 and found["peak_bytes"] > path.stat().st_size
    slow = {**found, "file_bytes": 0, "load_s": 9.0, "turn_ratio": 1.0}
    assert [words.split(",")[0] for words in cpu_file.shortfalls(slow)] == [
        "memory beside the file",
        "loading",
    ]


def test_every_operation_is_measured():
    shapes = kernels.Shapes(2, 32, 64, 8, prompts=(8,), rows=(1, 2), v=100)
    best = roofline.measure(CPU, 2**20)
    rows, table = kernels.measure_all(REFERENCE, shapes, best, CPU)
    names = {row.op for row in rows}
    assert {"conv_prefill", "scan_prefill", "conv_step", "scan_step", "linear"} < names
    assert all(row.us > 0 and row.limit_us > 0 for row in rows)
    assert len(table.lines) == 2 + len(rows)


def test_a_step_is_measured_in_every_form(monkeypatch, run):
    monkeypatch.setattr(few_rows, "TURNS", 1)
    monkeypatch.setattr(few_rows, "STEPS_OF_A_TURN", 1)
    rows = run("few_rows", "--rows", "1", "2")[0]["rows"]
    assert [(row["rows"], row["weights"]) for row in rows] == [
        (num_rows, form) for num_rows in (1, 2) for form in ("bf16", "int8", "nf4")
    ]
    assert all(row["step_ms"] > 0 and row["share_of_roofline"] > 0 for row in rows)


def test_the_best_of_the_machine_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(roofline, "CPU_BYTES", 2**20)
    roofline.main()
    assert capsys.readouterr().out.count("GB/s") == 2


def test_all_of_them_run_one_after_the_other_and_a_failure_is_told(
    monkeypatch, results, run_main, capsys
):
    options = ("--batch", "1", "--steps", "2", "--weights", "none")
    runs = (all_of_them.Run("one", "decode", options), all_of_them.Run("no", "decode", ("--no",)))
    monkeypatch.setattr(all_of_them, "RUNS", runs)
    monkeypatch.setattr(roofline, "CPU_BYTES", 2**20)
    assert run_main("benchmarks.all", "--suffix", "x", "--only", "one") == 0
    found = json.loads((results / "one-x.json").read_text())
    assert found["rows"][0]["tokens_per_s"] > 0
    assert run_main("benchmarks.all", "--suffix", "x") == 1
    assert "failed: no" in capsys.readouterr().err


def test_a_checkpoint_of_random_weights_is_a_folder_as_the_hub_has_it(monkeypatch, tmp_path):
    model = ours(make_model(vocab_size=8_300))
    monkeypatch.setattr(checkpoint, "random_7b", lambda *args: model)
    checkpoint.write_random_7b(tmp_path)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == dict(model.named_parameters()).keys()
    assert len(list(tmp_path.glob("*.safetensors"))) == checkpoint.NUM_FILES
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["num_hidden_layers"] == model.config.num_layers


def test_drafts_are_measured_and_change_no_reply(results, run_main):
    options = ("--tokens", "12", "--rounds", "1", "--save", "small")
    assert run_main("benchmarks.speculation", *options) == 0
    found = json.loads((results / "small.json").read_text())["results"]
    assert found["every draft right"]["accepted"] == found["every draft right"]["drafted"] > 0


@pytest.mark.slow
def test_bodies_are_refused_and_measured(monkeypatch, results, run_main):
    """Whether a small body is refused does not matter here, and 8 s for each are for the large."""
    monkeypatch.setattr("benchmarks.refusals.SETTLE_S", 0.1)
    options = ("--megabytes", "0.3", "--only", "objects", "--save", "small")
    assert run_main("benchmarks.refusals", *options) in (0, 1)
    found = json.loads((results / "small.json").read_text())
    assert found["objects"]["status"] >= 400
    assert math.isfinite(found["objects"]["core_s"])


@pytest.mark.slow
def test_a_newcomer_beside_a_crowd_is_measured(monkeypatch, results, run_main):
    """No bound is asked for: the machine may be doing other things."""
    monkeypatch.setattr("benchmarks.fairness.SETTLE_S", 0.1)
    options = ("--rounds", "1", "--prompt-tokens", "8000", "--save", "small")
    assert run_main("benchmarks.fairness", *options) in (0, 1)
    found = json.loads((results / "small.json").read_text())
    assert min(found["idle_s"], found["busy_s"], found["prefill_tokens_per_s"]) > 0


async def test_a_turn_after_a_history_is_measured_beside_one_without():
    service = EchoService()
    await service.start()
    async with (
        on_loopback(create_api(service)) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        row = await responses.measure(http, 90, 2)
    assert row["history_tokens"] == 90 and row["read_again"] >= 0
    assert min(row["anew_ms"], row["after_ms"], row["ratio"]) > 0


@pytest.mark.parametrize("script", ["evaluate", "export", "prepare"])
def test_a_script_of_training_says_what_it_takes(script, run_main, capsys):
    """Their functions are tested in training/tests."""
    with pytest.raises(SystemExit) as ended:
        run_main(f"training.{script}", "--help")
    assert ended.value.code == 0
    assert "usage:" in capsys.readouterr().out


@pytest.mark.slow
def test_reuse_reads_a_system_message_once_and_strangers_for_themselves(monkeypatch, capsys):
    monkeypatch.setattr(reuse, "SYSTEM", reuse.SENTENCE * 3)
    reuse.main(["--strangers=2", "--rounds=1", "--questions=4", "--cold-questions=1"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    read, each = (told["questions"][name] for name in ("tokens_read", "tokens_read_each_without"))
    assert each < read < 3 * each
    assert told["strangers"]["speed"] > 0
