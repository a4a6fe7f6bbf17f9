"""`falcon-mamba user` and `falcon-mamba key`: who may use the server, without starting it.

A running server sees the changes at once. Passwords are asked for, or read from the standard input,
so that they are in no command line.
"""

from __future__ import annotations

import argparse
import getpass
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from falcon_mamba_app.errors import SettingsError
from falcon_mamba_app.people.keys import LIMITS, Keys, NamedKey
from falcon_mamba_app.people.users import Users

UNITS_S = {"h": 3_600, "d": 86_400, "w": 7 * 86_400}


def user(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Add, change, remove or list users."""
    parser = argparse.ArgumentParser(
        prog="falcon-mamba user", description="Users who sign in to the page with passwords."
    )
    does = parser.add_subparsers(dest="does", required=True, metavar="{add,remove,list}")
    add = does.add_parser("add", help="add a user, or change the password of one")
    remove = does.add_parser("remove", help="remove a user, who is signed out at once")
    for command in (add, remove):
        command.add_argument("name")
    add.add_argument(
        "--password-stdin", action="store_true", help="read the password from the standard input"
    )
    for command in (add, remove, does.add_parser("list", help="the names of all users")):
        _file_option(command, "--users", environment)
    given = parser.parse_args(list(arguments))
    users = Users(_file(given.users, "--users"))
    if given.does == "add":
        password = _password(given.name, reads_input=given.password_stdin)
        print(f"{given.name} is {'added' if users.add(given.name, password) else 'changed'}")
    elif given.does == "remove":
        users.remove(given.name)
        print(f"{given.name} is removed")
    else:
        print("\n".join(users.names) or "there are no users")
    return 0


def key(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Add, remove or list API keys."""
    parser = argparse.ArgumentParser(
        prog="falcon-mamba key", description="API keys that belong to users."
    )
    does = parser.add_subparsers(dest="does", required=True, metavar="{add,remove,list}")
    add = does.add_parser("add", help="make a key and print it, this once")
    remove = does.add_parser("remove", help="remove a key, which opens nothing any more")
    for command in (add, remove):
        command.add_argument("name", help="a name for the key itself, such as laptop")
    add.add_argument("--user", required=True, help="whose key it is")
    add.add_argument("--weight", type=float, default=1.0, help="its share of the server (1)")
    add.add_argument("--expires", metavar="30d", help="hours, days or weeks from now: 12h, 30d, 4w")
    for name in LIMITS:
        flag = "--" + name.replace("_", "-")
        add.add_argument(flag, type=int, metavar="N", help="its own limit; else the server's")
    for command in (add, remove, does.add_parser("list", help="all keys, not their secrets")):
        _file_option(command, "--keys", environment)
    given = parser.parse_args(list(arguments))
    keys = Keys(_file(given.keys, "--keys"))
    if given.does == "add":
        limits = {name: getattr(given, name) for name in LIMITS}
        expires_s = None if given.expires is None else time.time() + _seconds(given.expires)
        secret = keys.add(
            given.name, given.user, weight=given.weight, expires_s=expires_s, **limits
        )
        print(secret)
        print("Keep it now: only its hash is stored.", file=sys.stderr)
    elif given.does == "remove":
        keys.remove(given.name)
        print(f"{given.name} is removed")
    else:
        print("\n".join(_line(one, keys) for one in keys.all) or "there are no keys")
    return 0


def _line(one: NamedKey, keys: Keys) -> str:
    words = [one.name, f"of {one.user}", f"weight {one.weight:g}"]
    words += [
        f"{name.replace('_', ' ')} {getattr(one, name)}"
        for name in LIMITS
        if getattr(one, name) is not None
    ]
    if one.expires_s is not None:
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.expires_s))
        words.append(f"{'expired' if keys.has_expired(one) else 'expires'} {day}")
    return ", ".join(words)


def _password(name: str, *, reads_input: bool) -> str:
    """Raises SettingsError if it was typed in two ways."""
    if reads_input or not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass(f"Password for {name}: ")
    if getpass.getpass("Once more: ") != password:
        raise SettingsError("the two passwords differ; nothing is changed")
    return password


def _seconds(text: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,5})([hdw])", text.strip())
    if found is None:
        raise SettingsError(f"--expires is {text!r}; it takes hours, days or weeks: 12h, 30d, 4w")
    return int(found[1]) * UNITS_S[found[2]]


def _file_option(
    parser: argparse.ArgumentParser, flag: str, environment: Mapping[str, str]
) -> None:
    variable = "FALCON_MAMBA_" + flag.removeprefix("--").upper()
    parser.add_argument(
        flag,
        metavar="FILE",
        default=environment.get(variable),
        help=f"the file that the server is started with ({variable})",
    )


def _file(path: str | None, flag: str) -> Path:
    if not path:
        raise SettingsError(f"{flag} FILE is needed: the file that the server is started with")
    return Path(path)
