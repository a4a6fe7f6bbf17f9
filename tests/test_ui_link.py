"""A public link, or a reason why there is none."""

from __future__ import annotations

import logging

import pytest

from falcon_mamba_app.ui.link import open_link

SETUP = "gradio.networking.setup_tunnel"


def test_the_link_is_https(monkeypatch):
    monkeypatch.setattr(SETUP, lambda *args: "http://abc.gradio.live")
    assert open_link(7860) == "https://abc.gradio.live"


@pytest.mark.parametrize("error", [RuntimeError("no network"), OSError("no frpc"), ValueError("x")])
def test_without_a_relay_there_is_a_reason_and_no_link(monkeypatch, caplog, error):
    def fail(*args):
        raise error

    monkeypatch.setattr(SETUP, fail)
    with caplog.at_level(logging.WARNING):
        assert open_link(7860) is None
    assert str(error) in caplog.text


def test_a_space_has_an_address_of_its_own(monkeypatch, caplog):
    monkeypatch.setenv("SPACE_ID", "someone/space")
    assert open_link(7860) is None
    assert "Space" in caplog.text
