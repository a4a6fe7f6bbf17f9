"""A public link, or a reason why there is none."""

from __future__ import annotations

import logging

import pytest

from falcon_mamba_app.settings import Platform
from falcon_mamba_app.ui.share_link import open_link

NOBODY = "http://127.0.0.1:9"  # the discard port, where nobody listens
SETUP = "gradio.networking.setup_tunnel"


def test_the_link_is_https(monkeypatch):
    monkeypatch.setattr(SETUP, lambda *args: "http://abc.gradio.live")
    assert open_link(7860, Platform()) == "https://abc.gradio.live"


@pytest.mark.parametrize("error", [RuntimeError("no network"), OSError("no frpc"), ValueError("x")])
def test_without_a_relay_there_is_a_reason_and_no_link(monkeypatch, caplog, error):
    def fail(*args):
        raise error

    monkeypatch.setattr(SETUP, fail)
    with caplog.at_level(logging.WARNING):
        assert open_link(7860, Platform()) is None
    assert str(error) in caplog.text


@pytest.fixture
def relay(monkeypatch, tmp_path):
    """Gradio's own client with nothing outside this machine to ask, and no frpc yet."""
    frpc = tmp_path / "frpc" / "binary"
    monkeypatch.setattr("gradio.tunneling.BINARY_FOLDER", frpc.parent)
    monkeypatch.setattr("gradio.tunneling.BINARY_PATH", str(frpc))
    monkeypatch.setattr("gradio.tunneling.BINARY_URL", f"{NOBODY}/frpc")
    monkeypatch.setattr("gradio.networking.GRADIO_API_SERVER", NOBODY)
    return frpc


def test_without_a_network_the_reason_is_one_line(relay, caplog):
    assert open_link(7860, Platform()) is None
    assert "Gradio API Server: " in caplog.text
    assert "refused" in caplog.text
    assert len(caplog.messages) == 1 and "\n" not in caplog.messages[0]


def test_without_frpc_the_reason_is_one_line(relay, monkeypatch, caplog):
    monkeypatch.setattr("gradio.networking.GRADIO_SHARE_SERVER_ADDRESS", "127.0.0.1:9")
    assert open_link(7860, Platform()) is None
    assert "refused" in caplog.text
    assert len(caplog.messages) == 1 and "\n" not in caplog.messages[0]


def test_what_frpc_prints_is_the_link(relay, monkeypatch):
    monkeypatch.setattr("gradio.networking.GRADIO_SHARE_SERVER_ADDRESS", "127.0.0.1:9")
    tunnels = []
    monkeypatch.setattr("gradio.tunneling.CURRENT_TUNNELS", tunnels)
    relay.parent.mkdir()
    relay.write_text("#!/bin/sh\necho start proxy success: http://abc.gradio.live\nexec sleep 60\n")
    relay.chmod(0o755)
    assert open_link(7860, Platform()) == "https://abc.gradio.live"
    (tunnel,) = tunnels
    process = tunnel.proc
    tunnel.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()


def test_a_space_has_an_address_of_its_own(caplog):
    assert open_link(7860, Platform(is_space=True)) is None
    assert "Space" in caplog.text
