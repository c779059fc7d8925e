"""The demonstration: a project with a campaign per kind of task, from prompts and responses that come with Accord."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from accord.feedback.store import (
    CampaignSettings,
    NewItem,
    Store,
    add_campaign,
    add_consent_text,
    add_guideline,
    add_items,
    add_model,
    add_project,
    add_prompt,
    add_response,
    change_campaign,
    set_role,
)
from accord.feedback.store.tables import Project, User
from accord.feedback.studio.demo_texts import CONSENT, GUIDELINE, QUESTIONS
from accord.records import Message

__all__ = ["SLUG", "add_demo", "join_demo"]

SLUG = "demonstration"

# name, kind of task, responses of an item
_CAMPAIGNS = (
    ("Rank answers", "rank", 4),
    ("Which answer is better?", "pairwise", 2),
    ("Two models, blind", "winrate", 2),
    ("Describe answers", "attributes", 2),
    ("Label an answer", "labels", 1),
    ("Write an answer", "demonstrate", 0),
)
_TALKS = (("Talk to a model", "chat"), ("Try to break a model", "redteam"))


def add_demo(store: Store, *, chats: bool = False) -> str:
    """Add the demonstration, once; return the id of its project.

    Args:
        store: where to.
        chats: with campaigns to talk to models, which have to be there.
    """
    return store.run(_add, chats)


def _add(session: Session, chats: bool) -> str:
    known = session.scalar(select(Project.id).where(Project.slug == SLUG))
    if known is not None:
        return known
    project = add_project(session, slug=SLUG)
    add_consent_text(session, project_id=project.id, markdown=CONSENT)
    guideline = add_guideline(session, project_id=project.id, markdown=GUIDELINE)
    for name, task_type, count in _CAMPAIGNS:
        campaign = _campaign(session, project.id, guideline.id, name, task_type)
        add_items(session, campaign_id=campaign, items=_items(session, project.id, count))
    for name, task_type in _TALKS if chats else ():
        _campaign(session, project.id, guideline.id, name, task_type)
    return project.id


def _campaign(session: Session, project: str, guideline: str, name: str, task_type: str) -> str:
    campaign = add_campaign(
        session,
        project_id=project,
        name=name,
        task_type=task_type,
        guideline_id=guideline,
        overlap=2,
        settings=CampaignSettings(gold_every=0, attention_every=0),
    )
    change_campaign(session, campaign_id=campaign.id, actor_id=None, state="open")
    return campaign.id


def _items(session: Session, project: str, count: int) -> list[NewItem]:
    found = []
    for question, answers in QUESTIONS:
        prompt = add_prompt(
            session, project_id=project, messages=(Message(role="user", content=question),), source="demonstration"
        )
        ids = tuple(_response(session, prompt.id, *answer) for answer in answers[:count])
        found.append(NewItem(prompt_id=prompt.id, response_ids=ids))
    return found


def _response(session: Session, prompt: str, model: str, text: str) -> str:
    made: Any = add_model(session, name=model, revision="demonstration")
    return add_response(session, prompt_id=prompt, text=text, origin="model", model_id=made.id).id


def join_demo(session: Session, *, user_id: str) -> None:
    """Let a person work in the demonstration, as its admin."""
    project = session.scalar(select(Project.id).where(Project.slug == SLUG))
    if project is not None and session.get(User, user_id) is not None:
        set_role(session, user_id=user_id, project_id=project, role="admin", actor_id=user_id)
