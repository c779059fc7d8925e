"""Good demonstrations, shown to those who write the next ones: chosen by a reviewer, of authors who allow it."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from accord.feedback.store.queries.common import is_newest
from accord.feedback.store.queries.projects import last_said
from accord.feedback.store.queries.verdicts import covers
from accord.feedback.store.tables import Body, Campaign, Exclusion, Item, Judgment, Prompt, Review

__all__ = ["accepted_demonstrations"]

MOST = 12


def accepted_demonstrations(
    session: Session, *, campaign: Campaign, but_prompt: str | None = None
) -> list[tuple[str, str]]:
    """(last message of the prompt, response) of demonstrations whose last review is an acceptance, newest first.

    Only latest revisions on normal items, of authors who agreed that their words are used and are not excluded; the
    answers of the qualification stay out, or the test would be on display.

    Args:
        session: of the transaction.
        campaign: a demonstrate campaign; others have none.
        but_prompt: whose responses are not shown: that of the task at hand.
    """
    if campaign.task_type != "demonstrate":
        return []
    last = select(Review.judgment_id, func.max(Review.id).label("id")).group_by(Review.judgment_id).subquery()
    query = (
        select(Judgment, Prompt, Body.text)
        .join(last, last.c.judgment_id == Judgment.id)
        .join(Review, Review.id == last.c.id)
        .join(Item, Item.id == Judgment.item_id)
        .join(Prompt, Prompt.id == Item.prompt_id)
        .join(Body, Body.id == Judgment.body_id)
        .where(Item.campaign_id == campaign.id, Item.kind == "normal", Item.state != "withdrawn")
        .where(is_newest(), Review.decision == "accept", Body.text.is_not(None))
        .order_by(Review.id.desc())
    )
    query = query if but_prompt is None else query.where(Prompt.id != but_prompt)
    agreed = last_said(session, campaign.project_id)
    exclusions = session.scalars(select(Exclusion).where(Exclusion.reversed_at.is_(None))).all()
    found = []
    for judgment, prompt, words in session.execute(query):
        said = agreed.get(judgment.annotator_id or "")
        out = any(covers(one, judgment.annotator_id, campaign.id, judgment.submitted_at) for one in exclusions)
        if said is not None and said.trains and not said.withdrawn and not out and prompt.messages:
            found.append((str(prompt.messages[-1]["content"]), str(words)))
    return found[:MOST]
