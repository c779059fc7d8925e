"""Prompts, responses, models and judges: each is kept once, found again by its content."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from accord.feedback.store.ids import content_hash
from accord.feedback.store.tables import ItemResponse, Judge, LanguageModel, Prompt, Response
from accord.records import Conversation

__all__ = ["add_judge", "add_model", "add_prompt", "add_response", "texts_of"]


def add_model(session: Session, *, name: str, revision: str = "", kind: str = "language") -> LanguageModel:
    """Find a model by name and revision, or add it."""
    found = session.scalar(select(LanguageModel).where(LanguageModel.name == name, LanguageModel.revision == revision))
    if found is None:
        found = LanguageModel(name=name, revision=revision, kind=kind)
        session.add(found)
        session.flush()
    return found


def add_judge(session: Session, *, model_id: str, prompt: str, settings: dict[str, Any] | None = None) -> Judge:
    """Find a judge by model, prompt and settings, or add it."""
    settings = settings or {}
    content = content_hash([model_id, prompt, settings])
    found = session.scalar(select(Judge).where(Judge.content_hash == content))
    if found is None:
        found = Judge(
            model_id=model_id, prompt=prompt, prompt_hash=content_hash(prompt), settings=settings, content_hash=content
        )
        session.add(found)
        session.flush()
    return found


def add_prompt(
    session: Session,
    *,
    project_id: str,
    messages: Conversation,
    source: str,
    source_ref: str | None = None,
    language: str | None = None,
    group: str | None = None,
    pii: str = "unchecked",
    author_id: str | None = None,
) -> Prompt:
    """Find a prompt of the project by its messages, or add it; what is known of the one that is there stays."""
    rows = [message.model_dump(mode="json") for message in messages]
    content = content_hash(rows)
    found = session.scalar(select(Prompt).where(Prompt.project_id == project_id, Prompt.content_hash == content))
    if found is None:
        found = Prompt(
            project_id=project_id,
            content_hash=content,
            messages=rows,
            source=source,
            source_ref=source_ref,
            language=language,
            group=group,
            pii=pii,
            author_id=author_id,
        )
        session.add(found)
        session.flush()
    return found


def add_response(
    session: Session,
    *,
    prompt_id: str,
    text: str,
    origin: str,
    model_id: str | None = None,
    sampling: dict[str, Any] | None = None,
    author_id: str | None = None,
) -> Response:
    """Find a response by prompt, text and model, or add it."""
    content = content_hash(text)
    known = select(Response).where(
        Response.prompt_id == prompt_id,
        Response.content_hash == content,
        Response.model_id.is_not_distinct_from(model_id),
    )
    found = session.scalar(known)
    if found is None:
        found = Response(
            prompt_id=prompt_id,
            content_hash=content,
            text=text,
            model_id=model_id,
            origin=origin,
            sampling=sampling,
            author_id=author_id,
        )
        session.add(found)
        session.flush()
    return found


def texts_of(session: Session, item_id: str) -> dict[str, str | None]:
    """Response id -> text of an item's responses; None: forgotten."""
    query = select(Response.id, Response.text).join(ItemResponse, ItemResponse.response_id == Response.id)
    return dict(session.execute(query.where(ItemResponse.item_id == item_id)).all())
