"""What an export reads of a campaign. The command, the page and the REST API all come here and leave out the same."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from accord.feedback.store.exports import Export, ExportOptions, check, export_rows
from accord.feedback.store.queries.common import must_have
from accord.feedback.store.queries.projects import LastSaid, last_said
from accord.feedback.store.queries.talks import lines_of, noted, spoken, thumbed
from accord.feedback.store.queries.verdicts import adjudications, contents, covers, verdicts
from accord.feedback.store.tables import Body, Campaign, Consent, Conversation, Exclusion, Turn, User

__all__ = ["read_export"]


def read_export(session: Session, campaign_id: str, options: ExportOptions) -> tuple[Export, list[str]]:
    """The rows of an export, and the ids of the exclusions in force on the campaign.

    Raises:
        ValueError: the options do not go together.
    """
    campaign = must_have(session, Campaign, campaign_id)
    here = Exclusion.campaign_id.in_((campaign_id,)) | Exclusion.campaign_id.is_(None)
    query = select(Exclusion).where(Exclusion.reversed_at.is_(None), here).order_by(Exclusion.id)
    exclusions = session.scalars(query).all()
    export = (
        _conversations(session, campaign, options, exclusions)
        if options.form == "conversations"
        else _judged(session, campaign, options)
    )
    return _hashed(export, campaign.secret) if options.hash_annotators else export, [one.id for one in exclusions]


def _judged(session: Session, campaign: Campaign, options: ExportOptions) -> Export:
    found = verdicts(
        session,
        campaign_id=campaign.id,
        include_excluded=True,
        include_withdrawn=True,
        include_surplus=options.form == "judgments",
        all_revisions=options.all_revisions,
    )
    return export_rows(
        found,
        contents(session, campaign_id=campaign.id),
        options,
        task_type=campaign.task_type,
        adjudicated=adjudications(session, campaign_id=campaign.id),
    )


def _conversations(
    session: Session, campaign: Campaign, options: ExportOptions, exclusions: Sequence[Exclusion]
) -> Export:
    """Finished conversations of people who agree to training on them, then and now.

    A conversation is nothing but words, so a consent that is withdrawn takes all of it, whatever the project's rule.
    """
    check(options)
    rows: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    people = last_said(session, campaign.project_id)
    erased = frozenset(
        session.scalars(select(Turn.conversation_id).join(Body, Body.id == Turn.body_id).where(Body.text.is_(None)))
    )
    found = session.execute(
        select(Conversation, Consent, User.pseudonym)
        .join(Consent, Consent.id == Conversation.consent_id)
        .join(User, User.id == Conversation.user_id)
        .where(Conversation.campaign_id == campaign.id)
        .order_by(Conversation.id)
    )
    for talk, consent, pseudonym in found.all():
        excluded = any(covers(one, talk.user_id, campaign.id, talk.created_at) for one in exclusions)
        reasons = _reasons(talk, consent, people) | {
            "excluded annotator": excluded and not options.include_excluded,
            "forgotten": talk.id in erased or talk.state == "withdrawn",
        }
        reason = next((name for name, holds in reasons.items() if holds), None)
        if reason is not None:
            left_out[reason] += 1
            continue
        lines = thumbed(session, lines_of(session, talk.id))
        messages = [{"role": line.role, "content": line.text} for line in spoken(lines)]
        meta = {"kind": talk.kind, "rating": talk.rating, "annotators": [pseudonym], "excluded": excluded}
        rows.append({"messages": messages, "meta": {"item": talk.id, **meta, **noted(lines)}})
    return Export(rows={"train": rows}, left_out=left_out)


def _reasons(talk: Conversation, consent: Consent, people: Mapping[str, LastSaid]) -> dict[str, bool]:
    """Why its author keeps a conversation from leaving, the most telling reason first."""
    now = people[talk.user_id]
    return {
        "consent withdrawn": now.withdrawn,
        "unfinished": talk.state == "open",
        "no consent to training": "train" not in consent.uses or not now.trains,
    }


def _hashed(export: Export, secret: str) -> Export:
    """Annotators by HMAC-SHA256 under the campaign's secret: one name for one person within the campaign only."""

    def name(pseudonym: str) -> str:
        return hmac.new(secret.encode(), f"export\0{pseudonym}".encode(), hashlib.sha256).hexdigest()[:16]

    def row(found: dict[str, Any]) -> dict[str, Any]:
        meta = {**found["meta"], "annotators": [name(one) for one in found["meta"]["annotators"]]}
        annotator = found.get("annotator")
        if annotator is not None and annotator.get("kind") == "person":
            found = {**found, "annotator": {**annotator, "id": name(annotator["id"])}}
        return {**found, "meta": meta}

    return replace(export, rows={split: [row(one) for one in rows] for split, rows in export.rows.items()})
