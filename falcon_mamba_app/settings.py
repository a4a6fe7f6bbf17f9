"""What can be set, from the command line or the environment. The only reader of both.

Every field below is one option: `max_running` is `--max-running` and `FALCON_MAMBA_MAX_RUNNING`.
The command line wins over the environment, the environment over the default. A variable that is
empty counts as not set, unless it is a secret: a lock without a key would be an open door. What is
unknown, out of range or contradictory is refused with one sentence. Standard library only.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NoReturn

from falcon_mamba_app.errors import SettingsError

ENVIRONMENT_PREFIX = "FALCON_MAMBA_"
SECRETS = ("auth", "api_key", "backend_api_key")
BYTE_UNITS = {
    "": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}


def _option(default: Any, help_text: str, **metadata: Any) -> Any:
    return field(default=default, metadata={"help": help_text, **metadata})


def parse_bytes(text: str) -> int:
    """Bytes from "500MB", "2 GiB" or a plain number."""
    units = {name.lower(): factor for name, factor in BYTE_UNITS.items()}
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(\w*)", text.strip())
    if match is None or match[2].lower() not in units:
        names = ", ".join(filter(None, BYTE_UNITS))
        raise ValueError(f"{text!r} is no size; write bytes, or a number with {names}")
    return int(float(match[1]) * units[match[2].lower()])


def _parse_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is no whole number") from None


def _parse_key(text: str) -> str:
    """A lock that was asked for and is empty would leave the door open."""
    if not text.strip(" ,"):
        raise ValueError("the key is empty; leave the setting out, or give one")
    return text.strip()


def _parse_keys(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in _parse_key(text).split(",") if part.strip())


def _parse_login(text: str) -> str:
    user, _, password = text.partition(":")
    if not user.strip() or not password.strip():
        raise ValueError("it must be USER:PASSWORD, both not empty")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Which model runs, and where."""

    model: str = _option(
        "auto",
        'a known name, a hub id or a folder; "nano" is bundled, "auto" suits the machine',
    )
    revision: str | None = _option(None, "branch, tag or commit of a hub model")
    device: str = _option("auto", "where it runs", choices=("auto", "cpu", "cuda"))
    dtype: str = _option(
        "auto",
        "precision of weights and activations",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    kernels: str = _option(
        "auto",
        "implementation of the recurrence: numba on the CPU, triton on a GPU, reference on both",
        choices=("auto", "reference", "numba", "triton"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How much the engine takes on. Everything that could grow has a limit here."""

    max_running: int = _option(
        0,
        "replies written at the same time, each with a state; 0 is 32 on a GPU, else 8",
        at_least=0,
    )
    max_waiting: int = _option(64, "requests that may wait in line; more are refused", at_least=0)
    max_prefill_tokens: int = _option(
        0, "prompt tokens read between two decode steps; 0 is 2048 on a GPU, else 512", at_least=0
    )
    max_prompt_tokens: int = _option(131_072, "longest prompt accepted", at_least=1)
    max_new_tokens: int = _option(4_096, "longest reply a request may ask for", at_least=1)
    snapshot_bytes: int = _option(
        2 * 2**30, "host memory for the states of idle sessions", at_least=0, parse=parse_bytes
    )
    threads: int | None = _option(
        None, "CPU threads; default: all cores", at_least=1, parse=_parse_int
    )

    def on(self, *, has_gpu: bool) -> EngineSettings:
        """These settings with what suits the device in place of the zeros."""
        return replace(
            self,
            max_running=self.max_running or (32 if has_gpu else 8),
            max_prefill_tokens=self.max_prefill_tokens or (2048 if has_gpu else 512),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Who may reach the service, and what stands behind it."""

    host: str = _option("127.0.0.1", "address to listen on")
    port: int = _option(7860, "port to listen on", at_least=0, at_most=65_535)
    share: bool = _option(False, "also open a public link through Gradio's relay")
    auth: str | None = _option(None, "USER:PASSWORD that the page asks for", parse=_parse_login)
    api_key: tuple[str, ...] = _option(
        (), "key, or keys with commas, that /v1 asks for", parse=_parse_keys
    )
    backend_url: str | None = _option(
        None, "serve the model of another OpenAI-compatible server, such as http://host:8000/v1"
    )
    backend_api_key: str | None = _option(None, "key for --backend-url", parse=_parse_key)
    log_level: str = _option(
        "info", "how much the terminal tells", choices=("debug", "info", "warning", "error")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one process."""

    model: ModelSettings = field(default_factory=ModelSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    server: ServerSettings = field(default_factory=ServerSettings)


SECTIONS: dict[str, type] = {
    "model": ModelSettings,
    "engine": EngineSettings,
    "server": ServerSettings,
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
        if value or name in SECRETS:
            given.setdefault(name, value)
    values = {name: _convert(options[name], text) for name, text in given.items()}
    settings = Settings(
        **{
            section: kind(**{o.name: values[o.name] for o in fields(kind) if o.name in values})
            for section, kind in SECTIONS.items()
        }
    )
    _refuse_contradictions(settings, values)
    return settings


def _convert(option: Field[Any], text: str) -> Any:
    """The value of one option from its text. Raises SettingsError naming the option."""
    flag = _flag(option)
    parse = option.metadata.get("parse") or _PARSERS.get(type(option.default), str)
    try:
        value = parse(text)
    except ValueError as error:
        raise SettingsError(f"{flag}: {error}") from None
    choices = option.metadata.get("choices")
    if choices and value not in choices:
        raise SettingsError(f"{flag} is {value!r}; allowed are {', '.join(choices)}")
    low, high = option.metadata.get("at_least"), option.metadata.get("at_most")
    if low is not None and value < low:
        raise SettingsError(f"{flag} is {value}; it must be at least {low}")
    if high is not None and value > high:
        raise SettingsError(f"{flag} is {value}; it must be at most {high}")
    return value


def _parse_bool(text: str) -> bool:
    words = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }
    if text.strip().lower() not in words:
        raise ValueError(f"{text!r} is neither true nor false")
    return words[text.strip().lower()]


_PARSERS: dict[Any, Callable[[str], Any]] = {bool: _parse_bool, int: _parse_int}


def _refuse_contradictions(settings: Settings, given: Mapping[str, Any]) -> None:
    server, model = settings.server, settings.model
    if server.backend_url is not None:
        if not server.backend_url.startswith(("http://", "https://")):
            raise SettingsError(
                f"--backend-url is {server.backend_url!r}; it must start with http:// or https://"
            )
        local = (
            "revision",
            "device",
            "dtype",
            "kernels",
            "threads",
            "max_running",
            "max_waiting",
            "max_prefill_tokens",
            "max_prompt_tokens",
            "snapshot_bytes",
        )
        for name in local:
            if name in given:
                flag = "--" + name.replace("_", "-")
                raise SettingsError(
                    f"{flag} belongs to a model that runs here, not behind --backend-url"
                )
    elif server.backend_api_key is not None:
        raise SettingsError("--backend-api-key needs --backend-url")
    if model.revision and Path(model.model).is_dir():
        raise SettingsError(f"--revision belongs to a hub model; {model.model} is a folder")
    if model.revision and model.model in ("auto", "nano"):
        raise SettingsError(f"--revision needs a hub model; --model is {model.model}")
    if model.device == "cpu" and model.dtype == "float16":
        raise SettingsError("--dtype float16 needs a GPU; on the CPU use float32 or bfloat16")
    if model.device == "cpu" and model.kernels == "triton":
        raise SettingsError(
            f"--kernels {model.kernels} needs a GPU; on the CPU use auto, numba or reference"
        )
    if model.device == "cuda" and model.kernels == "numba":
        raise SettingsError(
            "--kernels numba runs on the CPU; on a GPU use auto, triton or reference"
        )


def _flag(option: Field[Any]) -> str:
    return "--" + option.name.replace("_", "-")


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
    for title, section in SECTIONS.items():
        group = parser.add_argument_group(title, section.__doc__)
        for option in fields(section):
            group.add_argument(
                _flag(option), dest=option.name, help=_help(option), **_argument(option)
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
