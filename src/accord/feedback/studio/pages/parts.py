"""Addresses of the parts of campaigns: /admin/agreement lists them, /admin/agreement/CAMPAIGN leads to one."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from accord.feedback.studio.access import may_administer_campaign
from accord.feedback.studio.context import Me, StudioOf
from accord.feedback.studio.pages.admin import overview
from accord.feedback.studio.view import page, redirect
from accord.feedback.studio.wording import CAMPAIGN_PARTS, PLACES

__all__ = ["router"]

router = APIRouter(prefix="/admin")


@router.get("/agreement")
@router.get("/annotators")
@router.get("/flags")
@router.get("/settings")
def show_parts(request: Request, studio: StudioOf, me: Me) -> Response:
    """Campaigns one is an admin of, each with a link to this part of its page."""
    part = request.url.path.split("/")[2]
    projects = studio.store.read(overview, me.user_id)
    return page(request, "admin_parts.html", projects=projects, part=part, title=CAMPAIGN_PARTS[part])


@router.get("/agreement/{campaign_id}")
@router.get("/annotators/{campaign_id}")
@router.get("/flags/{campaign_id}")
@router.get("/settings/{campaign_id}")
def lead_to_part(request: Request, studio: StudioOf, me: Me, campaign_id: str) -> Response:
    """The part of the campaign's page; figures are there at once, so that there is a place to go to."""
    part = request.url.path.split("/")[2]
    studio.store.read(may_administer_campaign, me.user_id, campaign_id)
    figures = "" if part == "settings" else "?figures"
    return redirect(f"/admin/campaign/{campaign_id}{figures}#{PLACES[part]}")
