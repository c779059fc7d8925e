"""Good demonstrations, shown to those who write the next ones: chosen by a reviewer, of authors who allow it."""

from __future__ import annotations

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from accord.feedback.store.queries.common import is_newest
from accord.feedback.store.queries.projects import last_said
from accord.feedback.store.queries.verdicts import covers
from accord.feedback.store.settings import CampaignSettings
from accord.feedback.store.tables import Body, Campaign, Exclusion, Item, Judgment, Prompt, Review, Slot

__all__ = ["accepted_demonstrations"]

MOST, HOUR_MS = 12, 3_600_000


def accepted_demonstrations(
    session: Session, *, campaign: Campaign, reader_id: str, now: int, but_prompt: str | None = None
) -> list[tuple[str, str]]:
    """(last message of the prompt, response) of demonstrations whose last review is an acceptance, newest first.

    Only latest revisions on normal items, of authors who agreed that their words are used and are not excluded; the
    answers of the qualification stay out, or the test would be on display. What others wrote stays out too as long as
    the reader may write for the same prompt, or what they write would be of one opinion.

    Args:
        session: of the transaction.
        campaign: a demonstrate campaign; others have none.
        reader_id: who looks.
        now: UTC milliseconds.
        but_prompt: whose responses are not shown, not even one's own: that of the task at hand.
    """
    if campaign.task_type != "demonstrate":
        return []
    agreed = last_said(session, campaign.project_id)
    exclusions = session.scalars(select(Exclusion).where(Exclusion.reversed_at.is_(None))).all()
    ahead = _ahead(session, campaign, reader_id, now)
    found = []
    for judgment, prompt, words in session.execute(_accepted(campaign.id)):
        said = agreed.get(judgment.annotator_id or "")
        out = any(covers(one, judgment.annotator_id, campaign.id, judgment.submitted_at) for one in exclusions)
        told = prompt.id == but_prompt or (prompt.id in ahead and judgment.annotator_id != reader_id)
        if said is not None and said.trains and not said.withdrawn and not out and not told and prompt.messages:
            found.append((str(prompt.messages[-1]["content"]), str(words)))
    return found[:MOST]


def _accepted(campaign_id: str) -> Select[Judgment, Prompt, str | None]:
    """Demonstrations of a campaign that a reviewer accepted last, newest acceptance first."""
    last = select(Review.judgment_id, func.max(Review.id).label("id")).group_by(Review.judgment_id).subquery()
    return (
        select(Judgment, Prompt, Body.text)
        .join(last, last.c.judgment_id == Judgment.id)
        .join(Review, Review.id == last.c.id)
        .join(Item, Item.id == Judgment.item_id)
        .join(Prompt, Prompt.id == Item.prompt_id)
        .join(Body, Body.id == Judgment.body_id)
        .where(Item.campaign_id == campaign_id, Item.kind == "normal", Item.state != "withdrawn")
        .where(is_newest(), Review.decision == "accept", Body.text.is_not(None))
        .order_by(Review.id.desc())
    )


def _ahead(session: Session, campaign: Campaign, reader_id: str, now: int) -> set[str]:
    """Of the prompts with an example those a person may write for in the project: to come, held, or to be revised."""
    prompts = _accepted(campaign.id).with_only_columns(Prompt.id).order_by(None)
    mine = select(Judgment.item_id, func.min(Judgment.submitted_at).label("first"))
    mine = mine.where(Judgment.annotator_id == reader_id).group_by(Judgment.item_id)
    answered = mine.subquery()
    held = select(Slot.item_id).where(Slot.annotator_id == reader_id, Slot.state == "leased").subquery()
    rows = session.execute(
        select(Item.prompt_id, Item.state, Campaign.settings, answered.c.first, held.c.item_id)
        .join(Campaign, Campaign.id == Item.campaign_id)
        .outerjoin(answered, answered.c.item_id == Item.id)
        .outerjoin(held, held.c.item_id == Item.id)
        .where(Campaign.project_id == campaign.project_id, Campaign.task_type == "demonstrate")
        .where(Item.state != "withdrawn", Item.prompt_id.in_(prompts))
    )
    ahead = set()
    for prompt, state, settings, first, holds in rows:
        hours = CampaignSettings.model_validate(settings).revise_hours
        open_ = state == "open" if first is None else now - first <= hours * HOUR_MS
        if open_ or holds is not None:
            ahead.add(prompt)
    return ahead
