"""Names of settings as the command line spells them, in the errors of layers that know no flags.

Those layers write a setting's name between backticks, `max_running`; here it becomes --max-running.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields

from falcon_mamba_app.errors import CheckpointError, SettingsError
from falcon_mamba_app.settings.sections import SECTIONS

NAMES = frozenset(option.name for section in SECTIONS.values() for option in fields(section))


def flag(name: str) -> str:
    """--max-running from max_running."""
    return "--" + name.replace("_", "-")


def spell_flags(text: str) -> str:
    """The text with the flag in place of each setting's name between backticks."""
    return re.sub(r"`(\w+)`", lambda found: flag(found[1]) if found[1] in NAMES else found[0], text)


@contextmanager
def flags_spelled() -> Iterator[None]:
    """Errors about the model and the settings leave with flags in their sentence."""
    try:
        yield
    except (CheckpointError, SettingsError) as error:
        error.args = (spell_flags(str(error)),)
        raise
