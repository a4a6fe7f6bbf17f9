"""The subcommands of `falcon-mamba`; without one, the server starts.

`people` has `user` and `key`, `chat/` is the chat in the terminal, and `probe` asks a model
overnight what it recalls. Each command reads its own arguments, and imports what it needs when it
runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

# Where each command is, and the name of its function.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "user": ("falcon_mamba_app.commands.people", "user"),
    "key": ("falcon_mamba_app.commands.people", "key"),
    "chat": ("falcon_mamba_app.commands.chat.command", "chat"),
    "probe": ("falcon_mamba_app.commands.probe", "probe"),
}


def run(name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """The exit status. Raises FalconMambaError with one sentence."""
    module, function = COMMANDS[name]
    command: Callable[[Sequence[str], Mapping[str, str]], int]
    command = getattr(import_module(module), function)
    return command(arguments, environment)
