"""What can be set, from the command line or the environment. The only reader of both.

It knows no model, no engine and no web server; standard library only. `sections`, `engine`,
`keeping`, `storage`, `cluster` and `people` declare every option as `options` says, `parsing` makes
values from text, `platform` detects the host, `reading` collects all values, `contradictions`
refuses impossible combinations, and `flags` spells options in errors.
"""

from falcon_mamba_app.settings.cluster import ClusterSettings
from falcon_mamba_app.settings.engine import EngineLimits, EngineSettings
from falcon_mamba_app.settings.flags import flags_spelled
from falcon_mamba_app.settings.keeping import LibrarySettings
from falcon_mamba_app.settings.options import AUTO
from falcon_mamba_app.settings.parsing import parse_bytes
from falcon_mamba_app.settings.people import PeopleSettings
from falcon_mamba_app.settings.platform import Platform
from falcon_mamba_app.settings.reading import load_settings
from falcon_mamba_app.settings.sections import (
    DEFAULT_LIMITS,
    SECTIONS,
    LimitSettings,
    ModelSettings,
    ServerSettings,
    Settings,
)
from falcon_mamba_app.settings.storage import StorageSettings

__all__ = [
    "AUTO",
    "DEFAULT_LIMITS",
    "SECTIONS",
    "ClusterSettings",
    "EngineLimits",
    "EngineSettings",
    "LibrarySettings",
    "LimitSettings",
    "ModelSettings",
    "PeopleSettings",
    "Platform",
    "ServerSettings",
    "Settings",
    "StorageSettings",
    "flags_spelled",
    "load_settings",
    "parse_bytes",
]
