"""What handlers are given: the studio, who is asking, and a form that has passed the checks on forged requests.

@router.post("/c/{campaign_id}/submit")
def submit(campaign_id: str, studio: StudioOf, me: Me, form: Form) -> Response: ...
"""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData

from accord.feedback.store import Store, now_ms
from accord.feedback.store.personal_data import Numbers
from accord.feedback.store.queries.logins import seen_session
from accord.feedback.studio.config import StudioConfig
from accord.feedback.studio.counts import Counts
from accord.feedback.studio.explorations import Explorations
from accord.feedback.studio.limits import Limits
from accord.feedback.studio.reports import Reports
from accord.feedback.studio.security import is_from_here
from accord.feedback.studio.writing import Writings
from accord.protocols import Generate

__all__ = [
    "ForgedError",
    "Form",
    "Imported",
    "Importer",
    "LoginNeededError",
    "Me",
    "OpenForm",
    "Studio",
    "StudioOf",
    "TooManyError",
    "Visitor",
    "cookie_name",
    "in_thread",
    "studio_of",
]


class Imported(Protocol):
    """What became of the rows of a file: `accord.pipelines.feedback_data.ImportOutcome`."""

    @property
    def rows(self) -> int:
        """Rows that were read."""
        ...

    @property
    def formats(self) -> Mapping[str, int]:
        """Rows by format."""
        ...

    @property
    def items(self) -> int:
        """Distinct items they are now."""
        ...

    @property
    def judgments(self) -> int:
        """Judgments that came with them and were not there before."""
        ...

    @property
    def finds(self) -> Mapping[str, int]:
        """Personal data that was replaced, by type."""
        ...

    @property
    def bad_rows(self) -> Sequence[Any]:
        """What was left out: `row` and `message`."""
        ...


class Importer(Protocol):
    """Reads a file into a campaign. The studio does not read formats: they belong to `accord.data`."""

    def __call__(self, store: Store, path: Path, *, campaign_id: str, source: str, kind: str) -> Imported:
        """Import a file."""
        ...


@dataclass(frozen=True, kw_only=True)
class Studio:
    """What all requests share.

    Attributes:
        store: where everything is kept.
        config: settings.
        models: name -> a model people can talk to.
        limits: counts of logins and requests.
        clock: UTC milliseconds.
        reports: of campaigns, kept until something changes.
        counts: how far campaigns are, as of a moment ago.
        explorations: of chat logs, in memory.
        writings: replies of models on their way.
        placeholders: conversation -> the numbers of what was replaced in it, in memory only: [EMAIL_1] stays the same
            address for as long as the server runs.
        importer: reads uploaded files; None: there is no page for that.
    """

    store: Store
    config: StudioConfig
    limits: Limits
    models: Mapping[str, Generate] = field(default_factory=dict)
    clock: Callable[[], int] = now_ms
    reports: Reports = field(default_factory=Reports)
    counts: Counts = field(default_factory=Counts)
    explorations: Explorations = field(default_factory=Explorations)
    writings: Writings = field(default_factory=Writings)
    placeholders: dict[str, Numbers] = field(default_factory=dict)
    importer: Importer | None = None


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """A person who is logged in. `csrf` goes into every form of theirs."""

    user_id: str
    handle: str
    is_admin: bool
    manages: bool  # an admin of the site or of some project
    session_id: str
    csrf: str


class LoginNeededError(Exception):
    """Nobody is logged in, or no longer."""


class ForgedError(Exception):
    """A change that does not come from a page of this session."""


class TooManyError(Exception):
    """Too many requests. `seconds` is how long to wait."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        super().__init__(f"too many requests; wait {seconds} s")


def studio_of(request: Request) -> Studio:
    """The studio of this application."""
    studio = request.app.state.studio
    assert isinstance(studio, Studio)
    return studio


StudioOf = Annotated[Studio, Depends(studio_of)]


def cookie_name(config: StudioConfig) -> str:
    """Under TLS with the prefix that browsers let nobody else set."""
    return "__Host-session" if config.secure else "session"


def visitor(request: Request, studio: StudioOf) -> Visitor:
    """Who is asking, by the cookie.

    Raises:
        LoginNeededError: there is no valid session.
        TooManyError: it asks too often.
    """
    token = request.cookies.get(cookie_name(studio.config), "")
    now = studio.clock()
    login = seen_session(studio.store, token=token, now=now) if token else None
    if login is None:
        raise LoginNeededError
    wait = studio.limits.request_wait(login.session_id, now)
    if wait:
        raise TooManyError(-(-wait // 1000))
    found = Visitor(
        user_id=login.user_id,
        handle=login.handle,
        is_admin=login.is_admin,
        manages=login.manages,
        session_id=login.session_id,
        csrf=login.csrf,
    )
    request.state.me = found
    return found


Me = Annotated[Visitor, Depends(visitor)]


async def open_form(request: Request) -> AsyncIterator[FormData]:
    """The form of someone who need not be logged in: it has to come from a page of ours."""
    if not is_from_here(request):
        raise ForgedError
    async with request.form(max_files=4, max_fields=5000) as form:  # which closes files that came with it
        yield form


OpenForm = Annotated[FormData, Depends(open_form)]


def checked_form(request: Request, me: Me, form: OpenForm) -> FormData:
    """The form of a page of this very session: it has its token, as a field or a header."""
    token = request.headers.get("x-csrf-token") or str(form.get("csrf", ""))
    if not hmac.compare_digest(token.encode(), me.csrf.encode()):
        raise ForgedError
    return form


Form = Annotated[FormData, Depends(checked_form)]


async def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call something that waits for the database from a handler that must not wait."""
    return await run_in_threadpool(function, *args, **kwargs)
