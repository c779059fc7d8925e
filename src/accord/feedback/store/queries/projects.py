"""Projects, and the texts people agree to and follow: consent and guidelines, both in versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from accord.feedback.store.queries.campaigns import withdraw_item
from accord.feedback.store.queries.common import must_have, write_event
from accord.feedback.store.tables import (
    Campaign,
    Consent,
    ConsentText,
    Event,
    Guideline,
    Item,
    ItemResponse,
    Project,
    Prompt,
    Response,
)

__all__ = [
    "ON_EXPORT",
    "LastSaid",
    "add_consent_text",
    "add_guideline",
    "add_project",
    "change_project",
    "confirm_guideline",
    "confirming",
    "consent_in_force",
    "consenting",
    "give_consent",
    "has_confirmed",
    "last_said",
    "withdraw_consent",
]


ON_EXPORT = ("count", "replace", "drop")


def add_project(
    session: Session,
    *,
    slug: str,
    settings: dict[str, Any] | None = None,
    content_warning: str | None = None,
    retention_days: int | None = None,
    on_withdrawal: str = "keep_verdicts",
) -> Project:
    """Add a project. `retention_days`: how long free text of people is kept; None: as long as the store."""
    project = Project(
        slug=slug,
        settings=settings or {},
        content_warning=content_warning,
        retention_days=retention_days,
        on_withdrawal=on_withdrawal,
    )
    session.add(project)
    session.flush()
    return project


def change_project(
    session: Session,
    *,
    project_id: str,
    actor_id: str | None,
    retention_days: int | None,
    on_withdrawal: str,
    on_export: str = "count",
) -> None:
    """Set how long words are kept (None: as long as the store) and what goes with a withdrawn consent; logged.

    `on_export` says what becomes of personal data that patterns find in the rows of an export: count, replace or drop.

    Raises:
        ValueError: no such rule, or people have agreed under the promise that their judgments go with their consent.
    """
    project = must_have(session, Project, project_id, lock=True)
    agreed = select(Consent.id).join(ConsentText, ConsentText.id == Consent.consent_text_id)
    agreed = agreed.where(ConsentText.project_id == project_id, ConsentText.version > 0).limit(1)
    if project.on_withdrawal == "delete" and on_withdrawal != "delete" and session.scalar(agreed) is not None:
        raise ValueError("people agreed to judge because their judgments go when they withdraw; that stays as it is")
    if on_export not in ON_EXPORT:
        raise ValueError(f"found the rule {on_export!r} for exports; expected one of {', '.join(ON_EXPORT)}")
    project.retention_days, project.on_withdrawal = retention_days, on_withdrawal
    project.settings = {**project.settings, "on_export": on_export}
    rules = {"retention_days": retention_days, "on_withdrawal": on_withdrawal, "on_export": on_export}
    write_event(session, "project", project_id, actor_id=actor_id, **rules)
    session.flush()


def add_consent_text(session: Session, *, project_id: str, markdown: str) -> ConsentText:
    """Add the next version of what people are asked to agree to; everyone is asked again."""
    last = session.scalar(select(func.max(ConsentText.version)).where(ConsentText.project_id == project_id))
    text = ConsentText(project_id=project_id, version=(last or 0) + 1, markdown=markdown)
    session.add(text)
    session.flush()
    return text


def _newest_text(session: Session, project_id: str) -> ConsentText | None:
    query = select(ConsentText).where(ConsentText.project_id == project_id)
    return session.scalar(query.order_by(ConsentText.version.desc()).limit(1))


def give_consent(session: Session, *, user_id: str, project_id: str, now: int, uses: tuple[str, ...] = ()) -> Consent:
    """Note that a person agrees to the newest text of a project, and to which uses ("train", "publish").

    Raises:
        ValueError: the project has no consent text.
    """
    text = _newest_text(session, project_id)
    if text is None:
        raise ValueError(f"project {project_id} has no consent text; expected one to agree to; add one first")
    consent = Consent(user_id=user_id, consent_text_id=text.id, action="given", uses=list(uses), at=now)
    session.add(consent)
    session.flush()
    return consent


def withdraw_consent(session: Session, *, user_id: str, project_id: str, now: int) -> None:
    """Note that a person takes consent back: no further task, and nothing of theirs in exports that they may forbid.

    That is their words, and in a project with `on_withdrawal: delete` their verdicts. Nobody is asked any more to rate
    what they said to a model. Erased it all is by `forget`.
    """
    last = session.scalar(_last_said(user_id, project_id))
    if last is not None and last.action == "given":
        session.add(Consent(user_id=user_id, consent_text_id=last.consent_text_id, action="withdrawn", uses=[], at=now))
        for item in session.scalars(_made_of(user_id, project_id)).all():
            withdraw_item(session, item_id=item, actor_id=user_id, reason="consent withdrawn")
        session.flush()


def _made_of(user_id: str, project_id: str) -> Select[str]:
    """Items of a project that are made of what a person said, for others to rate."""
    responses = select(ItemResponse.item_id).join(Response, Response.id == ItemResponse.response_id)
    query = select(Item.id).join(Campaign, Campaign.id == Item.campaign_id).join(Prompt, Prompt.id == Item.prompt_id)
    return query.where(
        Campaign.project_id == project_id,
        Item.state != "withdrawn",
        (Prompt.author_id == user_id) | Item.id.in_(responses.where(Response.author_id == user_id)),
    )


def _last_said(user_id: Any, project_id: Any) -> Select[Consent]:
    query = select(Consent).join(ConsentText, ConsentText.id == Consent.consent_text_id)
    query = query.where(Consent.user_id == user_id, ConsentText.project_id == project_id)
    return query.order_by(Consent.at.desc(), Consent.id.desc()).limit(1)


@dataclass(frozen=True, kw_only=True)
class LastSaid:
    """The last thing a person said about consent in a project.

    Attributes:
        withdrawn: they took it back.
        trains: models may be trained on what they write. Nobody was asked who gave it elsewhere, before an import.
    """

    withdrawn: bool
    trains: bool


def last_said(session: Session, project_id: str) -> Mapping[str, LastSaid]:
    """Person -> the last thing they said about consent in a project, for all who said anything."""
    query = select(Consent, ConsentText.version).join(ConsentText, ConsentText.id == Consent.consent_text_id)
    rows = session.execute(query.where(ConsentText.project_id == project_id).order_by(Consent.at, Consent.id))
    return {
        consent.user_id: LastSaid(
            withdrawn=consent.action == "withdrawn",
            trains=consent.action == "given" and ("train" in consent.uses or version <= 0),
        )
        for consent, version in rows
    }


def consent_in_force(session: Session, user_id: str, project_id: str) -> Consent | None:
    """A person's consent to the newest text; None: not given, taken back, or given to an older text."""
    return session.scalar(consenting(user_id, project_id))


