"""The place of stored states fails in every way it can; conversations go on in memory."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from falcon_mamba_app.data_folder import kept_secret
from falcon_mamba_app.engine.packing import pack_token_ids
from falcon_mamba_app.service.local.build import state_files
from falcon_mamba_app.settings import load_settings
from falcon_mamba_app.state_store.files import StateFiles
from falcon_mamba_app.state_store.objects import open_store
from falcon_mamba_app.state_store.sealing import Seal
from tests.app.test_app import start, wait_until_ready
from tests.faults.test_full_disks import full_folder, no_room

ROOT = Path(__file__).parents[2]
STATE = b"numbers" * 100
IDS = pack_token_ids([1, 2, 3])
NEXT = pack_token_ids([1, 2, 3, 4])


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def files_in(folder: Path, clock: Clock) -> StateFiles:
    store = open_store(str(folder))
    return StateFiles(store, Seal(), model="m", max_bytes=2**20, clock=clock)


def test_on_a_full_disk_nothing_is_stored_until_there_is_room_with_one_warning(tmp_path, caplog):
    clock = Clock()
    files = files_in(tmp_path, clock)
    with caplog.at_level(logging.WARNING), no_room():
        for _ in range(3):
            assert not files.write("s", IDS, lambda: STATE)
            assert files.longest_prefix("s", NEXT) is None
            clock.now_s += 31
    assert len(caplog.messages) == 1 and "its disk is full" in caplog.messages[0]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert files.write("s", IDS, lambda: STATE)
    assert files.read(files.longest_prefix("s", NEXT)) == STATE


def test_a_folder_that_goes_away_costs_one_warning_and_comes_back(tmp_path, caplog):
    clock, folder = Clock(), tmp_path / "store"
    files = files_in(folder, clock)
    assert files.write("s", IDS, lambda: STATE)
    moved = folder.rename(tmp_path / "elsewhere")
    folder.write_text("no folder")
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            assert not files.write("s", pack_token_ids([9, number]), lambda: STATE)
            clock.now_s += 31
    assert len(caplog.messages) == 1
    folder.unlink()
    moved.rename(folder)
    assert files.read(files.longest_prefix("s", NEXT)) == STATE


@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_a_place_that_cannot_be_used_at_the_start_is_told_once_and_stops_nothing(
    tmp_path, caplog, kind
):
    place = full_folder(tmp_path) / "store" if kind == "full" else Path("/proc/none/store")
    settings = load_settings(["--state-store", str(place)], {})
    with caplog.at_level(logging.WARNING):
        assert state_files(settings) is None
        assert kept_secret(place) is None
    told, of_secret = caplog.messages
    assert "Conversations go on in memory" in told and "no secret can be kept" in of_secret


def test_the_secret_is_made_once_for_its_owner_alone(tmp_path):
    secret = kept_secret(tmp_path / "data")
    assert secret is not None and secret == kept_secret(tmp_path / "data")
    (path,) = (tmp_path / "data").iterdir()
    assert path.stat().st_mode & 0o077 == 0 and path.parent.stat().st_mode & 0o077 == 0


WRITER = """
import os, sys
from falcon_mamba_app.engine.packing import pack_token_ids
from falcon_mamba_app.state_store.files import StateFiles
from falcon_mamba_app.state_store.objects import open_store
from falcon_mamba_app.state_store.sealing import Seal
files = StateFiles(open_store(sys.argv[1]), Seal(), model="m", max_bytes=2**40, max_per_session=99)
print("ready", flush=True)
for number in range(1_000_000):
    ids = pack_token_ids(range(10 + number % 90))
    files.write(f"s{number // 90}", ids, lambda: os.urandom(64) * 50_000)
"""


def _is_amid_a_file(place: Path, left: set[Path]) -> bool:
    """Whether a file that is not of those `left` is whole, and another one is being written."""
    new = {path.name for path in set(place.rglob("00*")) - left}
    return any("#" in name for name in new) and not all("#" in name for name in new)


def test_a_process_that_is_killed_while_it_writes_leaves_whole_files_only(tmp_path):
    left: set[Path] = set()
    for _ in range(3):
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            deadline_s = time.monotonic() + 60
            while not _is_amid_a_file(tmp_path, left):
                assert time.monotonic() < deadline_s
            process.send_signal(signal.SIGKILL)
        left = set(tmp_path.rglob("00*"))
    files = StateFiles(open_store(str(tmp_path)), Seal(), model="m", max_bytes=2**40)
    files.read_index()
    states = list(files._index._order)
    assert states
    assert all(files.read(state) is not None for state in states)


@pytest.mark.slow
def test_a_session_of_the_api_goes_on_in_the_next_process_with_the_secret_that_was_kept(tmp_path):
    messages: list[dict[str, str]] = []

    def say(address: str, text: str) -> tuple[int, int]:
        """How much the prompt has, and how much of it no one had to read."""
        messages.append({"role": "user", "content": text})
        body = {"messages": messages, "max_tokens": 30, "prompt_cache_key": "k", "temperature": 0}
        answer = httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60).json()
        messages.append(answer["choices"][0]["message"])
        usage = answer["usage"]
        return usage["total_tokens"], usage["prompt_tokens_details"]["cached_tokens"]

    def run(*texts: str) -> list[tuple[int, int]]:
        process, address = start("--data-dir", str(tmp_path), FALCON_MAMBA_STATE_STORE="auto")
        try:
            wait_until_ready(address)
            told = [say(address, text) for text in texts]
            process.terminate()
            process.wait(30)
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        return told

    num_before, _ = run("Hello! My name is Zorvic, and I live by the sea.", "I have a dog.")[-1]
    _, num_cached = run("What is my name?")[0]
    # Not the reply's last token, which was never fed, nor what ends its turn.
    assert num_before - 2 <= num_cached < num_before
