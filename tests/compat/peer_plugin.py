"""A pytest plugin for a peer's own tests: they talk to a running server instead of starting one.

It is loaded by name into the peer's test run (see `peers`), knows nothing of this app, and imports
nothing of the peer's: what the tests import of it becomes an empty stand-in.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

URL = os.environ["PEER_URL"].rstrip("/")
STAND_INS = tuple(filter(None, os.environ.get("PEER_STAND_INS", "").split(",")))
HELPERS = os.environ.get("PEER_HELPERS", "")  # the module that starts the peer's servers
PREFIX = os.environ.get("PEER_PREFIX", "")  # of paths that the peer has without it
OTHER_MODELS = os.environ.get("PEER_OTHER_MODELS", "").split(",")


class _Anything(type):
    """A class whose every attribute is another one, and whose every use is allowed."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _anything(name)


def _anything(name: str) -> Any:
    """A class that is made of any arguments, and whose objects have any method."""
    body = {"__init__": lambda *_, **__: None, "__getattr__": lambda _, other: _anything(other)}
    return _Anything(name, (), body)


class _StandIn(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _anything(name)


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds empty modules under the names of packages that are not needed."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> Any:
        if name.partition(".")[0] in STAND_INS:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__path__ = []


class RunningServer:
    """In place of the peer's class that starts a server: the one that runs already."""

    DUMMY_API_KEY = os.environ.get("PEER_KEY", "token-abc123")

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> RunningServer:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    @property
    def url_root(self) -> str:
        return URL

    def url_for(self, *parts: str) -> str:
        return "/".join((URL, *parts))

    def get_client(self, **options: Any) -> Any:
        import openai

        return openai.OpenAI(**self._options(options))

    def get_async_client(self, **options: Any) -> Any:
        import openai

        return openai.AsyncOpenAI(**self._options(options))

    def _options(self, given: dict[str, Any]) -> dict[str, Any]:
        own = {"base_url": f"{URL}/v1", "api_key": self.DUMMY_API_KEY, "max_retries": 0}
        return {"timeout": 600, **own, **given}


class Whatever(str):
    """A text of another model's, or a count of its tokens: equal to everything, and as a pattern
    found in every text.
    """

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """What depends on the peer's own model is not compared, in tests that have the first of the
    parameters: others may send a parameter of the same name.
    """
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if OTHER_MODELS[0] in parameters:
            parameters.update({name: Whatever() for name in OTHER_MODELS if name in parameters})


COUNTED: dict[str, dict[str, str]] = {"passed": {}, "failed": {}, "left out": {}}


def pytest_deselected(items: list[Any]) -> None:
    COUNTED["left out"] |= {item.nodeid: "" for item in items}


def pytest_runtest_logreport(report: Any) -> None:
    """Each case once, with the first line of why it failed."""
    if report.failed:
        lines = str(getattr(report.longrepr, "reprcrash", report.longrepr)).splitlines()
        COUNTED["failed"].setdefault(report.nodeid, lines[0] if lines else "")
        COUNTED["passed"].pop(report.nodeid, None)
    elif report.passed and report.when == "call":
        COUNTED["passed"][report.nodeid] = ""
    elif report.skipped:
        COUNTED["left out"][report.nodeid] = ""


def pytest_sessionfinish() -> None:
    if path := os.environ.get("PEER_COUNTS"):
        Path(path).write_text(json.dumps(COUNTED))


def _prefix_paths() -> None:
    """Send what the peer's tests ask of /chat/completions to /v1/chat/completions."""
    import requests

    original = requests.Session.request

    def request(session: Any, method: str, url: str, *args: Any, **options: Any) -> Any:
        path = url.removeprefix(URL)
        is_bare = url != path and not path.startswith(PREFIX)
        return original(session, method, URL + PREFIX + path if is_bare else url, *args, **options)

    requests.Session.request = request  # type: ignore[method-assign]


if PREFIX:
    _prefix_paths()
sys.meta_path.insert(0, _StandIns())
if HELPERS:
    helpers = _StandIn(HELPERS)
    helpers.RemoteOpenAIServer = RunningServer  # type: ignore[attr-defined]
    sys.modules[HELPERS] = helpers