def consenting(user_id: Any, project_id: Any) -> Select[Consent]:
    """The query of `consent_in_force`: the last thing said about consent, if it is "given" and of the newest text."""
    last = _last_said(user_id, project_id).with_only_columns(Consent.id)
    newest = select(ConsentText.id).where(ConsentText.project_id == project_id)
    newest = newest.order_by(ConsentText.version.desc()).limit(1)
    return (
        select(Consent)
        .where(Consent.id == last.scalar_subquery(), Consent.action == "given")
        .where(Consent.consent_text_id == newest.scalar_subquery())
    )


def add_guideline(session: Session, *, project_id: str, markdown: str, note: str = "") -> Guideline:
    """Add the next version of a project's guideline. A campaign follows it once `change_campaign` says so."""
    last = session.scalar(select(func.max(Guideline.version)).where(Guideline.project_id == project_id))
    guideline = Guideline(project_id=project_id, version=(last or 0) + 1, markdown=markdown, note=note)
    session.add(guideline)
    session.flush()
    return guideline


def confirm_guideline(session: Session, *, user_id: str, guideline_id: str) -> None:
    """Note that a person has read a version of a guideline; kept in the audit log."""
    must_have(session, Guideline, guideline_id)
    if not has_confirmed(session, user_id, guideline_id):
        write_event(session, "guideline confirmed", guideline_id, actor_id=user_id)
        session.flush()


def has_confirmed(session: Session, user_id: str, guideline_id: str) -> bool:
    """Whether a person has confirmed this version."""
    return session.scalar(confirming(user_id, guideline_id).limit(1)) is not None


def confirming(user_id: Any, guideline_id: Any) -> Select[str]:
    """The query of `has_confirmed`."""
    return select(Event.id).where(
        Event.kind == "guideline confirmed", Event.subject == guideline_id, Event.actor_id == user_id
    )
