"""The application below /api/v1: routers, problem documents (RFC 9457), the schema and a page that shows it."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

import accord
from accord.feedback.store import DraftConflictError, MissingError
from accord.feedback.studio.api import annotating, managing, reading, talking
from accord.feedback.studio.api.callers import ForbiddenError
from accord.feedback.studio.context import ForgedError, LoginNeededError, Studio, TooManyError
from accord.feedback.studio.security import problem
from accord.feedback.studio.view import page

__all__ = ["create_api"]


def create_api(studio: Studio) -> FastAPI:
    """Make the API of a studio."""
    api = FastAPI(
        title="Accord studio",
        version=accord.__version__,
        description="Lists go by cursor: `after` is the last id seen. Errors are problem documents (RFC 9457).",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    api.state.studio = studio
    api.include_router(annotating.router)
    api.include_router(talking.router)
    api.include_router(managing.router)
    api.include_router(reading.router)
    api.add_api_route("/", _show, include_in_schema=False)
    for kind, status, title in _PROBLEMS:
        api.add_exception_handler(kind, _answer(status, title))
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(HTTPException, _http)
    return api


_PROBLEMS: tuple[tuple[type[Exception], int, str], ...] = (
    (LoginNeededError, 401, "No valid token"),
    (ForgedError, 403, "Not from a page of this session"),
    (ForbiddenError, 403, "Beyond the scopes of this token"),
    (TooManyError, 429, "Too many requests"),
    (MissingError, 404, "Not found"),
    (DraftConflictError, 409, "Changed elsewhere"),
    (ValueError, 400, "That does not fit"),
)


def _json(status: int, title: str, detail: str, headers: dict[str, str] | None = None, **more: object) -> Response:
    return JSONResponse(
        problem(status, title, detail, **more),
        status_code=status,
        headers=headers,
        media_type="application/problem+json",
    )


def _answer(status: int, title: str):  # type: ignore[no-untyped-def]
    def answer(request: Request, error: Exception) -> Response:
        headers = {"Retry-After": str(error.seconds)} if isinstance(error, TooManyError) else {}
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        detail = "there is no such thing for you" if status == 404 else str(error) or title
        return _json(status, title, detail, headers)

    return answer


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [{"field": ".".join(map(str, one["loc"])), "detail": str(one["msg"])} for one in error.errors()]
    detail = "; ".join(f"{one['field']}: {one['detail']}" for one in errors)
    return _json(422, "A field is wrong", detail, errors=errors)


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json(error.status_code, "That does not fit", str(error.detail), dict(error.headers or {}))


def _show(request: Request) -> Response:
    """The schema as a page, without scripts."""
    schema = request.app.openapi()
    calls = [
        {"method": method.upper(), "path": path, **call}
        for path, methods in schema["paths"].items()
        for method, call in methods.items()
    ]
    return page(request, "api.html", calls=calls, about=schema["info"]["description"])
