"""The application: middleware, pages, what becomes of errors, and what is done every ten seconds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

import accord
from accord.feedback.store import MissingError, Store, enforce_retention, now_ms, sweep
from accord.feedback.studio.api import create_api
from accord.feedback.studio.config import StudioConfig
from accord.feedback.studio.context import ForgedError, Importer, LoginNeededError, Studio, TooManyError
from accord.feedback.studio.limits import Limits
from accord.feedback.studio.nightly import collect_evidence
from accord.feedback.studio.pages import PAGES
from accord.feedback.studio.security import BodyLimit, Hardening, problem
from accord.feedback.studio.view import FOLDER, page, redirect

__all__ = ["create_app"]

SWEEP_SECONDS = 10
DAY_SECONDS = 86_400

log = logging.getLogger("accord.studio")


def create_app(
    store: Store,
    config: StudioConfig,
    *,
    models: Mapping[str, Any] | None = None,
    importer: Importer | None = None,
    clock: Callable[[], int] = now_ms,
) -> FastAPI:
    """Make the application.

    Args:
        store: where everything is kept; the caller closes it.
        config: settings.
        models: name -> a model people can talk to.
        importer: reads files that admins send, such as `accord.pipelines.feedback_data.import_upload`.
        clock: UTC milliseconds; another one in tests.
    """
    app = FastAPI(
        title="Accord studio",
        version=accord.__version__,
        lifespan=_sweeping,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.studio = Studio(
        store=store,
        config=config,
        models={} if models is None else models,
        limits=Limits(config.requests_per_minute),
        clock=clock,
        importer=importer,
    )
    app.add_middleware(BodyLimit)
    app.add_middleware(Hardening, secure=config.secure)
    for module in PAGES:
        app.include_router(module.router)
    # The script and styles of the explorer's map are those of `accord data explore`.
    static = _Static(directory=FOLDER / "static", packages=[("accord.feedback.explore", "static")])
    app.mount("/api/v1", create_api(app.state.studio), name="api")
    app.mount("/static", static, name="static")
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    return app


class _Static(StaticFiles):
    """Files that a browser may keep; their address carries the version."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "public, max-age=3600"
        return response


@asynccontextmanager
async def _sweeping(app: FastAPI) -> AsyncIterator[None]:
    """As long as the server runs free leases and count what is done; at its start and daily erase what is old."""
    task = asyncio.create_task(_sweep_for_ever(app.state.studio))
    try:
        yield
    finally:
        task.cancel()
        app.state.studio.explorations.close()
        await run_in_threadpool(app.state.studio.writings.close)


async def _sweep_for_ever(studio: Studio) -> None:
    next_night = 0.0
    while True:
        try:
            if time.monotonic() >= next_night:
                next_night = time.monotonic() + DAY_SECONDS
                await run_in_threadpool(studio.store.run, enforce_retention, now=studio.clock())
                await run_in_threadpool(collect_evidence, studio)
            await run_in_threadpool(studio.store.run, sweep, now=studio.clock())
            await run_in_threadpool(studio.counts.renew, studio.store)
        except Exception:  # the next round tries again; a busy database must not end the sweeping
            log.exception("the sweep of leases, or the count of what is done, failed")
        await asyncio.sleep(SWEEP_SECONDS)


def _wants_json(request: Request) -> bool:
    return request.url.path.startswith("/api/") or "application/json" in request.headers.get("accept", "")


def _failure(request: Request, status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> Response:
    if _wants_json(request):
        return JSONResponse(
            problem(status, title, detail), status_code=status, headers=headers, media_type="application/problem+json"
        )
    response = page(request, "error.html", status=status, title=title, detail=detail)
    response.headers.update(headers or {})
    return response


def _login_needed(request: Request, _: Exception) -> Response:
    if _wants_json(request) or request.headers.get("hx-request") or request.method != "GET":
        detail = "You are logged out. Log in in another tab, then send again: what you typed is still on the page."
        return _failure(
            request, 401, "Please log in", detail, {"HX-Redirect": "/login"} if request.method == "GET" else None
        )
    here = request.url.path
    return redirect("/login") if here == "/" else redirect("/login", next=here)


def _forged(request: Request, _: Exception) -> Response:
    detail = (
        "This form belongs to another session or another site, so nothing was changed. Go back, load the page again "
        "and send once more; drafts are kept."
    )
    return _failure(request, 403, "Not accepted", detail)


def _too_many(request: Request, error: Exception) -> Response:
    assert isinstance(error, TooManyError)
    detail = f"That was faster than a person can work. Nothing was lost; go on in {error.seconds} s."
    return _failure(request, 429, "A moment, please", detail, {"Retry-After": str(error.seconds)})


def _missing(request: Request, _: Exception) -> Response:
    detail = "There is no such page, or it is not for you. Nothing was changed."
    return _failure(request, 404, "Not found", detail)


def _refused(request: Request, error: Exception) -> Response:
    return _failure(request, 400, "That does not fit", str(error))


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return _missing(request, error)
    return _failure(request, error.status_code, "That does not fit", str(error.detail), dict(error.headers or {}))


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    fields = [
        {"field": ".".join(str(one) for one in found["loc"]), "detail": str(found["msg"])} for found in error.errors()
    ]
    detail = "; ".join(f"{one['field']}: {one['detail']}" for one in fields)
    if _wants_json(request):
        return JSONResponse(
            problem(422, "A field is wrong", detail, errors=fields),
            status_code=422,
            media_type="application/problem+json",
        )
    return _failure(request, 422, "A field is wrong", detail)


def _broken(request: Request, error: Exception) -> Response:
    log.error("a request failed: %s", type(error).__name__, exc_info=error)
    detail = "This is a fault of the studio and is in its log. Your draft is kept; go back and try again."
    return _failure(request, 500, "Something broke", detail)


_HANDLERS: dict[type[Exception], Callable[[Request, Exception], Response]] = {
    LoginNeededError: _login_needed,
    ForgedError: _forged,
    TooManyError: _too_many,
    MissingError: _missing,
    ValueError: _refused,
    HTTPException: _http,
    RequestValidationError: _invalid,
    Exception: _broken,
}
