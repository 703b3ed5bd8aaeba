"""Middleware: which requests come in, how large they may be, and what leaves with the answers.

Gradio serves far more than this page needs: it fetches addresses for clients, edits videos, keeps sessions
for links, lets a program bypass the queue. Only what the page and the API use is passed on; everything else
is answered with 404. Bodies are limited in size and time, no request makes the server fetch an address, and
files are served from the server's own folder alone.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ovseg_demo.page.server.request_tracker import RequestTracker
from ovseg_demo.page.server.short_calls import EndpointParameters, completed
from ovseg_demo.settings import Settings

__all__ = ["RequestFilter"]

_log = logging.getLogger("ovseg_demo")

ShortCall = Callable[[bytes], tuple[int, dict[str, Any]]]

_API = "/gradio_api"
_UPLOAD = f"{_API}/upload"
_FILE = f"{_API}/file="
_READ = re.compile(
    r"/(config|theme\.css|favicon\.ico|robots\.txt|manifest\.json)?"
    r"|/(assets|static|svelte)/.+"
    rf"|{_API}/(info|openapi\.json|app_id|startup-events|theme\.css|upload_progress|queue/(data|status))/?"
    rf"|{_API}/(login_check|user)/?"  # asked by the server that draws pages on Spaces
    rf"|{_API}/heartbeat/[^/]+"
    rf"|{_API}/call/(v2/)?[^/]+/[^/]+"
    rf"|{_API}/file=.+"
)
_WRITE = re.compile(rf"{_API}/(upload|queue/join|cancel|reset|run/[^/]+|call/(v2/)?[^/]+)/?")
_SHORT_CALL = re.compile(r"/ovseg/([a-z]+)")
_MCP = re.compile(rf"{_API}/mcp(/.*)?")

# Scripts and styles of the page are in the page itself; everything else may only come from here.
_POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; "
    "object-src 'none'; base-uri 'self'; form-action 'self'"
)


class RequestFilter:
    """ASGI middleware around Gradio's program.

    Args:
        app: the program that requests are passed on to.
        settings: limits.
        tracker: counts what is refused, and answers `/healthz` and `/counters`.
        folder: the only folder that files are served from.
        stored_bytes: reads how full that folder is.
        endpoints: what calls may leave out.
        short_calls: answers to what is posted to `/ovseg/NAME`, by name: a JSON body in, HTTP status and
            content out; each is worked out in a thread of its own.
        mcp: whether the tools for language models are served, too.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings,
        tracker: RequestTracker,
        folder: Path,
        stored_bytes: Callable[[], int] = lambda: 0,
        mcp: bool = False,
        endpoints: EndpointParameters | None = None,
        short_calls: Mapping[str, ShortCall] | None = None,
    ) -> None:
        self.app = app
        self.short_calls = short_calls or {}
        self.endpoints = endpoints or {}
        self.settings = settings
        self.tracker = tracker
        self.folder = folder.resolve()
        self.stored_bytes = stored_bytes
        self.mcp = mcp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._request(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if path in ("/healthz", "/counters") and method in ("GET", "HEAD"):
            await self._operator(path, scope, send)
            return
        short = _SHORT_CALL.fullmatch(path) if method == "POST" else None
        if short and short.group(1) in self.short_calls:
            await self._short_call(short.group(1), scope, receive, send)
            return
        known = _READ if method in ("GET", "HEAD") else _WRITE if method in ("POST", "OPTIONS") else None
        if not (known and known.fullmatch(path)) and not (self.mcp and _MCP.fullmatch(path)):
            await self._refuse(send, 404, "There is nothing at this address.")
        elif path.startswith(_FILE) and not self._is_ours(path.removeprefix(_FILE)):
            await self._refuse(send, 403, "This file is not served.")
        elif method == "POST":
            await self._with_body(scope, receive, send)
        else:
            await self._through(scope, receive, send)

    # --- bodies ------------------------------------------------------------------------------------------

    async def _with_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        upload = scope["path"].rstrip("/") == _UPLOAD
        limits = self.settings
        if upload and self.stored_bytes() > limits.max_stored_bytes:
            await self._refuse(send, 507, "There is no room for uploads just now; try again later.")
            return
        body = _Body(
            receive, limits.max_batch_bytes if upload else limits.max_request_bytes, limits.timeout_s
        )
        claimed = Headers(scope=scope).get("content-length", "")
        if claimed.isdigit() and int(claimed) > body.most:
            body.fault = _TOO_LARGE
        if upload and not body.fault:
            await self._passing_on(scope, body, send)
            return
        whole = b"" if body.fault else await body.whole()
        whole, lacking = completed(scope["path"], whole, self.endpoints)
        if body.fault:
            await self._refuse(send, *body.fault)
        elif _names_an_address(whole):
            await self._refuse(send, 400, "Files are not fetched from an address; upload them.")
        elif lacking:
            await self._refuse(send, 422, lacking)
        else:
            await self._through(scope, body.again(whole), _busy(send, self._refuse))

    async def _short_call(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        # A page of another site cannot send this kind without being asked whether it may.
        kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip()
        if kind != "application/json":
            await self._refuse(send, 415, "This takes JSON.")
            return
        body = _Body(receive, self.settings.max_request_bytes, self.settings.timeout_s)
        whole = await body.whole()
        if body.fault:
            await self._refuse(send, *body.fault)
            return
        status, content = await run_in_threadpool(self.short_calls[name], whole)
        await _answer(send, JSONResponse(content, status))

    async def _passing_on(self, scope: Scope, body: _Body, send: Send) -> None:
        """Pass the body on in pieces; one that is too large or too slow is answered at once."""
        answered, sealed = False, _sealed(send)

        async def guarded(message: Message) -> None:
            nonlocal answered
            if body.fault is None:
                answered = True
                await sealed(message)

        try:
            await self.app(scope, body.receive, guarded)
        except Exception:
            # The app takes the end of the body for a lost connection.
            if body.fault is None:
                raise
        if body.fault is not None and not answered:
            await self._refuse(send, *body.fault)

    async def _through(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; an exception becomes a sentence, and the log holds no values."""
        started, sealed = False, _sealed(send)

        async def noting(message: Message) -> None:
            nonlocal started
            started = True
            await sealed(message)

        try:
            await self.app(scope, receive, noting)
        except Exception:
            _log.error("inside", exc_info=True)
            if not started:
                await self._refuse(send, 500, "Something went wrong here; please try again.")

    # --- answers -----------------------------------------------------------------------------------------

    async def _refuse(self, send: Send, status: int, sentence: str) -> None:
        self.tracker.count("refused", str(status))
        await _answer(send, JSONResponse({"detail": sentence}, status))

    async def _operator(self, path: str, scope: Scope, send: Send) -> None:
        if path == "/healthz":
            status, facts = self.tracker.health()
            await _answer(send, JSONResponse(facts, status))
        elif self._is_operator(scope):
            await _answer(send, PlainTextResponse(self.tracker.counters()))
        else:
            await self._refuse(send, 403, "This page is for the operator.")

    def _is_operator(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        if token := self.settings.operator_token:
            shown = headers.get("authorization", "")
            return hmac.compare_digest(shown.encode(), f"Bearer {token}".encode())
        # A request through a proxy is not the operator's, even if the proxy is on this machine.
        if headers.get("x-forwarded-for") or headers.get("forwarded"):
            return False
        try:
            return ipaddress.ip_address((scope.get("client") or ("", 0))[0]).is_loopback
        except ValueError:
            return False

    def _is_ours(self, path: str) -> bool:
        try:
            return Path(path).resolve().is_relative_to(self.folder)
        except (OSError, ValueError, RuntimeError):
            return False


_NOT_UNDERSTOOD = (
    b'"error": "The request could not be understood; /gradio_api/info lists what each endpoint takes."'
)
_TOO_LARGE = (413, "This is more than is taken at once; send less.")
_TOO_SLOW = (408, "This took too long to arrive; try again.")


class _Body:
    """What a client sends, up to a size and for a time."""

    def __init__(self, receive: Receive, most: int, timeout_s: float) -> None:
        self._receive = receive
        self._until = time.monotonic() + timeout_s
        self._came = 0
        self._ended = False
        self.most = most
        self.fault: tuple[int, str] | None = None

    async def receive(self) -> Message:
        """The next piece; `http.disconnect` once there is a fault."""
        if self.fault:
            return {"type": "http.disconnect"}
        if self._ended:
            return await self._receive()  # which tells when the client goes
        try:
            message = await asyncio.wait_for(self._receive(), max(0.01, self._until - time.monotonic()))
        except (TimeoutError, asyncio.TimeoutError):
            self.fault = _TOO_SLOW
            return {"type": "http.disconnect"}
        self._came += len(message.get("body", b""))
        if self._came > self.most:
            self.fault = _TOO_LARGE
            return {"type": "http.disconnect"}
        self._ended = not message.get("more_body", False)
        return message

    async def whole(self) -> bytes:
        """All of it; what there is by then if there is a fault or the client leaves."""
        parts: list[bytes] = []
        while not self._ended and not self.fault:
            message = await self.receive()
            parts.append(message.get("body", b""))
            if message["type"] == "http.disconnect":
                break
        return b"".join(parts)

    def again(self, body: bytes) -> Receive:
        """A `receive` that gives the body in one piece."""
        given = False

        async def receive() -> Message:
            nonlocal given
            if given:
                return await self._receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return receive


def _names_an_address(body: bytes) -> bool:
    """Whether a JSON body asks for a file by an address, which Gradio would fetch."""
    try:
        waiting: list[Any] = [json.loads(body)]
    except (ValueError, RecursionError):
        # The app cannot read it as JSON either.
        return False
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            path = item.get("path")
            if isinstance(path, str) and "://" in path:
                return True
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return False


def _busy(send: Send, refuse: Callable[[Send, int, str], Awaitable[None]]) -> Send:
    """`send` with Gradio's word for a full queue put into ours."""
    full = False

    async def friendly(message: Message) -> None:
        nonlocal full
        if message["type"] == "http.response.start" and message["status"] == 503:
            full = True
            await refuse(
                send, 503, "The demo is busy: its waiting line is full. Please try again in a minute."
            )
        elif not full:
            await send(message)

    return friendly


def _sealed(send: Send) -> Send:
    """`send` with headers that keep a browser from doing more than it should, and without empty errors."""
    events = False

    async def sealed(message: Message) -> None:
        nonlocal events
        if events and message["type"] == "http.response.body":
            # Gradio says nothing of errors that are not ours: arguments that are missing or of another kind.
            told = message.get("body", b"").replace(b'"error": null', _NOT_UNDERSTOOD)
            message = {**message, "body": told.replace(b'"error":null', _NOT_UNDERSTOOD)}
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=list(message.get("headers", [])))
            headers.append("x-content-type-options", "nosniff")
            headers.append("referrer-policy", "no-referrer")
            kind = headers.get("content-type", "")
            events = "text/event-stream" in kind
            if "text/html" in kind:
                headers.append("content-security-policy", _POLICY)
            message = {**message, "headers": headers.raw}
        await send(message)

    return sealed


async def _answer(send: Send, response: Response) -> None:
    response.headers["cache-control"] = "no-store"
    response.headers["x-content-type-options"] = "nosniff"
    start = {"status": response.status_code, "headers": response.raw_headers}
    await send({"type": "http.response.start", **start})
    await send({"type": "http.response.body", "body": response.body})
