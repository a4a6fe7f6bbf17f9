"""The wall clock jumps: an administrator sets it, a virtual machine wakes up."""

from __future__ import annotations

import ast
import inspect
import time
from pathlib import Path

import pytest

from falcon_mamba_app.middleware.credentials import LOGIN_S, Credentials
from falcon_mamba_app.rates import Rate, WrongKeys
from falcon_mamba_app.ui.conversation.sessions import Sessions
from falcon_mamba_app.visitors import Visitors

PACKAGE = Path(inspect.getfile(Visitors)).parent
# A date that is told, the end of a login, a batch or a claim, which outlive a process, and names of
# things; nothing else waits or counts by it.
READS_THE_WALL_CLOCK = {
    "api/batches/endpoints.py",
    "api/batches/record.py",
    "api/batches/running.py",
    "api/generation.py",
    "api/information.py",
    "api/responses/writing.py",
    "api/routes.py",
    "commands/people.py",
    "files/store.py",
    "library/changes.py",
    "library/claims.py",
    "library/conversations.py",
    "library/library.py",
    "library/messages.py",
    "library/removal.py",
    "library/replies.py",
    "library/tree.py",
    "middleware/login.py",
    "people/keys.py",
    "state_store/objects.py",
    "ui/conversation/shelf.py",
    "ui/events/targets.py",
    "ui/gradio_patches/hub_people.py",
}
DAY_S = 86_400


def test_what_waits_and_counts_does_so_by_a_clock_that_never_jumps():
    for counted in (Rate, WrongKeys, Visitors, Sessions):
        assert inspect.signature(counted).parameters["clock"].default is time.monotonic


def test_the_wall_clock_is_read_only_where_a_date_is_told():
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("time.time", "datetime.now")
    }
    assert found <= READS_THE_WALL_CLOCK


@pytest.mark.parametrize(
    ("jump_s", "is_in"),
    [(-365 * DAY_S, True), (-1, True), (DAY_S, True), (LOGIN_S + 1, False)],
)
def test_a_login_outlives_a_clock_set_back_and_ends_when_it_says(jump_s, is_in):
    credentials = Credentials("ada:secret", (), b"x" * 16)
    now_s = 1_800_000_000.0
    cookie = credentials.sign(None, now_s)
    assert (credentials.read(cookie, now_s + jump_s) is not None) == is_in
