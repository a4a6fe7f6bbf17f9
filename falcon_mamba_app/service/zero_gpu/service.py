"""The service of the page on ZeroGPU: it lends GPU time to visitors of the page only.

It wraps a service and checks the visitor; `worker` and `borrowed_run` borrow the GPU.
https://huggingface.co/docs/hub/spaces-zerogpu
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from falcon_mamba_app.errors import NotSupported
from falcon_mamba_app.protocol import GenerationEvent, GenerationRequest, GenerationService
from falcon_mamba_app.service_wrapper import ServiceWrapper

API_IS_OFF = (
    "this Space runs on ZeroGPU, which lends a GPU to visitors of its page; from a program use"
    " gradio_client and its endpoint /chat"
)


class PageOnly(ServiceWrapper):
    """The service, whose replies are for visitors of the page only.

    `is_visitor` is called in the context of a request.
    """

    def __init__(self, service: GenerationService, is_visitor: Callable[[], bool]) -> None:
        super().__init__(service)
        self._is_visitor = is_visitor

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        if not self._is_visitor():
            raise NotSupported(API_IS_OFF)
        async with aclosing(self._service.generate(request)) as events:
            async for event in events:
                yield event
