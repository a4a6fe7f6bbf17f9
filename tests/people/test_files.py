"""The files of users and keys, and the commands that change them beside a running server."""

from __future__ import annotations

import io
import json
import stat

import pytest
from argon2 import PasswordHasher

from falcon_mamba_app.commands import run
from falcon_mamba_app.errors import SettingsError
from falcon_mamba_app.people.keys import Keys
from falcon_mamba_app.people.users import Users

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture
def users(tmp_path):
    return Users(tmp_path / "users", CHEAP)


@pytest.fixture
def keys(tmp_path):
    return Keys(tmp_path / "keys")


def test_a_user_is_added_changed_and_removed_and_others_see_it_at_once(users, tmp_path):
    other = Users(tmp_path / "users", CHEAP)
    assert users.add("anna", "a long password")
    assert other.match("anna", "a long password") and other.names == ["anna"]
    assert not users.add("anna", "another password")
    assert not other.match("anna", "a long password")
    assert other.match("anna", "another password")
    users.remove("anna")
    assert not other.match("anna", "another password") and other.names == []


def test_passwords_are_kept_as_hashes_in_a_file_of_the_owner_alone(users, tmp_path):
    users.add("anna", "a long password")
    file = tmp_path / "users"
    assert "a long password" not in file.read_text() and "$argon2id$" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["", "a b", "anna:x", "../anna", "a" * 65, "-x", "änna", "a\nb"])
def test_odd_names_are_refused(users, keys, name):
    with pytest.raises(SettingsError, match="no name of a user"):
        users.add(name, "a long password")
    with pytest.raises(SettingsError, match="no name of a key"):
        keys.add(name, "anna")


@pytest.mark.parametrize("password", ["", "short", "x" * 1_001])
def test_passwords_too_short_or_too_long_are_refused(users, password):
    with pytest.raises(SettingsError, match="allowed are 8 to 1000"):
        users.add("anna", password)
    assert not users.match("anna", password)


def test_a_damaged_file_lets_nobody_in_and_says_why(users, keys, tmp_path):
    users.add("anna", "a long password")
    (tmp_path / "users").write_text("anna:secret\n")
    with pytest.raises(SettingsError, match="line 1 of the users"):
        users.match("anna", "secret")
    for text in ("{", "[]", '{"keys": [{"name": "x"}]}', '{"keys": [{"new": 1}]}'):
        (tmp_path / "keys").write_text(text)
        with pytest.raises(SettingsError, match="file of keys"):
            Keys(tmp_path / "keys")


def test_a_key_belongs_to_a_user_has_limits_and_an_end_and_is_kept_as_a_hash(tmp_path):
    now_s = [1_000.0]
    keys = Keys(tmp_path / "keys", clock=lambda: now_s[0])
    secret = keys.add("laptop", "anna", weight=2.0, replies_per_minute=5, expires_s=2_000.0)
    found = Keys(tmp_path / "keys", clock=lambda: now_s[0]).find(secret)
    assert (found.name, found.user, found.weight, found.replies_per_minute) == (
        "laptop",
        "anna",
        2.0,
        5,
    )
    assert not keys.has_expired(found)
    now_s[0] = 2_000.0
    assert keys.has_expired(found)
    assert secret not in (tmp_path / "keys").read_text()
    assert keys.find(secret + "x") is None and keys.find("") is None
    with pytest.raises(SettingsError, match="already"):
        keys.add("laptop", "tom")
    keys.remove("laptop")
    assert keys.find(secret) is None
    with pytest.raises(SettingsError, match="no key"):
        keys.remove("laptop")


@pytest.mark.parametrize("limits", [{"weight": 0}, {"weight": 1e9}, {"max_replies": 0}])
def test_limits_that_are_none_are_refused(keys, limits):
    with pytest.raises(SettingsError):
        keys.add("laptop", "anna", **limits)


def test_the_commands_add_list_and_remove(tmp_path, capsys, monkeypatch):
    environment = {"FALCON_MAMBA_USERS": str(tmp_path / "users")}
    monkeypatch.setattr("sys.stdin", io.StringIO("a long password\n"))
    assert run("user", ["add", "anna", "--password-stdin"], environment) == 0
    assert run("user", ["list"], environment) == 0
    assert run("user", ["remove", "anna"], environment) == 0
    assert run("user", ["list"], environment) == 0
    told = capsys.readouterr().out.splitlines()
    assert told == ["anna is added", "anna", "anna is removed", "there are no users"]
    file = ["--keys", str(tmp_path / "keys")]
    options = ["--user", "anna", "--weight", "2", "--expires", "30d", "--tokens-per-minute", "9"]
    assert run("key", ["add", "laptop", *options, *file], {}) == 0
    secret = capsys.readouterr().out.strip()
    assert secret.startswith("fm-") and len(secret) > 40
    run("key", ["list", *file], {})
    line = capsys.readouterr().out
    assert line.startswith("laptop, of anna, weight 2, tokens per minute 9, expires ")
    assert secret not in line
    assert json.loads((tmp_path / "keys").read_text())["keys"][0]["user"] == "anna"
    run("key", ["remove", "laptop", *file], {})


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["user", "list"], "--users FILE is needed"),
        (["key", "add", "x", "--user", "anna", "--keys", "k", "--expires", "soon"], "--expires"),
        (["user", "remove", "nobody", "--users", "file/users"], "cannot be read: Not a directory"),
        (["user", "remove", "nobody", "--users", "users"], "there is no user 'nobody'"),
    ],
)
def test_wrong_commands_end_with_a_sentence(arguments, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=reason):
        run(arguments[0], arguments[1:], {})
