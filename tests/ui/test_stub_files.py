"""Gradio's stub files: written for editors, and left alone by a program that runs."""

from __future__ import annotations

import sys

import gradio as gr
from gradio import component_meta

from falcon_mamba_app.ui.gradio_patches import stub_files


def test_components_are_made_and_no_stub_file_is_written(monkeypatch):
    """`tests.support.environment` imports the page before any test imports Gradio."""
    monkeypatch.setattr("pathlib.Path.write_text", lambda *_, **__: 1 / 0)
    made = type("Loud", (gr.Textbox,), {})("hello")
    assert made.value == "hello"
    assert component_meta.create_or_modify_pyi is stub_files._write_nothing


def test_to_ask_again_changes_nothing():
    before = list(sys.meta_path)
    stub_files.write_no_stub_files()
    assert sys.meta_path == before
