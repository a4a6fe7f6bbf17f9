"""Stored states are found by the tokens they have read, in any place, and within a budget."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time

import httpx
import pytest

from falcon_mamba_app.engine.packing import pack_token_ids
from falcon_mamba_app.errors import SettingsError
from falcon_mamba_app.state_store.files import MAX_PER_SESSION, StateFiles
from falcon_mamba_app.state_store.names import owner_of
from falcon_mamba_app.state_store.objects import MEMORY, open_store
from falcon_mamba_app.state_store.sealing import Damaged, Seal

STATE = b"numbers" * 100
SECRET = "a secret of the operator's"


@pytest.fixture(scope="module")
def s3_server():
    """moto's server, a real one on a port, and its address."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline_s = time.monotonic() + 60
        while True:
            try:
                httpx.put(f"{address}/states-bucket", timeout=5).raise_for_status()
                break
            except httpx.TransportError:
                assert process.poll() is None and time.monotonic() < deadline_s
                time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(params=["folder", "memory", "s3"])
def place(request, tmp_path, monkeypatch):
    if request.param == "folder":
        return str(tmp_path / "made" / "on the way")
    if request.param == "memory":
        return MEMORY
    monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3_server"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anybody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)  # obstore wants certificates
    return f"s3://states-bucket/{tmp_path.name}"


def files_in(store, *, model="falcon fp32", secret=None, **limits) -> StateFiles:
    return StateFiles(store, Seal(secret), model=model, **{"max_bytes": 2**20, **limits})


def packed(*token_ids: int) -> bytes:
    return pack_token_ids(token_ids)


def write(files: StateFiles, session_id: str, *token_ids: int, data=STATE, **options) -> bool:
    return files.write(session_id, packed(*token_ids), lambda: data, **options)


@pytest.mark.parametrize("secret", [None, SECRET])
def test_the_longest_stored_prefix_is_found_and_read_by_another_process(place, secret):
    store = open_store(place)
    files = files_in(store, secret=secret)
    for length in (2, 4, 6):
        assert write(files, "s", *range(length), data=STATE + bytes([length]))
    files.write_replies("s", b"ids")
    for other in (files, files_in(store, secret=secret)):
        found = other.longest_prefix("s", packed(0, 1, 2, 3, 4, 9, 9))
        assert found is not None and found.num_tokens == 4
        assert other.read(found) == STATE + bytes([4])
        assert other.read_replies("s") == b"ids"
        assert other.longest_prefix("s", packed(0, 1)) is None, "one token is left to feed"
        assert other.longest_prefix("somebody else", packed(*range(9))) is None
    again = files_in(store, secret=secret)
    again.read_index()
    assert (len(again), again.num_bytes) == (3, files.num_bytes)
    assert again.forget("s") and not again.forget("s")
    assert (len(again), again.num_bytes, store.list("states")) == (0, 0, [])


def test_states_of_another_model_are_not_found(place):
    store = open_store(place)
    write(files_in(store), "s", 1, 2)
    assert files_in(store, model="falcon bf16").longest_prefix("s", packed(1, 2, 3)) is None


def test_no_name_and_no_byte_tells_the_session(tmp_path):
    files = files_in(open_store(str(tmp_path)), secret=SECRET)
    write(files, "an unguessable id", 1, 2, data=b"what somebody said")
    for path in tmp_path.rglob("*"):
        assert "unguessable" not in str(path)
        assert not path.is_file() or b"somebody said" not in path.read_bytes()


