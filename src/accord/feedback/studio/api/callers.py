"""Who calls: a program with a bearer token and its scopes, or a browser with its session and token against forgery."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from accord.feedback.store.queries.tokens import SCOPES, token_of
from accord.feedback.studio.context import ForgedError, LoginNeededError, Studio, StudioOf, TooManyError, visitor
from accord.feedback.studio.security import is_from_here

__all__ = ["Admin", "Annotator", "Caller", "ForbiddenError", "Reviewer"]


class ForbiddenError(Exception):
    """The token does not reach that far."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """A person, and what the token lets a program do for them. `session_id` is that of the login or of the token."""

    user_id: str
    session_id: str
    scopes: frozenset[str]


_bearer = HTTPBearer(auto_error=False, description="A token of the account page, with scopes.")


def caller(
    request: Request, studio: StudioOf, bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    """Who calls.

    Raises:
        LoginNeededError: neither a valid token nor a session.
        ForgedError: a session without its token against forgery, on a call that changes something.
        TooManyError: too often.
    """
    if bearer is None:
        return _of_session(request, studio)
    row = studio.store.read(token_of, token=bearer.credentials, now=studio.clock())
    if row is None:
        raise LoginNeededError("the token is unknown, revoked or expired; make one on the account page")
    wait = studio.limits.request_wait(row.id, studio.clock())
    if wait:
        raise TooManyError(-(-wait // 1000))
    return Caller(user_id=row.user_id, session_id=row.id, scopes=frozenset(row.scopes))


def _of_session(request: Request, studio: Studio) -> Caller:
    me = visitor(request, studio)
    if request.method != "GET":
        sent = request.headers.get("x-csrf-token", "")
        if not is_from_here(request) or not hmac.compare_digest(sent.encode(), me.csrf.encode()):
            raise ForgedError("send the session's token as X-CSRF-Token, from a page of this site")
    return Caller(user_id=me.user_id, session_id=me.session_id, scopes=frozenset(SCOPES))


def _needs(scope: str):  # type: ignore[no-untyped-def]
    def check(who: Annotated[Caller, Depends(caller)]) -> Caller:
        if scope not in who.scopes:
            raise ForbiddenError(f"this needs the scope {scope!r}; make a token that has it")
        return who

    return check


Annotator = Annotated[Caller, Depends(_needs("annotate"))]
Reviewer = Annotated[Caller, Depends(_needs("review"))]
Admin = Annotated[Caller, Depends(_needs("admin"))]
