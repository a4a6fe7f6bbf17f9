"""The benchmarks at small sizes on the CPU: they run, and their figures are possible ones."""

from __future__ import annotations

import itertools
import json
import os

import pytest

pytestmark = pytest.mark.slow  # most load the bundled model, some start the app


def test_decode_is_measured_beside_the_memory_and_transformers(run):
    found, table = run("decode", "--batch", "1", "2", "--steps", "10", "--peers")
    measured = [(row["weights"], row["rows"]) for row in found["rows"]]
    assert measured == [(form, rows) for form in ("none", "int8", "nf4") for rows in (1, 2)]
    for row in found["rows"]:
        assert row["share_of_roofline"] > 0
        assert row["tokens_per_s"] == pytest.approx(1_000 * row["rows"] / row["step_ms"])
    (peer,) = found["peers"]
    assert peer["we_are"] == pytest.approx(found["rows"][0]["tokens_per_s"] / peer["tokens_per_s"])
    assert len(table) == 2 + len(found["rows"]) + len(found["peers"])


def test_prompts_are_measured_beside_transformers(run):
    found, table = run("prefill", "--lengths", "300", "600", "--chunk", "128", "--peers")
    measured = [(row["weights"], row["tokens"]) for row in found["rows"]]
    assert measured == [(form, length) for form in ("none", "int8", "nf4") for length in (300, 600)]
    assert all(row["tokens_per_s"] > 0 and row["peak_bytes"] > 0 for row in found["rows"])
    assert found["peers"][0]["tokens_per_s"] > 0
    assert len(table) == 9


def test_what_8_and_4_bits_cost_is_measured_on_a_conversation(run):
    found, table = run("quantization")
    full, *packed = found["rows"]
    assert full["weights"] == "none" and len(packed) == 7
    assert all(0 < row["mean_kl"] < row["worst_kl"] for row in packed)
    assert all(row["bytes"] < full["bytes"] for row in packed)
    assert len(table) == 2 + len(found["rows"])


def test_contexts_of_all_lengths_are_measured_alike(run, monkeypatch):
    monkeypatch.setattr("benchmarks.context.WARM_UP_TOKENS", 600)
    found, table = run("context", "--lengths", "200", "2000", "--steps", "5", "--turns", "1")
    short, long = found["rows"]
    assert (short["tokens"], long["tokens"]) == (200, 2_000)
    assert long["peak_bytes"] < 1.1 * short["peak_bytes"]
    assert all(row["turn_ratio"] > 0 and row["turn_ms"] > 0 for row in (short, long))
    assert long["decode_tokens_per_s"] > 0 and found["decode_limit_tokens_per_s"] > 0
    assert len(table) == 4


def test_snapshots_are_measured_out_and_back(run):
    found, table = run("snapshots", "--rows", "2", "--steps", "8")
    assert found["state_bytes"] == 860_160
    assert all(found[f"{name}_ms"] > 0 for name in ("out", "back", "step_alone"))
    assert found["step_with_snapshots_ms"] > 0
    assert len(table) == 10


def test_stored_states_are_measured(run):
    found, table = run(
        *("states", "--tokens", "40", "--rows", "2", "--seconds", "0.05"),
        *("--write-every-s", "0.02", "--turns", "4", "--conversations", "4"),
        *("--budget-states", "4"),
    )
    assert found["states_held"] <= 4 and found["states_written"] > 0
    assert found["fetch_ms"] < found["after_ms"] and found["write_ms"] > 0
    # No bound on the process's memory: the other tests' is in it.
    assert len(table) == 10


def test_the_service_is_measured_with_and_without_http(run):
    found, table = run(
        *("serving", "--clients", "3", "--tokens", "30", "--long-tokens", "1500"),
        *("--idle-s", "0.3", "--turns", "2"),
    )
    for number, name in itertools.product((1, 3), ("service", "HTTP")):
        # No bound on the share itself: other work on the machine may hit either of the two rates.
        rate = found[f"{name}_{number}_readers_tokens_per_s"]
        share = found[f"{name}_{number}_readers_share"]
        assert 0 < share == pytest.approx(rate / found[f"engine_alone_{number}"])
    assert found["the_long_prompt_meanwhile"]["prompt_tokens"] == pytest.approx(1_500, rel=0.1)
    assert found["gap_p99_beside_a_long_prompt"] > 0
    history = [turn["reused_tokens"] for turn in found["turns"]["with_history"]]
    assert history[0] == 0 and history[1] > 1_400 and history[2] > history[1]
    assert found["from_start_to_first_token"] > 0
    assert len(table) == 12


@pytest.mark.browser
def test_a_browser_on_the_page_leaves_the_engine_its_pace(run, monkeypatch):
    if not os.path.exists(os.environ.get("CHROMIUM", "/usr/bin/chromium")):
        pytest.skip("no browser; set CHROMIUM to its path")
    monkeypatch.setattr("benchmarks.browser.ENGINE_STEPS", 30)
    found, table = run("browser", "--rounds", "1", "--step-ms", "4", "--messages", "40")
    (only,) = found["rounds"]
    assert 0 < only["alone"] < 255
    assert found["share"] == pytest.approx(only["with_browser"] / only["alone"])
    assert len(table) == 7  # two tables, of a round and its median and of one long page


def test_bf16_lies_as_near_to_the_oracle_as_it_must(run):
    """Mean divergence per token at most 1e-3, and no further off than transformers in bf16."""
    found, table = run("accuracy", "--tokens", "90")
    mean = {name: values["mean_kl"] for name, values in found["paths"].items()}
    assert 0 < mean["ours, carried"] <= min(1e-3, mean["transformers, one-shot"])
    assert 0 < mean["ours, one-shot"] <= 1e-3
    assert mean["ours, carried"] < mean["ours in nf4, carried"] < mean["forgetful"]
    assert mean["forgetful"] > 0.01
    assert len(table) == 7


def test_the_plot_shows_what_the_result_says_in_both_themes(tmp_path, run_main):
    rows = [
        {
            "tokens": tokens,
            "read_tokens_per_s": 35_123.0,
            "decode_tokens_per_s": 187.0,
            "peak_bytes": 14.9e9,
        }
        for tokens in (1_024, 2**20)
    ]
    result = {"rows": rows, "decode_limit_tokens_per_s": 219.0, "kv_bytes_per_token": 131_072}
    (tmp_path / "result.json").write_text(json.dumps(result))
    options = ["--result", str(tmp_path / "result.json"), "--out", str(tmp_path)]
    run_main("benchmarks.plot", *options)
    light, dark = ((tmp_path / f"context-{name}.svg").read_text() for name in ("light", "dark"))
    for text in ("this app: 187", "this app: 35,123", "this app: 14.90", "memory: 219", "1 M"):
        assert text in light and text in dark
    assert "#ffffff" in light and "#0d1117" in dark


def test_the_memory_of_a_cpu_server_is_that_of_one_with_torch_and_the_bundled_model(run):
    result, table = run("memory", "--turns", "1", "--prompt-tokens", "300", "--compiled")
    ready, *later, most = gigabytes = list(result["memory_gb"].values())
    assert len(table) == 2 + len(gigabytes) == 7
    assert 0.2 < ready < 2.0
    assert most >= max(ready, *later)
