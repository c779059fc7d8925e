"""From a template's name and what it shows to a response."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse

import accord
from accord.feedback.store.asked import HARM_AREAS
from accord.feedback.studio.rendering import anchor, render, render_with_anchors, visible
from accord.feedback.studio.scripts import spoken
from accord.feedback.studio.wording import (
    ADMIN_PAGES,
    CAMPAIGN_PARTS,
    KINDS,
    SKIP_REASONS,
    SUCCESS,
    WITHDRAWALS,
    beside,
    letter_of,
    marked,
    said,
)

__all__ = ["FOLDER", "page", "part", "redirect"]

FOLDER = Path(__file__).parent

THEMES = ("system", "light", "dark")
SIZES = ("normal", "large", "largest")

# What a page may be asked to say after a change: a word in the address, never text from it.
NOTICES = {
    "submitted": "Submitted. Thank you.",
    "late": "Submitted, later than its time; others had taken its places, so it is kept and does not count.",
    "skipped": "Skipped. It will not be asked of you again.",
    "again": "This was submitted before; nothing changed.",
    "saved": "Saved.",
    "revised": "Your new answer is kept; the earlier one stays on record.",
    "consented": "Thank you. You can take this back on your account page at any time.",
    "withdrawn": "Your consent is withdrawn; you will get no further tasks.",
    "confirmed": "Thank you. The guideline stays within reach on every task.",
    "qualified": "That was the last question of the test.",
    "revoked": "Logged out there.",
    "password": "Your password is changed; all your other browsers are logged out.",
    "added": "Added.",
    "reviewed": "Your decision is on record.",
    "excluded": "Excluded. Their judgments are left out when reading; nothing is deleted, and it can be reversed.",
    "reversed": "Reversed. All their judgments are read again.",
    "resumed": "They can go on.",
    "paused": "Paused: no further task until somebody lets them go on.",
    "sent": "Sent. It stands on their first page until they dismiss it.",
    "dismissed": "Let be. It is shown again once there is evidence of another kind.",
    "finished": "The conversation is finished. Thank you.",
}


@lru_cache(maxsize=1)
def _templates() -> Environment:
    environment = Environment(
        # The map of the explorer is the same on its page here and in the file of `accord data explore`.
        loader=FileSystemLoader([FOLDER / "templates", FOLDER.parent / "explore" / "templates"]),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,  # or each page asks the disk about every template it is made of
    )
    environment.filters.update(
        markdown=lambda text: Markup(render(text)),  # nh3 has cleaned it
        guideline=lambda text: Markup(render_with_anchors(text)),  # the same, and names of our own
        anchor=anchor,
        spoken=spoken,
        visible=visible,
        when=when,
        percent=percent,
        number=number,
    )
    environment.globals.update(
        version=accord.__version__,
        themes=THEMES,
        sizes=SIZES,
        kinds=KINDS,
        admin_pages=ADMIN_PAGES,
        campaign_parts=CAMPAIGN_PARTS,
        skip_reasons=SKIP_REASONS,
        success_words=SUCCESS,
        harm_areas=HARM_AREAS,
        withdrawals=WITHDRAWALS,
        letter_of=letter_of,
        marked=marked,
        beside=beside,
        said=said,
    )
    return environment


def when(ms: int | None) -> str:
    """UTC time of a number of milliseconds, to the minute."""
    return "" if ms is None else datetime.fromtimestamp(ms / 1000, UTC).strftime("%d %b %Y, %H:%M UTC")


def percent(share: float | None) -> str:
    """A share in percent, e.g. "62 %"; a dash where there is none."""
    return "-" if share is None or share != share else f"{100 * share:.0f} %"


def number(value: float | None, digits: int = 2) -> str:
    """A number with so many decimals; a dash where there is none."""
    return "-" if value is None or value != value else f"{value:.{digits}f}"


def part(request: Request, template: str, *, status: int = 200, **shown: Any) -> HTMLResponse:
    """Render a template."""
    theme, size = request.cookies.get("theme", "system"), request.cookies.get("size", "normal")
    given = {
        "me": getattr(request.state, "me", None),
        "theme": theme if theme in THEMES else "system",
        "size": size if size in SIZES else "normal",
        "keys": request.cookies.get("keys", "on"),
        "path": request.url.path,
        "notice": NOTICES.get(request.query_params.get("done", "")),
        "error": None,
        **shown,
    }
    return HTMLResponse(_templates().get_template(template).render(given), status_code=status)


page = part


def redirect(where: str, **query: str) -> RedirectResponse:
    """Send the browser to a page by GET, so that a reload repeats nothing."""
    return RedirectResponse(f"{where}?{urlencode(query)}" if query else where, status_code=303)
