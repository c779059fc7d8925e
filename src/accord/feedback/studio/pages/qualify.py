"""My qualification tests: how they ended, and what each answer should have been once there is nothing left to try."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from accord.feedback.store import MissingError
from accord.feedback.store.queries.screening import screening_of, screenings_of
from accord.feedback.studio.access import may_annotate
from accord.feedback.studio.context import Me, StudioOf
from accord.feedback.studio.view import page

__all__ = ["router"]

router = APIRouter()


@router.get("/qualify")
def show_tests(request: Request, studio: StudioOf, me: Me) -> Response:
    """The tests I have begun."""
    return page(request, "qualify.html", tests=studio.store.read(screenings_of, user_id=me.user_id))


@router.get("/c/{campaign_id}/qualify")
def show_test(request: Request, studio: StudioOf, me: Me, campaign_id: str) -> Response:
    """The test of a campaign: score, and every answer beside the known one when it is over."""
    campaign = studio.store.read(may_annotate, me.user_id, campaign_id)
    screening = studio.store.read(screening_of, campaign, me.user_id)
    if screening is None:
        raise MissingError("this campaign has no test")
    return page(request, "qualified.html", campaign=campaign, screening=screening)
