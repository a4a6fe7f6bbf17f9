"""Who may import whom. The layers are only worth something if nobody reaches around them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap

import pytest

from tests.support.architecture import (
    PACKAGE,
    ROOT,
    between_rooms,
    circles,
    dotted,
    floors,
    imported,
    imports_between,
    modules,
)

MAX_LINES = 320

STANDARD = frozenset(sys.stdlib_module_names)
VOCABULARY = {"protocol", "errors", "bundled", "inspection"}

PACKAGES = sorted(
    path.parent
    for path in (ROOT / PACKAGE).rglob("__init__.py")
    if path.parent != ROOT / PACKAGE and path.parent.name != "versions"
)
PACKAGES.append(ROOT / "benchmarks" / "lib")

# For each module or folder: our own modules it may import, and the packages from outside.
ALLOWED: dict[str, tuple[set[str], set[str]]] = {
    "protocol": ({"errors", "events", "forms", "inspection", "prompts", "ranges"}, set()),
    "inspection": (set(), set()),
    "ranges": ({"errors"}, set()),
    "events": (set(), set()),
    "forms": (set(), set()),
    "prompts": (set(), set()),
    "errors": (set(), set()),
    "metrics": ({"protocol"}, set()),
    "figures": ({"protocol", "errors", "service_wrapper", "traces"}, set()),
    "service_wrapper": ({"protocol"}, set()),
    "traces": ({"errors", "events", "logs"}, {"opentelemetry"}),
    "bundled": (set(), set()),
    "logs": ({"errors"}, set()),
    "temporary": ({"errors"}, set()),
    "thinning": (set(), set()),
    "data_folder": (set(), {"platformdirs"}),
    # Bytes and names: no torch, no HTTP.
    "state_store": ({"errors", "state_store", "thinning"}, {"obstore", "cryptography"}),
    "settings": ({"errors", "settings"}, set()),
    # Bytes with names: whoever asks, and for what, is said by the caller.
    "files": ({"errors", "files"}, set()),
    "people": ({"errors", "people"}, {"argon2"}),
    "commands": ({*VOCABULARY, "commands", "people", "settings"}, set()),
    "commands.chat": (
        {*VOCABULARY, "commands.chat", "settings"},
        {"httpx", "platformdirs", "prompt_toolkit", "rich"},
    ),
    # A service without a server.
    "commands.probe": ({*VOCABULARY, "lab", "service", "settings"}, set()),
    # It puts a server together, as the composition root does.
    "commands.chat.local": (
        {*VOCABULARY, "api", "keeping", "middleware", "service", "settings", "visitors"},
        {"uvicorn"},
    ),
    # It starts and feeds servers, and is none: no HTTP library, no torch.
    "listener": (set(), set()),
    "garbage": (set(), set()),
    "cluster": ({"cluster", "errors", "listener", "settings"}, set()),
    "web_server": (
        {"cluster", "errors", "listener", "middleware", "protocol", "settings", "ui"},
        {"fastapi", "uvicorn"},
    ),
    "tally": (set(), set()),
    "rates": ({"errors", "tally"}, set()),
    "visitors": ({"errors", "rates", "settings", "tally"}, set()),
    "shared_limits": ({"errors", "library", "tally"}, set()),
    "owners": ({"settings"}, set()),
    "keeping": ({"data_folder", "errors", "library", "owners", "settings"}, set()),
    "belongings": ({"errors", "owners"}, set()),
    "http": ({"errors", "http"}, {"fastapi", "starlette"}),
    # A state is a name here, and bytes elsewhere: no torch, no page, no HTTP.
    "library": ({"errors", "library", "protocol"}, {"sqlalchemy", "alembic"}),
    # Files as text, in a process of their own: no model, no page, no HTTP.
    "documents": ({"errors", "documents"}, {"charset_normalizer", "pypdf"}),
    "books": (
        {*VOCABULARY, "books", "documents.limits", "keeping", "library", "owners"},
        set(),
    ),
    # Measured through the service, like any reply: no page, no HTTP, no torch.
    "lab": ({*VOCABULARY, "books.standing", "lab", "metrics"}, set()),
    "middleware": (
        {
            *(*VOCABULARY, "http", "logs", "people", "rates", "settings", "tally", "traces"),
            *("middleware", "visitors"),
        },
        {"fastapi", "starlette", "uvicorn", "httptools"},
    ),
    "ui": (
        {
            *VOCABULARY,
            *("belongings", "books", "documents", "http", "keeping", "lab", "library", "metrics"),
            *("owners", "settings", "ui", "visitors"),
        },
        {"gradio", "fastapi", "starlette"},
    ),
    "api": (
        {
            *VOCABULARY,
            *("api", "books", "documents", "figures", "files", "http", "keeping", "library"),
            *("belongings", "metrics", "owners", "people", "rates", "settings", "visitors"),
        },
        {"fastapi", "starlette", "pydantic", "prometheus_client"},
    ),
    "text": ({*VOCABULARY, "text"}, {"tokenizers", "jinja2", "llguidance", "numpy"}),
    "ops": (
        {"errors", "ops", "temporary"},
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
        {*VOCABULARY, "checkpoint", "model", "ops"},
        {"torch", "transformers", "huggingface_hub", "httpx", "gguf", "numpy", "safetensors"},
    ),
    "engine": ({*VOCABULARY, "engine", "model", "ops", "thinning"}, {"torch", "safetensors"}),
    "service.remote": ({*VOCABULARY, "service.remote"}, {"httpx"}),
    "service.zero_gpu": (
        {
            *(*VOCABULARY, "settings", "service", "service_wrapper", "text", "engine"),
            *("checkpoint", "model"),
        },
        {"spaces", "gradio", "torch"},
    ),
    "service": (
        {
            *VOCABULARY,
            *("metrics", "settings", "service", "text", "engine", "checkpoint", "model", "ops"),
            *("state_store", "data_folder"),
        },
        {"torch", "psutil"},
    ),
}
# The composition root, which may import everything, and what starts it elsewhere.
ROOTS = ("server", "__main__", "offline", "ray_serve")


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
            is_ours = any(f"{target}.".startswith(f"{part}.") for part in ours)
            allowed = is_ours or target in ("", "__version__")
        else:
            allowed = name.split(".")[0] in STANDARD | others
        assert allowed, f"{module} imports {name}"


def test_nobody_imports_the_composition_root():
    for path in modules():
        if dotted(path) not in ROOTS:
            assert not imported(path) & {"app", f"{PACKAGE}.server"}, path


def test_the_page_and_the_api_come_without_torch():
    """In a fresh interpreter, and every module of theirs: a late import counts too."""
    layers = (
        "api",
        "books",
        "documents",
        "ui",
        "http",
        "lab",
        "library",
        "middleware",
        "settings",
        "service.remote",
    )
    names = [
        name for name in map(dotted, modules()) if name.startswith(tuple(f"{x}." for x in layers))
    ]
    names.remove("library.migrations.env")  # which alembic runs, and nobody can import
    code = f"""
        import importlib, sys
        for name in {names}:
            importlib.import_module("{PACKAGE}." + name)
            assert "torch" not in sys.modules, f"{{name}} pulls in torch"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, check=True)


