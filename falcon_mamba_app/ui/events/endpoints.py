"""The named endpoints of the page, for gradio_client.

They write through the same sessions as the page: a Client is a page of its own, and its
conversation lives as long as the Client does.

    from gradio_client import Client

    client = Client("http://127.0.0.1:7860")
    print(client.predict("My name is Ada.", api_name="/chat"))
    for reply in client.submit("What is my name?", temperature=0.2, seed=7, api_name="/chat"):
        print(reply)  # the reply so far, several times a second
    client.predict(api_name="/clear")
    client.close()
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import wraps
from typing import Any, ParamSpec

import gradio as gr
from gradio.events import api

from falcon_mamba_app.errors import FalconMambaError, InvalidRequest
from falcon_mamba_app.protocol import GenerationRequest, GenerationService, Message, Text
from falcon_mamba_app.ui.conversation.begin_turn import (
    begin_turn,
    check_length,
    sentence_for,
    update_interval_s,
)
from falcon_mamba_app.ui.conversation.sessions import Session, Sessions
from falcon_mamba_app.ui.conversation.turn import Target
from falcon_mamba_app.ui.events.answering import chat_request
from falcon_mamba_app.ui.events.chat_and_document import page_of, visitor_of
from falcon_mamba_app.ui.events.targets import ChatTarget, DocumentTarget
from falcon_mamba_app.ui.view.controls import ControlValues, default_values, sampling_params

Texts = AsyncGenerator[str, None]
P = ParamSpec("P")


def streams(endpoint: Callable[P, Texts]) -> Callable[P, Texts]:
    """A function that yields an endpoint's texts; its errors reach the client as a sentence."""

    @wraps(endpoint)
    async def stream(*args: P.args, **kwargs: P.kwargs) -> Texts:
        try:
            async with aclosing(endpoint(*args, **kwargs)) as texts:
                async for text in texts:
                    yield text
        except FalconMambaError as error:
            raise gr.Error(sentence_for(error), print_exception=False) from error

    return stream


class Endpoints:
    """What `/chat`, `/complete` and `/clear` do."""

    def __init__(
        self, service: GenerationService, sessions: Sessions, *, max_message_chars: int
    ) -> None:
        self._service = service
        self._sessions = sessions
        self._max_chars = max_message_chars

    @streams
    def chat(
        self,
        message: str,
        request: gr.Request,
        system_prompt: str = "",
        temperature: float | None = None,
        top_p: float | None = None,
        max_new_tokens: int | None = None,
        seed: int | None = None,
    ) -> Texts:
        """Answer a message in the client's own conversation; streams the reply as it grows.

        What is left out takes the model's own default.
        """
        session = self._session(request)
        values = self._values(system_prompt, temperature, top_p, max_new_tokens, seed)
        if not _text("message", message).strip():
            raise InvalidRequest("The message is empty", param="message")
        asked = [*session.messages, Message("user", message)]
        generation = chat_request(session, asked, values, max_chars=self._max_chars)
        said = session.tree.add(session.tree.head, asked[-1])
        return self._write(page_of(request), session, generation, ChatTarget(session, said))

    @streams
    def complete(
        self,
        prompt: str,
        request: gr.Request,
        temperature: float | None = None,
        top_p: float | None = None,
        max_new_tokens: int | None = None,
        seed: int | None = None,
    ) -> Texts:
        """Continue a text; streams the continuation as it grows, without the prompt."""
        session = self._session(request)
        values = self._values("", temperature, top_p, max_new_tokens, seed)
        check_length(_text("prompt", prompt), self._max_chars)
        generation = GenerationRequest(
            prompt=Text(prompt), sampling=sampling_params(values), session_id=session.id
        )
        return self._write(page_of(request), session, generation, DocumentTarget(session, prompt))

    async def clear(self, request: gr.Request) -> None:
        """Forget the client's conversation and its state."""
        self._sessions.clear(page_of(request))

    def _session(self, request: gr.Request) -> Session:
        """The client's session. Raises Busy."""
        session = self._sessions.of_page(page_of(request))
        self._sessions.claim(session, visitor_of(request))
        session.refuse_if_busy()
        return session

    def _values(
        self,
        system_prompt: str,
        temperature: float | None,
        top_p: float | None,
        max_new_tokens: int | None,
        seed: int | None,
    ) -> ControlValues:
        given: dict[str, Any] = {
            "temperature": temperature,
            "top_p": top_p,
            "max_new_tokens": max_new_tokens,
            "seed": seed,
        }
        given = {name: value for name, value in given.items() if value is not None}
        defaults = default_values(self._service.stats().model)
        return replace(defaults, system_prompt=system_prompt or "", **given)

    async def _write(
        self, page: str, session: Session, generation: GenerationRequest, target: Target
    ) -> Texts:
        """The text so far, each time it has grown; "" for a reply without any. Raises Busy, or
        gr.Error with a sentence.

        A client that goes away does not come back for this reply, so that ends with the call.
        """
        turn = begin_turn(self._service, session, generation, target)
        num_messages = len(session.messages)
        interval_s = update_interval_s(self._service.stats(), num_messages=num_messages)
        try:
            async with aclosing(turn.watch(page, interval_s)) as replies:
                shown = ""
                async for reply in replies:
                    if reply.text != shown:
                        shown = reply.text
                        yield shown
                    if reply.error:
                        raise gr.Error(reply.error, print_exception=False)
                if not shown:
                    yield shown
        finally:
            turn.stop()


def _text(name: str, value: Any) -> str:
    """The value, which may be anything. Raises InvalidRequest."""
    if not isinstance(value, str):
        raise InvalidRequest(f"the {name} must be a text", param=name)
    return value


def add_endpoints(endpoints: Endpoints) -> None:
    """Offer the endpoints in the Blocks being built."""
    for name in ("chat", "complete", "clear"):
        api(getattr(endpoints, name), api_name=name)
