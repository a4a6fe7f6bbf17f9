"""What is committed for Ray Serve fits the app, whether Ray is installed or not."""

from __future__ import annotations

import ast
import shlex
from pathlib import Path

import pytest
import yaml

from falcon_mamba_app.settings import load_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "ray"
SECRET = {"FALCON_MAMBA_SESSION_SECRET": "a secret of the operator's", "FALCON_MAMBA_REPLICA": "a"}


def applications(name: str) -> list[dict]:
    whole = yaml.safe_load((DEPLOY / name).read_text("utf-8"))
    if name == "kuberay.yaml":
        whole = yaml.safe_load(whole["spec"]["serveConfigV2"])
    return whole["applications"]


@pytest.mark.parametrize("name", ["serve.yaml", "kuberay.yaml"])
def test_the_configuration_names_what_is_there_and_options_that_the_app_takes(name):
    (application,) = applications(name)
    module, _, function = application["import_path"].partition(":")
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text("utf-8"))
    named = {one.name: one for one in tree.body if hasattr(one, "name")}
    assert function in named
    known = {one.target.id for one in named["Arguments"].body if isinstance(one, ast.AnnAssign)}
    assert application["args"].keys() <= known
    settings = load_settings(shlex.split(application["args"]["options"]), SECRET)
    assert settings.model.model == "falcon-mamba-7b-instruct" and settings.keeps_states


def test_a_pod_of_ray_has_a_gpu_and_longer_to_end_than_a_replica_takes():
    spec = yaml.safe_load((DEPLOY / "kuberay.yaml").read_text("utf-8"))["spec"]
    (workers,) = spec["rayClusterConfig"]["workerGroupSpecs"]
    pod = workers["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 1}
    assert pod["terminationGracePeriodSeconds"] >= 150
    secrets = {one["name"] for one in pod["containers"][0]["env"]}
    assert "FALCON_MAMBA_SESSION_SECRET" in secrets
