"""A PostgreSQL server of the tests' own, in a folder of its own, reached through a socket there.

Debian keeps its programs outside of the path; the server refuses to run as root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_S = 60.0


def find(program: str) -> str | None:
    """The path of one of PostgreSQL's programs, of the newest version that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    return str(found[-1]) if found else shutil.which(program)


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """The URL of a server that lives as long as the block; `folder` must not exist yet."""
    folder.mkdir(mode=0o755)
    user = "nobody" if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
    data, log = folder / "data", folder / "log"
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    subprocess.run(
        [find("initdb") or "initdb", "-D", str(data), "-U", "tests", "-A", "trust", "-E", "UTF8"]
        + ["--no-sync", "--no-instructions"],
        cwd=folder,
        env=environment,
        user=user,
        check=True,
        capture_output=True,
    )
    with log.open("wb") as output:
        server = subprocess.Popen(
            [find("postgres") or "postgres", "-D", str(data), "-k", str(folder), "-F"]
            + ["-c", "listen_addresses=", "-c", "max_connections=20", "-c", "shared_buffers=16MB"],
            cwd=folder,
            env=environment,
            user=user,
            stdout=output,
            stderr=output,
        )
    try:
        ended = time.monotonic() + START_S
        while not _is_ready(data / "postmaster.pid"):
            assert server.poll() is None and time.monotonic() < ended, log.read_text()
            time.sleep(0.02)
        yield f"postgresql:///postgres?host={folder}&user=tests"
    finally:
        server.terminate()
        server.wait()


def _is_ready(pid_file: Path) -> bool:
    """Its last line says whether connections are accepted."""
    return pid_file.exists() and pid_file.read_text().rstrip().endswith("ready")
