"""A crowd's objects do not bring a look through all of them."""

from __future__ import annotations

import gc

import pytest

from falcon_mamba_app.garbage import keep_what_is_there, let_go


@pytest.fixture
def settled():
    before = gc.get_threshold()
    keep_what_is_there()
    yield
    gc.set_threshold(*before)
    let_go()


def looks_at_everything() -> int:
    return gc.get_stats()[2]["collections"]


def test_a_thousand_connections_bring_no_look_through_all_objects(settled):
    """Each has about a hundred objects that live as long as it does: tasks, timers, headers."""
    before = looks_at_everything()
    connections = [[[] for _ in range(100)] for _ in range(1_500)]
    assert looks_at_everything() == before
    assert len(connections) == 1_500


def test_garbage_among_the_young_is_still_found(settled):
    before = gc.get_stats()[0]["collected"] + gc.get_stats()[1]["collected"]
    for _ in range(20_000):
        one: list[object] = []
        one.append(one)
    assert gc.get_stats()[0]["collected"] + gc.get_stats()[1]["collected"] - before > 10_000
