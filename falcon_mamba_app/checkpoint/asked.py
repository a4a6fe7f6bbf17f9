"""The request for a model. Any record with these fields fits; the settings are one.

"auto" leaves a choice to the machine. Errors name a field between backticks.
"""

from __future__ import annotations

from typing import Protocol


class AskedModel(Protocol):
    """A known name, a hub id, a folder or a .gguf file, and the revision of a hub model."""

    @property
    def model(self) -> str: ...
    @property
    def revision(self) -> str | None: ...


class AskedQuantization(Protocol):
    """The form: "auto", "none", "int8", "nf4" or "fp4"; quantised scales: "auto", "on" or "off"."""

    @property
    def quantization(self) -> str: ...
    @property
    def double_quantization(self) -> str: ...


class Asked(AskedModel, AskedQuantization, Protocol):
    """A model, its device and precision, and the implementation of its operations."""

    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def kernels(self) -> str: ...
