"""Who may import whom. The layers are only worth something if nobody reaches around them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "falcon_mamba_app"
MAX_LINES = 320

STANDARD = frozenset(sys.stdlib_module_names)
VOCABULARY = {"protocol", "errors", "bundled"}

# For each module or folder: our own modules it may import, and the packages from outside.
ALLOWED: dict[str, tuple[set[str], set[str]]] = {
    "protocol": ({"errors", "prompts"}, set()),
    "prompts": (set(), set()),
    "errors": (set(), set()),
    "metrics": (set(), set()),
    "bundled": (set(), set()),
    "logs": ({"errors"}, set()),
    "settings": ({"errors", "settings"}, set()),
    "visitors": ({"errors", "settings"}, set()),
    "http": ({"errors", "http"}, {"fastapi", "starlette"}),
    "middleware": (
        {*VOCABULARY, "http", "settings", "visitors", "middleware"},
        {"fastapi", "starlette", "uvicorn", "h11"},
    ),
    "ui": (
        {*VOCABULARY, "metrics", "settings", "ui", "visitors"},
        {"gradio", "fastapi", "starlette"},
    ),
    "api": (
        {*VOCABULARY, "http", "metrics", "settings", "api", "visitors"},
        {"fastapi", "starlette", "pydantic", "prometheus_client"},
    ),
    "text": ({*VOCABULARY, "text"}, {"tokenizers", "jinja2"}),
    "ops": (
        {"errors", "ops"},
        {
            "torch",
            "triton",
            "numba",
            "llvmlite",
            "numpy",
            "bitsandbytes",
            "mamba_ssm",
            "causal_conv1d",
            "selective_scan_cuda",
        },
    ),
    "model": ({*VOCABULARY, "model", "ops"}, {"torch"}),
    "checkpoint": (
        {*VOCABULARY, "settings", "checkpoint", "model", "ops", "engine"},
        {"torch", "transformers", "huggingface_hub", "httpx"},
    ),
    "engine": ({*VOCABULARY, "engine", "model", "ops"}, {"torch", "safetensors"}),
    "service.remote": ({*VOCABULARY, "service.remote"}, {"httpx"}),
    "service.zero_gpu": (
        {*VOCABULARY, "settings", "service", "engine", "checkpoint", "model"},
        {"spaces", "gradio", "torch"},
    ),
    "service": (
        {
            *VOCABULARY,
            *("metrics", "settings", "service", "text", "engine", "checkpoint", "model", "ops"),
        },
        {"torch", "psutil"},
    ),
}
ROOTS = ("server", "__main__")  # the composition root, which may import everything


def modules() -> list[Path]:
    return sorted((ROOT / PACKAGE).rglob("*.py"))


def dotted(path: Path) -> str:
    """The module's name within the package: "engine.engine", "ui" for ui/__init__.py."""
    parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            names.add(node.module or "")
    return names


def rule_for(module: str) -> tuple[set[str], set[str]]:
    candidates = [name for name in ALLOWED if f"{module}.".startswith(f"{name}.")]
    return ALLOWED[max(candidates, key=len)]


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_a_module_imports_only_what_its_layer_may(path):
    module = dotted(path)
    if module in ("", *ROOTS):
        return
    ours, others = rule_for(module)
    for name in imported(path):
        if name == PACKAGE or name.startswith(f"{PACKAGE}."):
            target = name.removeprefix(PACKAGE).lstrip(".")
            allowed = not target or any(f"{target}.".startswith(f"{part}.") for part in ours)
        else:
            allowed = name.split(".")[0] in STANDARD | others
        assert allowed, f"{module} imports {name}"


def test_nobody_imports_the_composition_root():
    for path in modules():
        if dotted(path) not in ROOTS:
            assert not imported(path) & {"app", f"{PACKAGE}.server"}, path


@pytest.mark.parametrize("layer", ["api.routes", "ui.page", "service.remote.service", "settings"])
def test_the_page_and_the_api_come_without_torch(layer):
    code = f"import sys, {PACKAGE}.{layer}; sys.exit('torch' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert finished.returncode == 0, f"{layer} pulls in torch"


@pytest.mark.parametrize("path", [*modules(), ROOT / "app.py"], ids=lambda path: path.stem)
def test_a_file_is_short_enough_to_be_read(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_every_requirement_is_used_or_says_why_it_is_there():
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-train.txt"):
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            if line and not line.startswith(("#", "-r")):
                assert "  # " in line, f"{name}: {line!r} has no reason"
                assert ">=" in line, f"{name}: {line!r} has no tested range"
