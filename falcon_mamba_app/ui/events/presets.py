"""Presets: the page's own, and those of visitors, which their browsers keep."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import gradio as gr

from falcon_mamba_app.protocol import GenerationService
from falcon_mamba_app.ui.view.controls import (
    CONTROL_NAMES,
    PRESETS,
    ControlValues,
    default_values,
    restored_values,
    shown_controls,
    values_of,
    with_preset,
)
from falcon_mamba_app.ui.view.updates import SKIP


class Presets:
    """Each event answers with the settings to remember, and what the controls show."""

    def __init__(self, service: GenerationService) -> None:
        self._service = service

    async def choose(self, data: gr.EventData, *given: Any) -> list[Any]:
        """A preset of the page by its `name`, or a visitor's own by its `values`."""
        asked: dict[str, Any] = data._data if isinstance(data._data, dict) else {}
        if asked.get("name") in PRESETS:
            return self._shown(with_preset(values_of(given), asked["name"]))
        return self._shown(restored_values(asked.get("values"), self._service.stats().model))

    async def reset(self, system_prompt: str) -> list[Any]:
        """The model's defaults; the system prompt stays."""
        model = self._service.stats().model
        updates = shown_controls(default_values(model), model)
        updates[1 + CONTROL_NAMES.index("system_prompt")] = SKIP
        return [{"system_prompt": system_prompt}, *updates]

    def _shown(self, values: ControlValues) -> list[Any]:
        return [asdict(values), *shown_controls(values, self._service.stats().model)]
