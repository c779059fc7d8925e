"""What holds for every request: headers, size of bodies, where a change may come from, a line of log."""

from __future__ import annotations

import json
import logging
import time
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["BodyLimit", "Hardening", "is_from_here"]

LARGEST_BODY = 1 << 20  # bytes
LARGEST_IMPORT = 200 << 20

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    # `no-referrer` would make browsers send `Origin: null` with our own forms, and the check below blind.
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

log = logging.getLogger("accord.studio")


class Hardening:
    """Adds the headers to every response, and writes one line per request: method, route, status, milliseconds.

    The route is its template, `/join/{token}`: no ids, no tokens, no query and no text of anyone reaches the log.
    """

    def __init__(self, app: ASGIApp, *, secure: bool) -> None:
        self._app, self._secure = app, secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = 500, time.monotonic()

        async def with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                if self._secure:
                    headers["Strict-Transport-Security"] = "max-age=31536000"
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            line = {"method": scope["method"], "route": route, "status": status}
            log.info(json.dumps({**line, "ms": round(1000 * (time.monotonic() - began), 1)}))


class BodyLimit:
    """Refuses bodies over 1 MiB (200 MiB where files are imported), by their stated and by their real length."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        largest = LARGEST_IMPORT if scope["path"].endswith("/import") else LARGEST_BODY
        stated = Headers(scope=scope).get("content-length", "0")
        if not stated.isdigit() or int(stated) > largest:
            await _too_large(largest)(scope, receive, send)
            return
        seen = 0
        answered = False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > largest:
                raise _TooLargeError
            return message

        async def noted(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self._app(scope, counted, noted)
        except _TooLargeError:
            if not answered:
                await _too_large(largest)(scope, receive, send)


class _TooLargeError(Exception):
    pass


def _too_large(largest: int) -> PlainTextResponse:
    text = f"The request is larger than {largest >> 20} MiB. Nothing of it was kept; send less at a time.\n"
    return PlainTextResponse(text, status_code=413)


def is_from_here(request: Request) -> bool:
    """Whether a request that changes something comes from a page of ours, or from no page at all (a program).

    Browsers say so in Sec-Fetch-Site, which no page can forge, and in Origin.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin")
    if origin is None:
        return True
    return site == "same-origin" if origin == "null" else urlsplit(origin).netloc == request.headers.get("host")


def problem(status: int, title: str, detail: str, **more: Any) -> dict[str, Any]:
    """A problem document (RFC 9457)."""
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