def test_the_least_recently_used_goes_first_and_pinned_ones_stay(tmp_path):
    store = open_store(str(tmp_path))
    files = files_in(store, max_bytes=3 * 800)
    write(files, "pinned", 1, 2, is_pinned=True)
    write(files, "old", 1, 2)
    write(files, "used", 1, 2)
    files.read(files.longest_prefix("used", packed(1, 2, 3)))
    write(files, "old", 1, 2)  # written again: used now
    files.read(files.longest_prefix("used", packed(1, 2, 3)))
    write(files, "new", 1, 2)
    for known in (files, files_in(store, max_bytes=3 * 800)):
        known.read_index()
        left = {
            s for s in ("pinned", "old", "used", "new") if known.longest_prefix(s, packed(1, 2, 3))
        }
        assert left == {"pinned", "used", "new"}
        assert known.num_bytes <= 3 * 800
    restarted = files_in(store, max_bytes=1 * 800)
    restarted.read_index()
    assert not write(restarted, "no room", 5, 6), "a pinned one takes all of it"
    assert restarted.longest_prefix("pinned", packed(1, 2, 3))
    restarted.unpin(restarted.longest_prefix("pinned", packed(1, 2, 3)))
    assert write(restarted, "room", 5, 6)


def test_one_conversation_keeps_few_files_and_fewer_with_age(tmp_path):
    files, history = files_in(open_store(str(tmp_path)), max_bytes=2**30), []
    for turn in range(60):
        history += [turn] * 10
        write(files, "s", *history, is_pinned=turn == 5)
    lengths = [state.num_tokens for state in files._index._order]
    assert len(lengths) == MAX_PER_SESSION + 1
    assert {60, 580, 590, 600} <= set(lengths)
    assert sorted(lengths)[1] < 400


@pytest.mark.parametrize("secret", [None, SECRET])
@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "foreign", "under another name"])
def test_a_damaged_file_is_set_aside_with_one_warning(tmp_path, caplog, damage, secret):
    files = files_in(open_store(str(tmp_path)), secret=secret)
    write(files, "s", 1, 2)
    write(files, "other", 1, 2, 3)
    other = files.longest_prefix("other", packed(1, 2, 3, 4))
    state = files.longest_prefix("s", packed(1, 2, 3))
    path = tmp_path / state.path
    good = path.read_bytes()
    path.write_bytes(
        {
            "cut": good[:-1],
            "changed": good[:60] + bytes([good[60] ^ 1]) + good[61:],
            "empty": b"",
            "foreign": b"PK\x03\x04" + bytes(500),
            "under another name": (tmp_path / other.path).read_bytes(),
        }[damage]
    )
    with caplog.at_level(logging.WARNING):
        assert files.read(state) is None
        assert files.longest_prefix("s", packed(1, 2, 3)) is None
    assert len(caplog.messages) == 1 and "set aside" in caplog.messages[0]
    assert len(list((tmp_path / "damaged").iterdir())) == 1 and not path.exists()
    assert write(files, "s", 1, 2) and files.read(state) == STATE


def test_a_file_below_another_owner_does_not_open():
    seal = Seal(SECRET)
    sealed = seal.close(owner_of("anna"), "n", STATE)
    assert seal.open(owner_of("anna"), "n", sealed) == STATE
    for owner, name, opener in (
        (owner_of("tom"), "n", seal),
        (owner_of("anna"), "m", seal),
        (owner_of("anna"), "n", Seal("another secret of the operator's")),
        (owner_of("anna"), "n", Seal()),
    ):
        with pytest.raises(Damaged):
            opener.open(owner, name, sealed)
    with pytest.raises(Damaged):  # nor one that was never encrypted, where all are
        seal.open("o", "n", Seal().close("o", "n", STATE))


@pytest.mark.parametrize("place", ["ftp://host/x", "S4://bucket", "az://container-without-account"])
def test_an_address_that_means_nothing_is_refused(place):
    with pytest.raises(SettingsError, match="--state-store"):
        open_store(place)


def test_what_a_killed_process_left_unfinished_is_swept_away(tmp_path):
    leftover, fresh = tmp_path / "states" / "x#3", tmp_path / "states" / "y#1"
    leftover.parent.mkdir()
    for path in (leftover, fresh):
        path.write_bytes(b"half of a st")
    os.utime(leftover, (0, 0))
    store = open_store(str(tmp_path))
    assert not leftover.exists() and fresh.exists()
    assert store.list("states") == []
