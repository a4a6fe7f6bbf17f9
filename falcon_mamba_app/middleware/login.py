"""The page's login, which guards everything but the API.

A visitor is signed in by a cookie that this server has signed. The server stores nothing, so a
login outlives a restart if the secret does, and a changed password ends all logins. The API has its
own keys and ignores the cookie.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from html import escape
from string import Template
from urllib.parse import parse_qs, quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from falcon_mamba_app.bundled import ASSETS
from falcon_mamba_app.errors import FalconMambaError, TooManyRequests
from falcon_mamba_app.http.errors import HttpError, WrongMethod
from falcon_mamba_app.http.refusals import is_api, refusal
from falcon_mamba_app.http.transport import json_response, read_body
from falcon_mamba_app.middleware.credentials import LOGIN_S, Credentials
from falcon_mamba_app.visitors import Visitor

PAGE = Template((ASSETS / "login.html").read_text("utf-8"))
SIGN_OUT_PAGE = Template(
    PAGE.template.partition("<form")[0].replace("sign in", "sign out")
    + '<form method="post" action="$action"><button>Sign out</button></form>\n'
    + "</main>\n</body>\n</html>\n"
)


class NotSignedIn(HttpError):
    """The page asks for a login."""

    http_status = 401
    code = "login_required"


class Login:
    """Lets signed-in requests pass, and shows the login page for all others."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        credentials: Credentials,
        root_path: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Every path that is sent to a browser begins with `root_path` (see `RootPath`)."""
        self._app = app
        self._root_path = root_path
        self._credentials = credentials
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_known = scope.get("state", {}).get("person") is not None  # a trusted proxy knows
        if scope["type"] != "http" or is_api(scope["path"]) or is_known:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except FalconMambaError as error:
            response = refusal(error, scope["path"])
        await (response or self._app)(scope, receive, send)

    async def _answer(self, request: Request) -> Response | None:
        """The login's answer, or None if the request may pass."""
        path = request.url.path.rstrip("/")
        if path == "/logout":
            return self._sign_out(request)
        if path == "/login":
            return await self._sign_in(request)
        cookie = request.cookies.get(self._credentials.cookie_name, "")
        signed = self._credentials.read(cookie, self._clock())
        if signed is not None:
            _name(request, signed.person)
            return None
        if request.method in ("GET", "HEAD") and _wants_html(request):
            query = f"?{request.url.query}" if request.url.query else ""
            target = quote(self._root_path + request.url.path + query)
            return RedirectResponse(f"{self._root_path}/login?next={target}", 303)
        raise NotSignedIn("sign in first: reload the page, or POST to /login")

    async def _sign_in(self, request: Request) -> Response:
        target = self._local(request.query_params.get("next", ""))
        if request.method in ("GET", "HEAD"):
            return self._form(target)
        if request.method != "POST":
            raise WrongMethod("here only GET and POST are allowed", {"Allow": "GET, POST"})
        visitor: Visitor = request.state.visitor
        user = ""
        try:
            form = parse_qs((await read_body(request)).decode("latin-1"))
            user, password = _first(form, "username"), _first(form, "password")
            person = await self._check(visitor, user, password)
        except (NotSignedIn, TooManyRequests) as error:
            if _wants_html(request):
                return self._form(target, error, user)
            return refusal(error, request.url.path)
        signed_in: Response = (
            RedirectResponse(target, 303)
            if _wants_html(request)
            else json_response({"success": True})
        )
        self._set_cookie(request, signed_in, self._credentials.sign(person, self._clock()), LOGIN_S)
        return signed_in

    async def _check(self, visitor: Visitor, user: str, password: str) -> str | None:
        """The name of the person, None for the login that all share. Raises NotSignedIn.

        One attempt after another, so that simultaneous ones count too.
        """
        async with self._one_at_a_time:
            visitor.check_attempts()
            right, person = await self._credentials.match(user, password)
            if not right:
                visitor.count_wrong_key()
                raise NotSignedIn("the user or the password is wrong")
        visitor.count_right_key()
        return person

    def _sign_out(self, request: Request) -> Response:
        """Sign out, but only from this server's page: an image of another site may point to this
        address. (`SameSiteOnly` has refused posts from other sites.)
        """
        is_from_here = request.headers.get("sec-fetch-site") in ("same-origin", "none")
        if request.method != "POST" and not is_from_here:
            return HTMLResponse(SIGN_OUT_PAGE.substitute(action=f"{self._root_path}/logout"))
        response = RedirectResponse(f"{self._root_path}/login", 303)
        self._set_cookie(request, response, "", 0)
        return response

    def _set_cookie(self, request: Request, response: Response, value: str, age_s: int) -> None:
        # In a Space's frame the cookie is a third-party one: it must be marked so, and be secure.
        # With several proxies, the first one speaks to the browser.
        forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
        is_https = "https" in (request.url.scheme, forwarded)
        response.set_cookie(
            self._credentials.cookie_name,
            value,
            max_age=age_s,
            path=self._root_path or "/",
            httponly=True,
            secure=is_https,
            samesite="none" if is_https else "lax",
        )
        if is_https:
            response.headers["set-cookie"] += "; Partitioned"

    def _form(self, target: str, error: FalconMambaError | None = None, user: str = "") -> Response:
        """The login page, with the error of the last attempt and the name that was typed."""
        sentence = "" if error is None else str(error)
        page = PAGE.substitute(
            action=f"{self._root_path}/login?next={quote(target)}",
            error=escape(sentence[:1].upper() + sentence[1:] + "." * bool(sentence)),
            user=escape(user),
            at_user="" if user else "autofocus",
            at_password="autofocus" if user else "",
        )
        response = HTMLResponse(page, 200 if error is None else error.http_status)
        retry_after_s = getattr(error, "retry_after_s", None)
        if retry_after_s is not None:
            response.headers["Retry-After"] = str(retry_after_s)
        return response

    def _local(self, target: str) -> str:
        """`target` if it is a path of this server, otherwise the page: never another site."""
        below = target.removeprefix(self._root_path)
        is_path = below.startswith("/") and below[1:2] not in ("/", "\\") and below.isprintable()
        return target if is_path and target.startswith(self._root_path) else f"{self._root_path}/"


def _name(request: Request, person: str | None) -> None:
    """Tell everybody behind this layer who the visitor is."""
    if person is not None:
        visitor: Visitor = request.state.visitor
        request.state.visitor = visitor.as_person(person)
        request.state.person = person


def _wants_html(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


def _first(form: dict[str, list[str]], name: str) -> str:
    return form.get(name, [""])[0]
