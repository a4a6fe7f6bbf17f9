"""Where the library of a server is, and what happens where it cannot be."""

from __future__ import annotations

import asyncio

import pytest

from falcon_mamba_app.data_folder import data_folder
from falcon_mamba_app.errors import SettingsError
from falcon_mamba_app.keeping import Keeping
from falcon_mamba_app.settings import LibrarySettings, load_settings


def settings(*argv):
    return load_settings(argv, {})


async def test_conversations_are_kept_in_the_named_folder_for_nobody_else_to_read(tmp_path):
    keeping = await Keeping.open(settings("--data-dir", str(tmp_path / "mine")))
    assert keeping.notice == f"Conversations are kept in {tmp_path / 'mine'}"
    file = tmp_path / "mine" / "conversations.db"
    assert file.stat().st_mode & 0o077 == 0 and file.parent.stat().st_mode & 0o077 == 0
    await keeping.close()


def test_without_a_name_the_folder_is_the_systems_own_place(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert data_folder(LibrarySettings().data_dir) == tmp_path / "falcon-mamba-app"


async def test_off_writes_nothing(tmp_path):
    argv = ("--data-dir", str(tmp_path / "mine"), "--keep-conversations", "off")
    keeping = await Keeping.open(settings(*argv))
    assert keeping.library is None and not (tmp_path / "mine").exists()
    await keeping.close()


async def test_where_it_cannot_be_the_server_goes_on_in_memory_unless_it_was_asked_for(tmp_path):
    (tmp_path / "conversations.db").write_bytes(b"no database at all, " * 100)
    keeping = await Keeping.open(settings("--data-dir", str(tmp_path)))
    assert keeping.library is None
    assert "damaged" in keeping.notice and keeping.notice.startswith("Conversations are in memory")
    with pytest.raises(SettingsError, match="damaged"):
        await Keeping.open(settings("--data-dir", str(tmp_path), "--keep-conversations", "on"))


async def test_a_database_that_does_not_answer_prevents_the_start():
    with pytest.raises(SettingsError, match="cannot be reached"):
        await Keeping.open(settings("--database-url", "postgresql://127.0.0.1:1/none"))


async def test_old_conversations_go_and_so_do_their_states(tmp_path):
    keeping = await Keeping.open(settings("--data-dir", str(tmp_path)))
    old = await keeping.library.create("ada", title="old")
    forgotten = asyncio.Queue()
    keeping.delete_old(-1, forgotten.put_nowait)  # older than tomorrow
    assert await asyncio.wait_for(forgotten.get(), 30) == old.id
    assert (await keeping.library.list("ada")).conversations == ()
    await keeping.close()


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--keep-conversations", "sometimes"], "allowed are auto, on, off"),
        (["--keep-days", "-1"], "at least 0"),
        (["--database-url", "mysql://u:secret@h/d"], "begins with postgresql://"),
        (["--keep-conversations", "off", "--keep-days", "3"], "--keep-conversations is off"),
    ],
)
def test_impossible_settings_are_refused_without_a_secret_in_the_sentence(argv, sentence):
    with pytest.raises(SettingsError, match=sentence) as refused:
        settings(*argv)
    assert "secret" not in str(refused.value)
