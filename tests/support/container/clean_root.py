"""Builds and runs the container's file system without Docker: in a clean Debian root.

    sudo python -m tests.support.container.clean_root --build-arg DEVICE=cpu

Needs Linux, root, mmdebstrap, curl, and the package indexes of Debian and Python; takes minutes, so
pytest does not run it. The steps come out of the Dockerfile, the files through .dockerignore. The
app then runs as the image's user, as process 1, in namespaces of its own and without a network.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.support.container.dockerfile import (
    REPOSITORY,
    Instructions,
    below,
    context_files,
    copied,
    instructions,
)
from tests.support.container.running import check_running

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Stage:
    """A stage of the build: its root, and what its instructions have set so far."""

    root: Path
    variables: dict[str, str] = field(default_factory=lambda: {"PATH": SYSTEM_PATH})
    arguments: dict[str, str] = field(default_factory=dict)
    user: str = "0"
    folder: str = "/"

    def command(self, argv: Sequence[str]) -> list[str]:
        """`argv` in the root, as the container's user and with nothing but its variables."""
        settings = [f"{k}={v}" for k, v in {**self.arguments, **self.variables}.items()]
        inner = f"cd {shlex.quote(self.folder)} && exec {shlex.join(argv)}"
        return [
            *("chroot", f"--userspec={self.user}:{self.user}", str(self.root)),
            *("/usr/bin/env", "-i", *settings, "/bin/sh", "-c", inner),
        ]


def build(pairs: Instructions, work: Path, build_args: dict[str, str]) -> Stage:
    """The file system that the instructions make, below `work`."""
    stages: dict[str, Stage] = {}
    files = context_files()
    defaults: dict[str, str] = {}  # of the arguments before the first FROM
    stage: Stage | None = None
    for name, value in pairs:
        print(f"{name} {' '.join(value.split())[:100]}", flush=True)
        if name == "ARG":
            key, _, default = value.partition("=")
            text = build_args.get(key, defaults.get(key, default.strip('"')))
            (defaults if stage is None else stage.arguments)[key] = text
        elif name == "FROM":
            image, _, label = value.partition(" AS ")
            image = defaults[image.strip("${}")] if image.startswith("$") else image
            stage = stages[label] = Stage(work / (label or "image"))
            _make_debian(image, stage.root, work)
        else:
            assert stage is not None, f"{name} before FROM"
            stage = _apply(name, value, stage, stages, files)
    assert stage is not None
    return stage


def _apply(
    name: str, value: str, stage: Stage, stages: dict[str, Stage], files: list[str]
) -> Stage:
    """The stage after one instruction; those that only describe the image change nothing."""
    match name:
        case "ENV":
            for assignment in shlex.split(value):
                key, _, text = assignment.partition("=")
                stage.variables[key] = text.replace("$PATH", stage.variables["PATH"])
        case "USER":
            return replace(stage, user=value)
        case "WORKDIR":
            (stage.root / value[1:]).mkdir(parents=True, exist_ok=True)
            return replace(stage, folder=value)
        case "RUN":
            with _way_to_the_packages(stage) as connected:
                inner = connected.command(["/bin/sh", "-eu", "-c", value])
                proc = f"--mount-proc={stage.root}/proc"
                subprocess.run(["unshare", "--pid", "--fork", proc, *inner], check=True)
        case "COPY":
            _copy(value, stage, stages, files)
        case "SHELL" | "EXPOSE" | "HEALTHCHECK" | "ENTRYPOINT":
            pass
        case _:
            raise NotImplementedError(f"{name} is not known here")
    return stage


def _copy(value: str, stage: Stage, stages: dict[str, Stage], files: list[str]) -> None:
    origin, sources, target = copied(value)
    into = stage.root / os.path.join(stage.folder, target)[1:]
    for source in sources:
        if origin is not None:
            subprocess.run(["cp", "-a", f"{stages[origin].root}{source}", str(into)], check=True)
            continue
        taken = below(source, files)
        assert taken, f"COPY {source}: it is not in the build context"
        for name, relative in taken.items():
            (into / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, into / relative)


def _make_debian(image: str, root: Path, work: Path) -> None:
    """A minimal Debian as the image of that name is, less than which it has nothing."""
    distribution, _, tag = image.partition(":")
    assert distribution == "debian", f"{image} is no Debian; it cannot be made here"
    suite = tag.removesuffix("-slim")
    archive = work / f"{suite}.tar"
    if not archive.exists():
        subprocess.run(["mmdebstrap", "--variant=minbase", suite, str(archive)], check=True)
    root.mkdir()
    subprocess.run(["tar", "xf", str(archive), "-C", str(root)], check=True)


@contextmanager
def _way_to_the_packages(stage: Stage) -> Iterator[Stage]:
    """The stage with this machine's names, certificate and wheels, which leave no trace."""
    arguments, guests = dict(stage.arguments), stage.root / "host"
    guests.mkdir()
    shutil.copy("/etc/resolv.conf", stage.root / "etc/resolv.conf")
    if certificate := os.environ.get("PIP_CERT"):
        shutil.copy(certificate, guests / "ca.crt")
        arguments["PIP_CERT"] = "/host/ca.crt"
    if wheels := os.environ.get("PIP_FIND_LINKS"):
        shutil.copytree(wheels, guests / "wheels")
        arguments["PIP_FIND_LINKS"] = "/host/wheels"
    try:
        yield replace(stage, arguments=arguments)
    finally:
        shutil.rmtree(guests)


def main() -> None:
    parser = argparse.ArgumentParser(description="The Dockerfile's steps in a clean Debian root.")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--work", type=Path, help="keep everything here")
    options = parser.parse_args()
    assert os.geteuid() == 0, "chroot needs root"
    build_args = dict(given.split("=", 1) for given in options.build_arg)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        work = options.work or Path(temporary)
        pairs = instructions()
        stage = build(pairs, work, build_args)
        _print_sizes(stage.root)
        entrypoint = json.loads(next(v for n, v in reversed(pairs) if n == "ENTRYPOINT"))
        check_running(replace(stage, arguments={}), entrypoint, pairs)


def _print_sizes(root: Path) -> None:
    """Packages that apt has kept do not count: in Docker's Debian it keeps none."""
    measure = ["du", "-sk", f"--exclude={root}/var/cache/apt"]
    for place in (".", "opt/venv", "usr", "home/user/app"):
        kib = int(subprocess.check_output([*measure, str(root / place)], text=True).split()[0])
        print(f"{place:14} {kib / 1024:8,.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