def test_no_circle_of_imports_exists_between_modules_or_between_the_rooms_of_a_folder():
    imports = imports_between(modules())
    assert circles(imports) == []
    for folder in {name.rpartition(".")[0] for name in imports}:
        assert circles(between_rooms(imports, folder)) == [], folder


def test_a_circle_would_be_found_and_floors_are_counted():
    imports = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d.x": {"a"}, "d.y": {"d.x"}, "e": {"d.y"}}
    frozen = {name: frozenset(targets) for name, targets in imports.items()}
    assert circles(frozen) == [["b", "c"]]
    assert floors(frozen) == 5
    assert between_rooms(frozen, "d") == {"x": frozenset(), "y": {"x"}}
    assert between_rooms(frozen, "")["e"] == {"d"}


def test_the_benchmarks_library_knows_no_script():
    for path in modules(ROOT / "benchmarks" / "lib"):
        for name in imported(path):
            is_script = name.startswith("benchmarks.") and not name.startswith("benchmarks.lib")
            assert not is_script, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", [*modules(), ROOT / "app.py"], ids=lambda path: path.stem)
def test_a_file_is_short_enough_to_be_read(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_every_requirement_is_used_or_says_why_it_is_there():
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-train.txt"):
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            if line and not line.startswith(("#", "-r")):
                assert "  # " in line, f"{name}: {line!r} has no reason"
                assert ">=" in line, f"{name}: {line!r} has no tested range"


@pytest.mark.parametrize("folder", [PACKAGE, "benchmarks", "training", "tests"])
def test_every_package_opens_with_what_it_is(folder):
    for path in (ROOT / folder).rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.name)
def test_a_package_opens_with_the_name_of_each_of_its_parts(folder):
    """The steps of a migration are named by their numbers."""
    opening = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    parts = [path.stem for path in folder.glob("*.py") if path.stem != "__init__"]
    folders = [path.parent.name for path in folder.glob("*/__init__.py")]
    for name in (*parts, *folders):
        named = f"`{name}`" in opening or f"`{name}/`" in opening
        assert named, f"the docstring of {folder.name} does not name {name}"


def test_the_page_of_the_architecture_has_a_line_for_every_module_and_folder():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("## The folders")[2].partition("\n## ")[0]
    for path in (ROOT / PACKAGE).iterdir():
        if path.suffix == ".py" and path.stem != "__init__":
            assert f"`{path.name}`" in table, path.name
        elif (path / "__init__.py").is_file():
            assert f"| `{path.name}/` |" in table, path.name


def test_the_drawing_of_a_requests_way_names_modules_that_exist():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawing = page.partition("```\n")[2].partition("```")[0]
    named = re.findall(r"\b([a-z_]+\.[a-z_]+)\b(?!\()", drawing)
    assert len(named) >= 6
    for name in named:
        path = (ROOT / PACKAGE).joinpath(*name.split("."))
        assert path.is_dir() or path.with_suffix(".py").is_file(), name


def test_the_page_of_the_architecture_says_who_may_import_whom_as_it_is_held_here():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rules = re.findall(r"^([a-z_.]+) +──► ([^;\n]+)", page.partition("## Who may")[2], re.MULTILINE)
    assert len(rules) > 10
    for module, told in rules:
        if module == "server":
            continue
        ours = {name for name in ALLOWED[module][0] - VOCABULARY if name != module}
        assert ours == set(told.split(", ")) - {"nothing of ours"}, module


@pytest.mark.parametrize("name", ["top_n_sigma", "xtc_probability"])
def test_a_sampling_filter_stands_in_six_files_of_the_product_at_most(name):
    """typical_p is in two more: transformers' generation_config has it too."""
    files = [path for path in modules() if re.search(rf"\b{name}\b", path.read_text("utf-8"))]
    assert 0 < len(files) <= 6, files
