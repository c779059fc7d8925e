"""A campaign for its admins: progress, agreement, suspects and what to do about them, win rates, tables as CSV."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from accord.feedback.analysis.material import Material
from accord.feedback.analysis.rogue import Suspect, evidence_of
from accord.feedback.analysis.tables import Section, headline, sections
from accord.feedback.store import CampaignSettings, MissingError, exclude, resume_annotator, reverse_exclusion
from accord.feedback.store.queries.administration import exclusions_of, paused_in, qualifications_of
from accord.feedback.store.queries.common import must_have
from accord.feedback.store.queries.messages import send_note
from accord.feedback.store.queries.overview import guidelines_of, progress
from accord.feedback.store.queries.quality import dismiss_evidence, dismissed, pause_annotator
from accord.feedback.store.queries.talks import successes
from accord.feedback.store.queries.verdicts import verdicts
from accord.feedback.store.tables import Campaign, Exclusion, Guideline, Item, Project
from accord.feedback.studio.access import may_administer_campaign, may_review
from accord.feedback.studio.charts import charts
from accord.feedback.studio.context import Form, Me, Studio, StudioOf
from accord.feedback.studio.figures import Pace, attempts, duels, judge_flips, pace, skips, throughput
from accord.feedback.studio.nightly import last_collected
from accord.feedback.studio.pages.campaigns import STATES
from accord.feedback.studio.reports import as_csv
from accord.feedback.studio.view import page, part, redirect
from accord.feedback.studio.workload import work_tables

__all__ = ["router"]

router = APIRouter(prefix="/admin/campaign")


@dataclass(frozen=True, kw_only=True)
class _Live:
    """What changes by the minute."""

    slots: int
    filled: int
    pace: Pace
    hours: list[int]
    skips: list[tuple[str, int]]
    kinds: dict[str, int]


@router.get("/{campaign_id}")
def show_campaign(request: Request, studio: StudioOf, me: Me, campaign_id: str) -> Response:
    """The dashboard; figures that take a while load behind it."""
    campaign = studio.store.read(may_administer_campaign, me.user_id, campaign_id)
    project, guidelines, guideline = studio.store.read(_texts, campaign)
    return page(
        request,
        "admin_campaign.html",
        project=project,
        campaign=campaign,
        settings=CampaignSettings.model_validate(campaign.settings),
        states=STATES,
        guidelines=guidelines,
        guideline=guideline,
        live=_live(studio, campaign_id),
        paused=studio.store.read(paused_in, campaign_id),
        exclusions=studio.store.read(exclusions_of, campaign_id),
        qualifications=studio.store.read(qualifications_of, campaign_id),
        figures=_figures(studio, campaign_id) if "figures" in request.query_params else None,
    )


def _texts(session: Session, campaign: Campaign) -> tuple[Project, list[Guideline], Guideline]:
    project = must_have(session, Project, campaign.project_id)
    return project, guidelines_of(session, project.id), must_have(session, Guideline, campaign.guideline_id)


def _live(studio: Studio, campaign_id: str) -> _Live:
    slots, filled = studio.store.read(progress, campaign_id)
    found = studio.store.read(verdicts, campaign_id=campaign_id, include_excluded=True, include_surplus=True)
    now = studio.clock()
    return _Live(
        slots=slots,
        filled=filled,
        pace=pace([one for one in found if one.counted], left=slots - filled, now=now),
        hours=throughput(found, now=now),
        skips=skips(found),
        kinds=studio.store.read(_kinds, campaign_id),
    )


def _kinds(session: Session, campaign_id: str) -> dict[str, int]:
    query = select(Item.kind, func.count()).where(Item.campaign_id == campaign_id, Item.state != "withdrawn")
    return dict(session.execute(query.group_by(Item.kind)).all())


@router.get("/{campaign_id}/live")
def show_live(request: Request, studio: StudioOf, me: Me, campaign_id: str) -> Response:
    """The part that is asked for again every ten seconds."""
    campaign = studio.store.read(may_administer_campaign, me.user_id, campaign_id)
    return part(request, "admin_live.html", campaign=campaign, live=_live(studio, campaign_id))


def _figures(studio: Studio, campaign_id: str) -> dict[str, object]:
    material, report = studio.reports.of(studio.store, campaign_id)
    found = studio.store.read(successes, campaign_id=campaign_id)
    settled = studio.store.read(dismissed, campaign_id=campaign_id)
    shown = [one for one in sections(report) if one.identity != "disputed" and one.table is not None]
    first = [one for one in shown if one.identity in ("agreement", "annotators")]  # those stand open
    others = [one for one in shown if one not in first]
    return {
        "headline": headline(report) if report.counts["judgments"] else [],
        "charts": charts(report) if report.counts["judgments"] else [],
        "sections": [*first, *_work(studio, campaign_id), *others],
        "suspects": [one for one in report.suspects if not _dismissed(one, material, settled)],
        "people": material.people,
        "night": studio.store.read(last_collected, campaign_id),
        "disputed": [one for one in report.disputed if one.item_id in material.contents][:10],
        "prompts": {one: content.prompt[-1].content for one, content in material.contents.items()},
        "duels": duels(material),
        "flips": judge_flips(material),
        "attempts": {by: attempts(found, by) for by in ("model", "area")} if found else {},
    }


def _work(studio: Studio, campaign_id: str) -> list[Section]:
    """What people did, in tables that change by the minute."""
    material, report = studio.reports.of(studio.store, campaign_id)
    done = studio.store.read(
        verdicts,
        campaign_id=campaign_id,
        kinds=("normal", "gold", "attention", "qualification"),
        sources=("human",),
        include_excluded=True,
        include_surplus=True,
        include_withdrawn=True,
        all_revisions=True,
    )
    slots, filled = studio.store.read(progress, campaign_id)
    return work_tables(material, report, done, left=slots - filled, now=studio.clock())


def _dismissed(suspect: Suspect, material: Material, settled: Mapping[str, frozenset[str]]) -> bool:
    """Whether somebody has looked at all that there is on an annotator, and let it be."""
    person = material.people.get(suspect.annotator)
    return person is not None and {one.kind for one in suspect.evidence} <= settled.get(person.user_id, frozenset())


@router.get("/{campaign_id}/figures")
def show_figures(request: Request, studio: StudioOf, me: Me, campaign_id: str) -> Response:
    """Agreement, bias, suspects, win rates."""
    campaign = studio.store.read(may_administer_campaign, me.user_id, campaign_id)
    return part(request, "admin_figures.html", campaign=campaign, figures=_figures(studio, campaign_id))


@router.get("/{campaign_id}/table/{identity}.csv")
def download_table(studio: StudioOf, me: Me, campaign_id: str, identity: str) -> Response:
    """A table of the report."""
    studio.store.read(may_administer_campaign, me.user_id, campaign_id)
    _, report = studio.reports.of(studio.store, campaign_id)
    tables = [*sections(report), *_work(studio, campaign_id)]
    section: Section | None = next((one for one in tables if one.identity == identity), None)
    if section is None or section.table is None:
        raise MissingError("there is no such table")
    return Response(
        as_csv(section.table.header, section.table.rows),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{section.identity}.csv"'},
    )


@router.post("/{campaign_id}/exclude/{user_id}")
def exclude_annotator(studio: StudioOf, me: Me, campaign_id: str, user_id: str, form: Form) -> Response:
    """Exclude an annotator; the evidence that was there at this moment is kept with the decision."""
    studio.store.read(may_administer_campaign, me.user_id, campaign_id)
    reason = str(form.get("reason", "")).strip()
    if not reason:
        raise ValueError("an exclusion has to have a reason; write it")
    material, report = studio.reports.of(studio.store, campaign_id)
    pseudonym = next((one.pseudonym for one in material.people.values() if one.user_id == user_id), None)
    if pseudonym is None:
        raise MissingError("there is no such annotator in this campaign")
    found = next((evidence_of(one) for one in report.suspects if one.annotator == pseudonym), None)
    studio.store.run(
        exclude,
        annotator_id=user_id,
        reason=reason,
        evidence=found or {"evidence": [], "judgments": sum(one.annotator == pseudonym for one in material.verdicts)},
        decided_by=me.user_id,
        campaign_id=campaign_id,
        replace=form.get("replace") == "yes",
    )
    return redirect(f"/admin/campaign/{campaign_id}", done="excluded")


@router.post("/{campaign_id}/reverse/{exclusion_id}")
def reverse(studio: StudioOf, me: Me, campaign_id: str, exclusion_id: str, form: Form) -> Response:
    """Take an exclusion from this campaign back."""
    studio.store.read(may_administer_campaign, me.user_id, campaign_id)
    if studio.store.read(must_have, Exclusion, exclusion_id).campaign_id != campaign_id:
        raise MissingError("there is no such exclusion in this campaign")
    reason = str(form.get("reason", "")).strip() or "reversed by an admin"
    studio.store.run(
        reverse_exclusion, exclusion_id=exclusion_id, reversed_by=me.user_id, reason=reason, now=studio.clock()
    )
    return redirect(f"/admin/campaign/{campaign_id}", done="reversed")


@router.post("/{campaign_id}/pause/{user_id}")
def pause_them(studio: StudioOf, me: Me, campaign_id: str, user_id: str, form: Form) -> Response:
    """Give an annotator no further task until somebody has looked."""
    _suspect(studio, me.user_id, campaign_id, user_id)
    studio.store.run(pause_annotator, campaign_id=campaign_id, annotator_id=user_id, actor_id=me.user_id)
    return redirect(f"/admin/campaign/{campaign_id}", done="paused")


@router.post("/{campaign_id}/message/{user_id}")
def message(studio: StudioOf, me: Me, campaign_id: str, user_id: str, form: Form) -> Response:
    """Leave an annotator a note, which stands on their first page until they dismiss it."""
    studio.store.read(may_administer_campaign, me.user_id, campaign_id)
    text = str(form.get("text", ""))
    studio.store.run(send_note, campaign_id=campaign_id, annotator_id=user_id, actor_id=me.user_id, text=text)
    return redirect(f"/admin/campaign/{campaign_id}", done="sent")


@router.post("/{campaign_id}/dismiss/{user_id}")
def dismiss(studio: StudioOf, me: Me, campaign_id: str, user_id: str, form: Form) -> Response:
    """Let evidence be; it is shown again once there is another kind of it."""
    kinds = [one.kind for one in _suspect(studio, me.user_id, campaign_id, user_id).evidence]
    studio.store.run(dismiss_evidence, campaign_id=campaign_id, annotator_id=user_id, actor_id=me.user_id, kinds=kinds)
    return redirect(f"/admin/campaign/{campaign_id}", done="dismissed")


def _suspect(studio: Studio, me: str, campaign_id: str, user_id: str) -> Suspect:
    """The evidence there is on an annotator.

    Raises:
        MissingError: there is none, or not for this person.
    """
    studio.store.read(may_administer_campaign, me, campaign_id)
    material, report = studio.reports.of(studio.store, campaign_id)
    for one in report.suspects:
        if one.annotator in material.people and material.people[one.annotator].user_id == user_id:
            return one
    raise MissingError("there is no evidence on such an annotator in this campaign")


@router.post("/{campaign_id}/resume/{user_id}")
def resume(studio: StudioOf, me: Me, campaign_id: str, user_id: str, form: Form) -> Response:
    """Let a paused annotator go on."""
    studio.store.read(may_review, me.user_id, campaign_id)
    if user_id not in {one.id for one in studio.store.read(paused_in, campaign_id)}:
        raise MissingError("this annotator is not paused")
    studio.store.run(resume_annotator, campaign_id=campaign_id, annotator_id=user_id, reviewer_id=me.user_id)
    return redirect(f"/admin/campaign/{campaign_id}", done="resumed")
