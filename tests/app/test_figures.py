"""What /metrics tells of replies, and that the operator's files ask for what it tells."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from contextlib import aclosing
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from falcon_mamba_app.api.routes import create_api
from falcon_mamba_app.errors import EngineFailure
from falcon_mamba_app.figures import CANCELLED, FiguredService, Figures, Histogram
from falcon_mamba_app.protocol import GenerationRequest, Text
from tests.support.api_fixtures import USER, in_process
from tests.support.echo_service import EchoService
from tests.support.web_fixtures import ELSEWHERE, whole_app

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations"
KEYS = ("key-of-anna", "key-of-tom")


@pytest.fixture
async def service():
    service = FiguredService(EchoService(), Figures())
    await service.start()
    return service


async def write(service, text: str, num_events: int | None = None) -> None:
    async with aclosing(service.generate(GenerationRequest(prompt=Text(text)))) as events:
        number = 0
        async for _ in events:
            number += 1
            if number == num_events:
                return


def test_a_histogram_counts_up_to_each_bound_and_above():
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 7.0):
        histogram.observe(value)
    assert histogram.cumulative() == [("1", 2), ("2", 3), ("+Inf", 4)]
    assert histogram.total == 10.0


async def test_replies_are_counted_by_how_they_end(service):
    figures = service._figures
    await write(service, "a")
    await write(service, "SLOW", num_events=1)
    with pytest.raises(EngineFailure):
        await write(service, "BREAK")
    assert figures.ended == {"stop": 1, CANCELLED: 1, "engine_failure": 1}
    assert figures.reply_tokens.cumulative()[-1] == ("+Inf", 1)
    assert figures.ttft_s.cumulative()[-1][1] == 2
    assert figures.itl_s.cumulative()[-1][1] == 2 + 1


async def families(client) -> dict:
    text = (await client.get("/metrics", headers=auth(0))).text
    return {family.name: family for family in text_string_to_metric_families(text)}


def auth(place: int) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[place]}"}


async def test_metrics_tell_histograms_errors_and_what_each_key_used(service):
    api = create_api(service, api_keys=KEYS, figures=service._figures)
    async with in_process(api) as client:
        body = {"messages": [USER]}
        for place in (0, 1, 1):
            await client.post("/v1/chat/completions", json=body, headers=auth(place))
        await client.post("/v1/chat/completions", json={"odd": 1}, headers=auth(0))
        await client.get("/v1/models")
        told = await families(client)
    used = {
        (s.labels["key"], s.labels["kind"]): s.value
        for s in told["falcon_mamba_key_tokens"].samples
    }
    assert used == {
        ("1", "prompt"): 2,
        ("1", "completion"): 4,
        ("2", "prompt"): 4,
        ("2", "completion"): 8,
    }
    errors = {s.labels["code"]: s.value for s in told["falcon_mamba_api_errors"].samples}
    assert errors == {"invalid_request": 1, "invalid_api_key": 1}
    assert told["falcon_mamba_time_to_first_token_seconds"].type == "histogram"
    assert not any(key in str(told) for key in KEYS)


async def test_what_any_layer_refuses_is_told_by_surface_and_status():
    """Only the API's own errors were counted: a flood that the limits refuse was not seen."""
    options = ("--api-key", KEYS[0], "--visitor-requests-per-minute", "4")
    service = EchoService()
    await service.start()
    app = whole_app(*options, service=service)
    async with in_process(app, client=(ELSEWHERE, 1)) as client:
        statuses = [(await client.get(path)).status_code for path in ("/v1/models", "/")]
        for _ in range(5):
            statuses.append((await client.get("/v1/models", headers=auth(0))).status_code)
    async with in_process(app) as client:  # from this machine, which has no limits
        told = (await families(client))["falcon_mamba_refused_requests"].samples
    found = {(s.labels["surface"], int(s.labels["status"])): s.value for s in told}
    assert found["api", 429] == statuses.count(429) > 0
    assert found["api", 401] == 1
    assert sum(found.values()) == sum(status >= 400 for status in statuses)


def dashboard_expressions() -> list[str]:
    panels = json.loads((OPERATIONS / "grafana-dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    return [target["expr"] for panel in panels for target in panel["targets"]]


def alert_expressions() -> list[str]:
    groups = yaml.safe_load((OPERATIONS / "alert-rules.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert all({"alert", "expr", "for", "labels", "annotations"} <= rule.keys() for rule in rules)
    return [rule["expr"] for rule in rules]


def test_promtool_accepts_the_alerts():
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool, of Debian's package prometheus; the next test parses them")
    rules = str(OPERATIONS / "alert-rules.yml")
    checked = subprocess.run([promtool, "check", "rules", rules], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


async def test_the_dashboard_and_the_alerts_ask_for_what_is_told(service):
    api = create_api(service, api_keys=KEYS, figures=service._figures)
    async with in_process(api) as client:
        text = (await client.get("/metrics", headers=auth(0))).text
    told = set(re.findall(r"^# TYPE (falcon_mamba_\w+)", text, re.MULTILINE))
    told |= {name + end for name in told for end in ("_bucket", "_sum", "_count", "_total")}
    told.add("falcon_mamba_gpu_memory_bytes")  # where there is one
    expressions = [*dashboard_expressions(), *alert_expressions()]
    for expression in expressions:
        for opening, closing in ("()", "{}", "[]"):
            assert expression.count(opening) == expression.count(closing), expression
    asked = {name for e in expressions for name in re.findall(r"falcon_mamba_\w+", e)}
    assert asked - told == set()
