"""Values of the settings from the command line and the environment.

The command line wins over the environment, our own variables over Gradio's, and both over the
default. An empty variable counts as not set, unless it is a secret: an empty secret would leave the
server open. Unknown, impossible or contradictory values are refused with one sentence.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, NoReturn

from falcon_mamba_app import __version__
from falcon_mamba_app.errors import SettingsError
from falcon_mamba_app.settings.contradictions import refuse_contradictions
from falcon_mamba_app.settings.flags import flag
from falcon_mamba_app.settings.parsing import parse_bool, parse_int
from falcon_mamba_app.settings.platform import Platform
from falcon_mamba_app.settings.sections import AUTO, SECTIONS, Settings

ENVIRONMENT_PREFIX = "FALCON_MAMBA_"
# The variables that Gradio apps read everywhere, and those that Hugging Face's Spaces set.
GRADIO_VARIABLES = {
    "host": "GRADIO_SERVER_NAME",
    "port": "GRADIO_SERVER_PORT",
    "root_path": "GRADIO_ROOT_PATH",
}


def load_settings(argv: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Settings from `argv` (without the program's name) and `environment`.

    Raises SettingsError with one sentence. `--help` prints and exits, as argparse does.
    """
    given = vars(_parser().parse_args(list(argv)))
    given = {name: value for name, value in given.items() if value is not None}
    options = {option.name: option for section in SECTIONS.values() for option in fields(section)}
    for variable, value in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if name not in options:
            raise SettingsError(f"{variable} is no setting of this app; see python app.py --help")
        if value or options[name].metadata["is_secret"]:
            given.setdefault(name, value)
    for name, variable in GRADIO_VARIABLES.items():
        if environment.get(variable):
            given.setdefault(name, environment[variable])
    values = {name: _convert(options[name], text) for name, text in given.items()}
    settings = Settings(
        **{
            section: kind(**{o.name: values[o.name] for o in fields(kind) if o.name in values})
            for section, kind in SECTIONS.items()
        },
        platform=Platform.of(environment),
    )
    refuse_contradictions(settings, values)
    return settings


def _convert(option: Field[Any], text: str) -> Any:
    """The value of one option from its text. Raises SettingsError naming the option."""
    name = flag(option.name)
    parse = option.metadata.get("parse") or _PARSERS.get(type(option.default), str)
    try:
        value = parse(text)
    except ValueError as error:
        raise SettingsError(f"{name}: {error}") from None
    choices = option.metadata.get("choices")
    if choices and value not in choices:
        raise SettingsError(f"{name} is {value!r}; allowed are {', '.join(choices)}")
    low, high = option.metadata.get("at_least"), option.metadata.get("at_most")
    if low is not None and value != AUTO and value < low:
        raise SettingsError(f"{name} is {value}; it must be at least {low}")
    if high is not None and value != AUTO and value > high:
        raise SettingsError(f"{name} is {value}; it must be at most {high}")
    return value


_PARSERS: dict[Any, Callable[[str], Any]] = {bool: parse_bool, int: parse_int}


class _OneLineParser(argparse.ArgumentParser):
    """argparse prints usage before every error; one sentence is enough."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}; see python app.py --help")


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(
        prog="app.py",
        description="Falcon Mamba in the browser and behind an OpenAI-compatible API.",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=110),
    )
    parser.add_argument("--version", action="version", version=f"falcon-mamba {__version__}")
    for title, section in SECTIONS.items():
        group = parser.add_argument_group(title, section.__doc__)
        for option in fields(section):
            group.add_argument(
                flag(option.name), dest=option.name, help=_help(option), **_argument(option)
            )
    return parser


def _argument(option: Field[Any]) -> dict[str, Any]:
    """Options are read as text here and converted in one place, for both sources alike."""
    if isinstance(option.default, bool):
        return {"nargs": "?", "const": "true", "metavar": "BOOL"}
    choices = option.metadata.get("choices")
    return {"metavar": "{" + ",".join(choices) + "}"} if choices else {}


def _help(option: Field[Any]) -> str:
    assert option.default is not MISSING, option.name
    default = "none" if option.default in (None, ()) else option.default
    text = (
        f"{option.metadata['help']} (default: {default}; {ENVIRONMENT_PREFIX}{option.name.upper()})"
    )
    return text.replace("%", "%%")
