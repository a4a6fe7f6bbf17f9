from dataclasses import replace

import pytest

from falcon_mamba_app.protocol import ModelInfo, ServiceStats
from falcon_mamba_app.ui.view.panel import (
    UNKNOWN,
    Figures,
    bytes_text,
    rate_text,
    seconds_text,
    short_count,
    shown_panel,
)

MODEL = ModelInfo(
    id="falcon-mamba-7b",
    has_chat_template=True,
    num_parameters=7_272_665_088,
    state_bytes=36_700_160,
    kv_bytes_per_token=131_072,
    trained_context_tokens=8_192,
)
STATS = ServiceStats(status="ready", model=MODEL, process_memory_bytes=500_000_000)


def tiles(**known) -> dict[str, str]:
    """The figures by label."""
    shown = shown_panel(Figures(**{"stats": STATS, **known}))
    return {label: value for label, value, _ in shown["tiles"]}


def held(stats: ServiceStats) -> dict[str, str]:
    return dict(shown_panel(Figures(stats=stats))["memory"])


def test_figures_that_are_not_known_are_a_dash_and_never_zero():
    shown = tiles(stats=ServiceStats(status="ready"))
    assert set(shown.values()) == {UNKNOWN}
    assert len(shown) == 6


def test_known_figures_carry_their_units_and_say_what_they_mean():
    shown = tiles(prompt_tokens=12_345, reused_tokens=0, ttft_s=0.0421, tokens_per_s_now=123.4)
    assert shown["Speed now"] == "123 tok/s"
    assert shown["First token"] == "42 ms"
    assert shown["Read this turn"] == "12,345 tokens"
    assert shown["Remembered"] == "0 tokens"
    panel = shown_panel(Figures(stats=STATS))
    assert all(why for _, _, why in panel["tiles"])
    assert ["Parameters", "7.27B"] in panel["facts"]
    assert panel["stateBytes"] == 36_700_160


def test_the_panel_says_in_how_many_bytes_the_weights_are():
    model = replace(
        MODEL,
        dtype="bfloat16",
        quantization="nf4, double quantisation",
        weights_bytes=4_560_000_000,
    )
    stats = replace(STATS, model=model)
    facts = dict(shown_panel(Figures(stats=stats))["facts"])
    assert facts["Precision"] == "bfloat16, nf4, double quantisation"
    assert held(stats)["Weights"] == "4.56 GB"


def test_the_memory_of_the_process_is_told_with_all_that_is_in_it():
    stats = replace(
        STATS,
        model=replace(MODEL, weights_bytes=100_000_000, state_bytes=1_000_000),
        max_running=9,
        snapshots=20,
        snapshot_bytes=20_000_000,
        max_snapshot_bytes=2_000_000_000,
    )
    assert held(stats) == {
        "Process memory": "500 MB",
        "Weights": "100 MB",
        "States of 9 replies": "10 MB",
        "Restore points (20)": "20 MB of at most 2 GB",
        "Program and libraries": "370 MB",
        "Peak": UNKNOWN,
    }


def test_the_peak_is_never_below_what_is_used_now():
    stats = replace(STATS, process_memory_bytes=657_000_000, peak_process_memory_bytes=656_000_000)
    assert held(stats)["Peak"] == "657 MB"


def test_memory_on_a_gpu_is_the_gpu_s():
    stats = replace(STATS, gpu_memory_bytes=15_000_000_000, peak_gpu_memory_bytes=16_000_000_000)
    shown = held(stats)
    assert (shown["GPU memory"], shown["Peak"]) == ("15 GB", "16 GB")
    assert "Process memory" not in shown


def test_the_state_is_compared_with_attention_of_its_size_and_with_named_models():
    names = dict(shown_panel(Figures(stats=STATS))["rivals"])
    assert next(iter(names.values())) == MODEL.kv_bytes_per_token
    assert names["Llama 3.1 8B"] == 131_072


@pytest.mark.parametrize("model", [None, replace(MODEL, kv_bytes_per_token=0)])
def test_without_the_model_s_figures_nothing_is_compared(model):
    assert shown_panel(Figures(stats=replace(STATS, model=model)))["rivals"] == []


def test_the_panel_says_when_the_context_exceeds_the_training():
    within = shown_panel(Figures(stats=STATS, context_tokens=8_192))["note"]
    beyond = shown_panel(Figures(stats=STATS, context_tokens=8_193))["note"]
    assert "not perfect recall" in within["text"] and "isBeyond" not in within
    assert "Beyond its training" in beyond["text"] and beyond["isBeyond"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (bytes_text(999), "999 B"),
        (bytes_text(36_700_160), "36.7 MB"),
        (bytes_text(14.55e9), "14.6 GB"),
        (rate_text(7.25), "7.2"),
        (rate_text(450.4), "450"),
        (seconds_text(2.345), "2.3 s"),
        (short_count(512), "512"),
        (short_count(1_500), "1.5k"),
    ],
)
def test_figures_are_written_for_people(text, expected):
    assert text == expected
