"""What `pip install .` gives: the package, its files, its extras, its command."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from falcon_mamba_app import __version__

ROOT = Path(__file__).parents[2]
# Extra of the package → the files whose lines it has.
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"][
    "metadata"
]["hooks"]["requirements_txt"]["optional-dependencies"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as file:
        yield file


def metadata(wheel: zipfile.ZipFile) -> Message:
    return message_from_bytes(wheel.read(f"falcon_mamba_app-{__version__}.dist-info/METADATA"))


def plain(requirement: Requirement) -> str:
    """Name, extras and range, whatever form the name has and whoever asks for it."""
    return f"{canonicalize_name(requirement.name)}{requirement.extras or ''}{requirement.specifier}"


def required(name: str) -> set[str]:
    """The requirements that stand in a file itself, not in those it includes."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return {plain(Requirement(line)) for line in lines if line and not line.startswith("-")}


def test_the_package_needs_what_the_requirements_files_say(wheel):
    needed = [Requirement(line) for line in metadata(wheel).get_all("Requires-Dist", [])]
    always = {plain(one) for one in needed if one.marker is None}
    assert always == required("requirements.txt")
    for extra, names in EXTRAS.items():
        asked_for = {plain(one) for one in needed if f'extra == "{extra}"' in str(one.marker)}
        assert asked_for == set().union(*map(required, names)), extra


def test_every_requirements_file_is_the_packages_or_an_extras():
    """pre-requirements.txt is the Space's; a new file would else be nobody's."""
    files = {path.name for path in ROOT.glob("requirements*.txt")}
    assert files == {"requirements.txt"}.union(*EXTRAS.values())


def test_the_package_brings_the_page_the_model_and_its_types(wheel):
    names = set(wheel.namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "assets", "falcon_mamba_app"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    expected = {
        f"falcon_mamba_app/{name}" if name.startswith("assets/") else name for name in tracked
    }
    assert expected <= names
    assert "falcon_mamba_app/py.typed" in names
    assert f"falcon_mamba_app-{__version__}.dist-info/licenses/LICENSE" in names


def test_an_installed_package_finds_its_files_and_says_its_version(wheel, tmp_path):
    wheel.extractall(tmp_path)
    code = (
        "from falcon_mamba_app.bundled import ASSETS; print(ASSETS);"
        "from falcon_mamba_app.server import main; main()"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code, "--version"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert finished.stdout.split() == [
        str(tmp_path / "falcon_mamba_app" / "assets"),
        "falcon-mamba",
        __version__,
    ]


def test_the_command_is_the_server(wheel):
    entry_points = wheel.read(f"falcon_mamba_app-{__version__}.dist-info/entry_points.txt")
    assert b"falcon-mamba = falcon_mamba_app.server:main" in entry_points


def test_the_module_starts_the_server_too():
    finished = subprocess.run(
        [sys.executable, "-m", "falcon_mamba_app", "--version"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert finished.stdout == f"falcon-mamba {__version__}\n"
