"""What the Dockerfile and .dockerignore say, for the tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from docker.utils.build import exclude_paths
from dockerfile_parse import DockerfileParser

REPOSITORY = Path(__file__).parents[3]
Instructions = list[tuple[str, str]]


def instructions(repository: Path = REPOSITORY) -> Instructions:
    """Name and value of every instruction of the Dockerfile, lines joined, comments left out."""
    parser = DockerfileParser(path=str(repository / "Dockerfile"))
    pairs = [(line["instruction"], line["value"]) for line in parser.structure]
    return [pair for pair in pairs if pair[0] != "COMMENT"]


def last_value(pairs: Instructions, name: str) -> str:
    """The value of the last instruction of that name."""
    return next(value for instruction, value in reversed(pairs) if instruction == name)


def health_command(pairs: Instructions) -> list[str]:
    """The command of HEALTHCHECK, in exec form."""
    command: list[str] = json.loads(last_value(pairs, "HEALTHCHECK").partition("CMD")[2])
    return command


def copied(value: str) -> tuple[str | None, list[str], str]:
    """A COPY's stage (None is the build context), its sources and its target."""
    words = value.split()
    stage = next((word.partition("=")[2] for word in words if word.startswith("--from=")), None)
    *sources, target = [word for word in words if not word.startswith("--")]
    return stage, sources, target


def context_files(repository: Path = REPOSITORY) -> list[str]:
    """The files that .dockerignore lets into the build, by Docker's own rules."""
    lines = (repository / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    found = exclude_paths(str(repository), patterns, dockerfile="Dockerfile")
    return sorted(name for name in found if (repository / name).is_file())


def below(source: str, files: Sequence[str]) -> dict[str, str]:
    """Of `files` those that `COPY source` takes, with their paths below its target."""
    folder = source.rstrip("/") + "/"
    taken = {name: name.removeprefix(folder) for name in files if name.startswith(folder)}
    return {source: Path(source).name} if source in files else taken
