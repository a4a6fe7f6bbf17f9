"""The page behind a proxy that shows it under /demo and has another application beside it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tests.browser.conftest import LAPTOP, send, transcript, wait_for_status
from tests.support.api_fixtures import until
from tests.support.echo_service import EchoService
from tests.support.page_server import serve_page

NOT_PASSED_ON = ("host", "content-length", "transfer-encoding", "connection")


@asynccontextmanager
async def proxy(behind: str) -> AsyncIterator[tuple[str, list[str]]]:
    """As nginx' `location /demo/ { proxy_pass http://app/; }`; and what was asked for beside it."""
    strays: list[str] = []
    async with httpx.AsyncClient(base_url=behind, timeout=None) as client:

        async def passed_on(request: Request) -> Response:
            path = request.url.path.removeprefix("/demo") or "/"
            headers = {k: v for k, v in request.headers.items() if k not in NOT_PASSED_ON}
            headers |= {"host": request.url.netloc, "x-forwarded-host": request.url.netloc}
            asked = client.build_request(
                request.method,
                path + (f"?{request.url.query}" if request.url.query else ""),
                headers=headers,
                content=await request.body(),
            )
            answer = await client.send(asked, stream=True)
            kept = {k: v for k, v in answer.headers.items() if k not in NOT_PASSED_ON}
            return StreamingResponse(answer.aiter_raw(), answer.status_code, kept)

        async def stray(request: Request) -> Response:
            strays.append(request.url.path)
            return Response("another application", 404)

        methods = ["GET", "HEAD", "POST", "PUT", "DELETE"]
        routes = [
            Route("/demo", passed_on, methods=methods),
            Route("/demo/{rest:path}", passed_on, methods=methods),
            Route("/{rest:path}", stray, methods=methods),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes), log_level="critical", timeout_graceful_shutdown=1
        )
        with socket.socket(proto=socket.IPPROTO_TCP) as listener:
            listener.bind(("127.0.0.1", 0))
            server = uvicorn.Server(config)
            task = asyncio.create_task(server.serve(sockets=[listener]))
            await until(lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", strays
            server.should_exit = True
            await task


async def test_login_chat_reload_and_logout_stay_under_the_root_path(browser):
    service = EchoService()
    with serve_page(service, auth="ada:secret", root_path="/demo") as behind:
        async with proxy(behind) as (url, strays):
            context = await browser.new_context(viewport=LAPTOP)
            page = await context.new_page()
            await page.goto(f"{url}/demo")  # without the slash, as somebody types it
            assert page.url == f"{url}/demo/login?next=/demo/"
            await page.fill("[name=username]", "ada")
            await page.fill("[name=password]", "secret")
            await page.click("button")
            await page.wait_for_selector(".status-line:not([data-phase=starting])")
            assert [c["path"] for c in await context.cookies()] == ["/demo"]
            await send(page, "SAY so \\(x^2\\)")
            await wait_for_status(page, "Done")
            await page.wait_for_selector("#transcript .katex")
            for address in ("/demo/", "/demo"):
                await page.goto(url + address)
                await page.wait_for_selector("#transcript [data-testid=bot]")
                assert "x" in (await transcript(page))[1]
            assert await page.evaluate("fetch('config').then((answer) => answer.status)") == 200
            await page.goto(f"{url}/demo/logout")
            assert urlsplit(page.url).path == "/demo/login"
            assert await context.cookies() == []
            assert set(strays) <= {"/favicon.ico"}  # which a browser asks for by itself
            await context.close()
