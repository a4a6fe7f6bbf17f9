"""The look that Gradio's theme variables can carry; the rest is in assets/style.css.

Zinc for everything, teal for actions and live values. Fonts are the system's: the page loads
nothing from other hosts.
"""

from __future__ import annotations

import gradio as gr

SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def build_theme() -> gr.themes.Base:
    """The theme of the page, light and dark."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        secondary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.zinc,
        radius_size=gr.themes.sizes.radius_lg,
        font=SANS,
        font_mono=MONO,
    ).set(
        body_background_fill="#fafafa",
        body_background_fill_dark="#0f0f11",
        body_text_color="#18181b",
        body_text_color_dark="#ececee",
        body_text_color_subdued="#5b5b64",
        body_text_color_subdued_dark="#a5a5af",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#17171a",
        background_fill_secondary="#f4f4f5",
        background_fill_secondary_dark="#1e1e22",
        border_color_primary="#e2e2e6",
        border_color_primary_dark="#2c2c32",
        block_background_fill="#ffffff",
        block_background_fill_dark="#17171a",
        block_border_width="0px",
        block_shadow="none",
        block_label_text_color="#3f3f46",
        block_label_text_color_dark="#d4d4d8",
        block_title_text_color="#27272a",
        block_title_text_color_dark="#e4e4e7",
        block_title_text_weight="500",
        block_info_text_color="#5b5b64",
        block_info_text_color_dark="#a5a5af",
        input_background_fill="#ffffff",
        input_background_fill_dark="#1e1e22",
        input_border_color="#d4d4d8",
        input_border_color_dark="#3a3a42",
        input_border_color_focus="#0f766e",
        input_border_color_focus_dark="#2dd4bf",
        input_placeholder_color="#6b6b75",
        input_placeholder_color_dark="#9a9aa5",
        link_text_color="#0f766e",
        link_text_color_dark="#5eead4",
        color_accent="#0f766e",
        color_accent_soft="#e6f4f2",
        color_accent_soft_dark="#12302d",
        slider_color="#0f766e",
        slider_color_dark="#2dd4bf",
        button_primary_background_fill="#0f766e",
        button_primary_background_fill_hover="#115e59",
        button_primary_text_color="#ffffff",
        button_primary_background_fill_dark="#2dd4bf",
        button_primary_background_fill_hover_dark="#5eead4",
        button_primary_text_color_dark="#042f2e",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_hover="#f4f4f5",
        button_secondary_text_color="#27272a",
        button_secondary_border_color="#d4d4d8",
        button_secondary_background_fill_dark="#1e1e22",
        button_secondary_background_fill_hover_dark="#2a2a30",
        button_secondary_text_color_dark="#e4e4e7",
        button_secondary_border_color_dark="#3a3a42",
        button_border_width="1px",
    )
