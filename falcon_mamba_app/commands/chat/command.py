"""The arguments of `falcon-mamba chat`."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from platformdirs import user_state_path
from rich.console import Console

from falcon_mamba_app.commands.chat.client import Client
from falcon_mamba_app.commands.chat.talk import Talk
from falcon_mamba_app.commands.chat.terminal import Terminal, line_reader
from falcon_mamba_app.errors import BackendError
from falcon_mamba_app.settings import load_settings

MAX_UNREACHABLE_S = 10.0


def chat(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Talk until the end of the input. Raises FalconMambaError."""
    parser = argparse.ArgumentParser(
        prog="falcon-mamba chat",
        description="A conversation in the terminal. Without --url the model runs here; then the"
        " server's options (--model, --threads, …) are options of this command too.",
    )
    parser.add_argument("--url", help="a running server, as http://127.0.0.1:7860")
    parser.add_argument(
        "--key", default=environment.get("OPENAI_API_KEY"), help="its API key (OPENAI_API_KEY)"
    )
    parser.add_argument("--system", metavar="TEXT", help="a system prompt")
    parser.add_argument("--temperature", type=float, help="0 always takes the likeliest token")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="the longest reply")
    parser.add_argument("--history", metavar="FILE", help="where typed lines are kept")
    parser.add_argument("--no-history", action="store_true", help="keep no typed lines")
    given, rest = parser.parse_known_args(list(arguments))
    if given.url and rest:
        parser.error(f"{rest[0]} is no option of a chat with a server elsewhere")
    console = Console(highlight=False)
    with _server(given.url, given.key, rest, environment) as (url, key):
        client = Client(url, key)
        with closing(client):
            _wait_until_ready(client, console)
            options: dict[str, Any] = {}
            if given.temperature is not None:
                options["temperature"] = given.temperature
            if given.max_tokens is not None:
                options["max_output_tokens"] = given.max_tokens
            talk = Talk(client, model=client.model()["id"], options=options)
            talk.system_prompt = given.system
            console.print(f"{client.model()['id']}. /help names the commands.", markup=False)
            Terminal(talk, client, console, line_reader(_history(given))).run()
    return 0


@contextmanager
def _server(
    url: str | None, key: str | None, options: list[str], environment: Mapping[str, str]
) -> Iterator[tuple[str, str | None]]:
    """The server that was named, or one in this process."""
    if url is not None:
        yield url, key
        return
    from falcon_mamba_app.commands.chat.local import local_server

    logging.disable(logging.WARNING)  # the lines between are the conversation's
    with local_server(load_settings(options, environment)) as found:
        yield found


def _wait_until_ready(client: Client, console: Console) -> None:
    """Raises BackendError for a server that will never be ready."""
    begun_s = time.monotonic()
    with console.status("Loading the model …") as shown:
        while (health := client.health())["status"] != "ready":
            is_gone = time.monotonic() - begun_s > MAX_UNREACHABLE_S
            if health["status"] == "unreachable" and is_gone:
                raise BackendError(f"there is no server at {client.url}")
            if health["status"] == "failed":
                raise BackendError(str(health.get("detail") or "the server has failed"))
            shown.update(str(health.get("detail") or "Loading the model …"))
            time.sleep(0.1)


def _history(given: argparse.Namespace) -> Path | None:
    if given.no_history:
        return None
    if given.history:
        return Path(given.history).expanduser()
    return user_state_path("falcon-mamba-app", appauthor=False) / "chat-history"
