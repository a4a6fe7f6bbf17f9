"""Whose conversations are kept: the table of docs/security.md, row by row."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from falcon_mamba_app.owners import ONE_LOGIN, THIS_MACHINE, Owners
from falcon_mamba_app.settings import load_settings

SPACE = {"SPACE_ID": "tiiuae/falcon"}


def asking(address="127.0.0.1", host="127.0.0.1:7860", person=None, **headers):
    return SimpleNamespace(
        client=SimpleNamespace(host=address),
        headers={
            "host": host,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        },
        state=SimpleNamespace(person=person) if person else SimpleNamespace(),
    )


def owner(request, *argv, environment=()):
    return Owners(load_settings(argv, dict(environment))).of(request)


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "[::1]:7860", "localhost"])
def test_whoever_sits_at_the_machine_owns_what_is_said_there(host):
    assert owner(asking(host=host)) == THIS_MACHINE
    assert owner(asking("::1", host)) == THIS_MACHINE
    assert owner(asking("::ffff:127.0.0.1", host)) == THIS_MACHINE


@pytest.mark.parametrize(
    ("why", "request_", "argv", "environment"),
    [
        ("another machine", asking("192.168.1.7", "192.168.1.2:7860"), [], {}),
        ("a server that others reach", asking(), ["--host", "0.0.0.0"], {}),
        ("a public link", asking(), ["--share"], {}),
        ("a Space", asking(), [], SPACE),
        ("a named proxy on this machine", asking(), ["--trusted-proxies", "127.0.0.1"], {}),
        ("a proxy that was not named", asking(x_forwarded_for="203.0.113.9"), [], {}),
        ("another kind of proxy", asking(via="1.1 varnish"), [], {}),
        ("a foreign name that points here", asking(host="evil.example:7860"), [], {}),
        ("a name that only begins so", asking(host="localhost.evil.example"), [], {}),
        ("no name", asking(host=""), [], {}),
        ("off", asking(), ["--keep-conversations", "off"], {}),
    ],
)
@pytest.mark.parametrize("mode", [[], ["--keep-conversations", "on"]])
def test_of_strangers_nothing_is_kept(why, request_, argv, environment, mode):
    mode = [] if "--keep-conversations" in argv else mode
    assert owner(request_, *argv, *mode, environment=environment) is None, why


@pytest.mark.parametrize("argv", [[], ["--host", "0.0.0.0"], ["--keep-conversations", "on"]])
def test_a_person_who_signed_in_owns_what_they_say_wherever_they_are(argv):
    assert owner(asking("203.0.113.9", "chat.example", person="ada"), *argv) == "person ada"
    space = asking("10.0.0.1", "x.hf.space", person="ada", x_forwarded_for="203.0.113.9")
    assert owner(space, *argv, environment=SPACE) == "person ada"
    assert owner(asking(person="ada"), "--keep-conversations", "off") is None


def test_the_one_login_of_all_keeps_only_when_it_is_asked_to():
    public = ("--host", "0.0.0.0", "--auth", "demo:password-of-all")
    somebody = asking("203.0.113.9", "chat.example")
    assert owner(somebody, *public) is None
    assert owner(somebody, *public, "--keep-conversations", "on") == ONE_LOGIN
    assert owner(asking(), "--auth", "me:my-password") == THIS_MACHINE
