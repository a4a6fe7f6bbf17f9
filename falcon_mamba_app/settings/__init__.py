"""What can be set, from the command line or the environment. The only reader of both.

`sections` declares every option, `reading` finds their values, `contradictions` refuses what cannot
go together. Standard library only.
"""

from falcon_mamba_app.settings.parsing import parse_bytes
from falcon_mamba_app.settings.reading import load_settings
from falcon_mamba_app.settings.sections import (
    DEFAULT_LIMITS,
    SECTIONS,
    EngineSettings,
    LimitSettings,
    ModelSettings,
    ServerSettings,
    Settings,
)

__all__ = [
    "DEFAULT_LIMITS",
    "SECTIONS",
    "EngineSettings",
    "LimitSettings",
    "ModelSettings",
    "ServerSettings",
    "Settings",
    "load_settings",
    "parse_bytes",
]
