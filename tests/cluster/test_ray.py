"""Two replicas under Ray Serve: a session stays at one, goes on with its state, and streams.

Ray takes a minute to start on two busy cores, and does not always: it gets a second try.
"""

from __future__ import annotations

import socket
import warnings
from collections.abc import Iterator

import httpx
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own
    ray = pytest.importorskip("ray", reason="Ray is not installed (pip install '.[ray]')")
    from ray import serve

    from falcon_mamba_app.ray_serve import PLACES, ROWS, Arguments, app, replicas_for_rows

STORY = "Tell me a long story about a fox who wants to read a book, and the river behind the house."

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    data = tmp_path_factory.mktemp("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"FALCON_MAMBA_SESSION_SECRET": "the secret of all replicas"}
    options = (
        f"--model=nano --device=cpu --keep-conversations=auto --data-dir={data}"
        f" --state-store={data / 'states'} --state-idle-s=1"
    )
    with pytest.MonkeyPatch.context() as environment:
        for name, value in variables.items():
            environment.setenv(name, value)
        for is_last in (False, True):
            try:
                ray.init(
                    num_cpus=4,  # as Ray counts them: replicas, proxy and controller
                    include_dashboard=False,
                    object_store_memory=80 * 2**20,
                    runtime_env={"env_vars": variables},
                )
                break
            except Exception:
                ray.shutdown()
                if is_last:
                    raise
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(app(Arguments(options=options, gpus=0, cpus=0.5, min_replicas=2)))
        yield f"http://127.0.0.1:{port}"
        serve.shutdown()
        ray.shutdown()


def test_sessions_stay_at_their_replica_go_on_with_their_state_and_stream(url):
    with httpx.Client(base_url=url, timeout=300) as http:
        assert http.get("/health").json()["status"] == "ready"
        homes = set()
        for number in range(8):
            headers = {"x-session-id": f"session {number}"}
            first = http.post(
                "/v1/responses",
                json={"input": STORY, "max_output_tokens": 2, "temperature": 0},
                headers=headers,
            ).json()
            again = {"input": "And then?", "previous_response_id": first["id"], "temperature": 0}
            second = http.post(
                "/v1/responses", json={**again, "max_output_tokens": 2}, headers=headers
            ).json()
            homes.add(first["id"].rpartition("-")[2])
            assert second["id"].rpartition("-")[2] == first["id"].rpartition("-")[2]
            assert second["usage"]["input_tokens_details"]["cached_tokens"] > 20
        assert len(homes) == 2
        body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "stream": True}
        with http.stream("POST", "/v1/chat/completions", json=body) as stream:
            lines = [line for line in stream.iter_lines() if line.startswith("data: ")]
        assert len(lines) > 3 and lines[-1] == "data: [DONE]"


class Context:
    capacity_adjusted_min_replicas, capacity_adjusted_max_replicas = 1, 4

    def __init__(self, rows: list[float], places: float = 32) -> None:
        self.current_num_replicas = len(rows)
        self.aggregated_metrics = {
            ROWS: dict(enumerate(rows)),
            PLACES: dict.fromkeys(range(len(rows)), places),
        }


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([0], 1),
        ([20], 1),
        ([30], 2),
        ([200, 200], 4),
        ([20, 20], 2),
        ([8, 4], 2),
        ([2, 2], 1),
        ([0, 0, 0, 0], 3),  # one at a time
    ],
)
def test_replicas_follow_the_rows_that_run_and_wait(rows, wanted):
    assert replicas_for_rows(Context(rows))[0] == wanted


def test_replicas_that_have_told_nothing_yet_stay():
    context = Context([0, 0])
    context.aggregated_metrics = {}
    assert replicas_for_rows(context)[0] == 2
