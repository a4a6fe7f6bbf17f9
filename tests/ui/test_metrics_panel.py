import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from falcon_mamba_app.protocol import ModelInfo, ServiceStats
from falcon_mamba_app.ui.view.metrics_panel import (
    UNKNOWN,
    Figures,
    bytes_text,
    nice_ceiling,
    rate_text,
    render_chart,
    render_panel,
    seconds_text,
    short_count,
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


def tiles(html: str) -> dict[str, str]:
    """The figures by label, without markup."""
    found = re.findall(r'<div class="tile[^"]*"><dt>(.*?)</dt><dd>(.*?)</dd>', html)
    return {label: re.sub("<[^>]*>", "", value).strip() for label, value in found}


def test_figures_that_are_not_known_are_a_dash_and_never_zero():
    shown = tiles(render_panel(Figures(stats=ServiceStats(status="ready"))))
    assert set(shown.values()) == {UNKNOWN}
    assert len(shown) == 9


def test_known_figures_carry_their_units():
    figures = Figures(
        stats=STATS, context_tokens=12_345, reused_tokens=0, ttft_s=0.0421, tokens_per_s_now=123.4
    )
    shown = tiles(render_panel(figures))
    assert shown["Speed now"] == "123 tok/s"
    assert shown["First token"] == "42 ms"
    assert shown["Context"] == "12,345 tok"
    assert shown["Reused"] == "0 tok"
    assert shown["State, constant"] == "36.7 MB"
    assert shown["Process memory"] == "500 MB"
    assert "7.27B" in render_panel(figures)


def test_the_panel_says_what_is_loaded_and_in_how_many_bytes():
    model = replace(
        MODEL,
        dtype="bfloat16",
        quantization="nf4, double quantisation",
        weights_bytes=4_560_000_000,
    )
    shown = render_panel(Figures(stats=replace(STATS, model=model)))
    facts = dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", shown))
    assert facts["Precision"] == "bfloat16, nf4, double quantisation"
    assert facts["Weights"] == "4.56 GB"


def test_the_peak_is_never_below_what_is_used_now():
    stats = replace(STATS, process_memory_bytes=657_000_000, peak_process_memory_bytes=656_000_000)
    assert tiles(render_panel(Figures(stats=stats)))["Peak memory"] == "657 MB"


@pytest.mark.parametrize(("tokens", "anchor"), [(100, "end"), (60_000, "start")])
def test_the_mark_of_the_training_stays_inside_the_chart(tokens, anchor):
    drawn = render_chart(replace(MODEL, trained_context_tokens=500), tokens)
    x, shown_anchor = re.search(
        r'<text x="([\d.]+)" y="18" text-anchor="(\w+)">trained', drawn
    ).groups()
    assert shown_anchor == anchor
    assert (float(x) > 45) if anchor == "end" else (float(x) < 275)


def test_memory_on_a_gpu_is_the_gpu_s():
    stats = replace(STATS, gpu_memory_bytes=15_000_000_000, peak_gpu_memory_bytes=16_000_000_000)
    shown = tiles(render_panel(Figures(stats=stats)))
    assert (shown["GPU memory"], shown["Peak memory"]) == ("15 GB", "16 GB")
    assert "Process memory" not in shown


def lines(html: str) -> dict[str, dict[str, str]]:
    svg = ElementTree.fromstring(html[html.index("<svg") : html.index("</svg>") + 6])
    return {line.get("class"): line.attrib for line in svg.iter("line")}


@pytest.mark.parametrize("tokens", [0, 100, 5_000, 1_000_000])
def test_the_chart_s_state_is_flat_and_its_computed_cache_grows(tokens):
    drawn = lines(render_chart(MODEL, tokens))
    assert drawn["state"]["y1"] == drawn["state"]["y2"]
    assert float(drawn["kv ahead"]["y2"]) < float(drawn["kv"]["y1"])
    assert float(drawn["kv"]["x2"]) == float(drawn["now"]["x1"]) <= 320


def test_the_chart_says_its_figures_in_words_and_calls_the_cache_computed():
    html = render_chart(MODEL, 10_000)
    assert 'role="img"' in html
    assert "<title>" in html
    assert "computed KV cache of an attention model of the same size 1.31 GB" in html


def test_without_the_model_s_figures_there_is_no_chart():
    assert render_chart(replace(MODEL, kv_bytes_per_token=None), 10) == ""
    assert render_chart(replace(MODEL, kv_bytes_per_token=0), 10) == ""
    assert render_chart(None, 10) == ""


def test_the_panel_says_when_the_context_exceeds_the_training():
    within = render_panel(Figures(stats=STATS, context_tokens=8_192))
    beyond = render_panel(Figures(stats=STATS, context_tokens=8_193))
    assert "not perfect recall" in within
    assert "Beyond its training" not in within
    assert "Beyond its training" in beyond


def test_a_model_s_name_cannot_bring_markup():
    stats = replace(STATS, model=replace(MODEL, id="<script>alert(1)</script>"))
    assert "<script>" not in render_panel(Figures(stats=stats))


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
        (nice_ceiling(1_100), 1_500),
        (nice_ceiling(1_000), 1_000),
        (nice_ceiling(9_999), 10_000),
    ],
)
def test_figures_are_written_for_people(text, expected):
    assert text == expected
