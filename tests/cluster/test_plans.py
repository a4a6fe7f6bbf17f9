"""How many copies a machine gets, and which combinations of settings are refused."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from falcon_mamba_app.cluster import plans
from falcon_mamba_app.cluster.plans import plan_copies, visible_gpus
from falcon_mamba_app.errors import SettingsError
from falcon_mamba_app.settings import load_settings

DEPLOY = Path(__file__).parents[2] / "deploy"
PROGRAMS = f"{os.environ['PATH']}:/usr/sbin"
SECRET = "--session-secret=sixteen-characters-or-more"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--replica", "a1"], "needs a --session-secret"),
        (["--replica", "A 1", SECRET], "is no name"),
        (["--replica", "a1", SECRET, "--replicas", "2"], "names one copy"),
        (["--replicas", "2", "--share"], "--share"),
        (["--replicas", "0"], "at least 1"),
        (["--replicas", "many"], "no whole number"),
    ],
)
def test_copies_that_could_not_work_together_are_refused(argv, words):
    with pytest.raises(SettingsError, match=words):
        load_settings(argv, {})


@pytest.mark.parametrize(
    ("variable", "gpus"),
    [
        ("0,1", ["0", "1"]),
        ("3", ["3"]),
        ("", []),
        ("-1", []),
        ("0,-1,1", ["0"]),
        ("GPU-a,", ["GPU-a"]),
    ],
)
def test_the_gpus_are_those_that_cuda_would_see(variable, gpus):
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": variable}) == gpus


def test_each_gpu_gets_one_copy():
    settings = load_settings(["--replicas", "auto"], {})
    copies = plan_copies(settings, {"CUDA_VISIBLE_DEVICES": "4,7"})
    assert [copy.arguments for copy in copies] == [("--replica=1",), ("--replica=2",)]
    assert [copy.environment["CUDA_VISIBLE_DEVICES"] for copy in copies] == ["4", "7"]


def test_more_copies_than_gpus_are_refused_and_fewer_are_not():
    settings = load_settings(["--replicas", "3"], {})
    with pytest.raises(SettingsError, match="has 2 GPUs"):
        plan_copies(settings, {"CUDA_VISIBLE_DEVICES": "0,1"})
    assert len(plan_copies(settings, {"CUDA_VISIBLE_DEVICES": "0,1,2,3"})) == 3


def test_copies_on_a_cpu_divide_its_cores(monkeypatch):
    monkeypatch.setattr(plans, "num_cores", lambda: 8)
    settings = load_settings(["--replicas", "3", "--device", "cpu"], {})
    copies = plan_copies(settings, {})
    assert [copy.arguments for copy in copies] == [(f"--replica={n}", "--threads=2") for n in "123"]
    settings = load_settings(["--replicas", "2", "--device", "cpu", "--threads", "8"], {})
    assert all("--threads" not in copy.arguments[-1] for copy in plan_copies(settings, {}))


@pytest.mark.parametrize("name", ["nginx.conf", "ray/nginx.conf"])
def test_nginx_takes_the_committed_configuration(tmp_path, name):
    program = shutil.which("nginx", path=PROGRAMS)
    if program is None:
        pytest.skip("nginx is not installed (apt-get install nginx-light)")
    text = (DEPLOY / name).read_text("utf-8")
    written = tmp_path / "nginx.conf"
    written.write_text(f"pid {tmp_path}/pid; error_log {tmp_path}/log;\n{text}")
    command = [program, "-t", "-c", str(written), "-p", str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True)
    assert "test is successful" in told.stderr, told.stderr


def test_a_pod_has_longer_to_end_than_its_copy_drains_and_every_setting_exists():
    objects = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text("utf-8")))
    assert [one["kind"] for one in objects] == ["StatefulSet", "Service", "Ingress", "Ingress"]
    pod = objects[0]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    variables = {one["name"]: "10.0.0.0/8" for one in container["env"]}
    variables |= {"FALCON_MAMBA_REPLICA": "0", "FALCON_MAMBA_SESSION_SECRET": SECRET}
    variables["FALCON_MAMBA_DATABASE_URL"] = "postgresql://a/b"
    settings = load_settings(container["args"], variables)
    assert settings.cluster.drain_s + 20 <= pod["terminationGracePeriodSeconds"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
