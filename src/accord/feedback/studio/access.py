"""Who may do what: one function per action, by person, project, role and object. A refusal looks like a 404."""

from __future__ import annotations

from sqlalchemy.orm import Session

from accord.feedback.store import MissingError
from accord.feedback.store.queries.common import must_have, role_of
from accord.feedback.store.queries.leases import task_of
from accord.feedback.store.tables import Assignment, Campaign, Item, Project, User

__all__ = [
    "may_administer",
    "may_administer_campaign",
    "may_annotate",
    "may_review",
    "may_run_site",
    "may_see_project",
    "my_assignment",
]

_NOBODY = "there is no such thing for you; check the address"


def may_run_site(session: Session, user_id: str) -> None:
    """Make projects, see the whole log.

    Raises:
        MissingError: not an admin of the site.
    """
    if not must_have(session, User, user_id).is_admin:
        raise MissingError(_NOBODY)


def _has(session: Session, user_id: str, project_id: str, *roles: str) -> bool:
    return role_of(session, user_id, project_id) in roles or must_have(session, User, user_id).is_admin


def may_administer(session: Session, user_id: str, project_id: str) -> Project:
    """Campaigns, people, exports of a project.

    Raises:
        MissingError: no such project, or not an admin of it.
    """
    project = must_have(session, Project, project_id)
    if not _has(session, user_id, project_id, "admin"):
        raise MissingError(_NOBODY)
    return project


def may_administer_campaign(session: Session, user_id: str, campaign_id: str) -> Campaign:
    """The same for the project of a campaign."""
    campaign = must_have(session, Campaign, campaign_id)
    may_administer(session, user_id, campaign.project_id)
    return campaign


def may_review(session: Session, user_id: str, campaign_id: str) -> Campaign:
    """See what others judged, adjudicate, grade.

    Raises:
        MissingError: no such campaign, or neither reviewer nor admin.
    """
    campaign = must_have(session, Campaign, campaign_id)
    if not _has(session, user_id, campaign.project_id, "reviewer", "admin"):
        raise MissingError(_NOBODY)
    return campaign


def may_annotate(session: Session, user_id: str, campaign_id: str) -> Campaign:
    """Work on a campaign: any member of its project.

    Raises:
        MissingError: no such campaign, not a member, or it is still a draft.
    """
    campaign = must_have(session, Campaign, campaign_id)
    if role_of(session, user_id, campaign.project_id) is None or campaign.state == "draft":
        raise MissingError(_NOBODY)
    return campaign


def may_see_project(session: Session, user_id: str, project_id: str) -> Project:
    """Its guideline and consent text: any member.

    Raises:
        MissingError: no such project, or not a member.
    """
    project = must_have(session, Project, project_id)
    if role_of(session, user_id, project_id) is None and not must_have(session, User, user_id).is_admin:
        raise MissingError(_NOBODY)
    return project


def my_assignment(session: Session, user_id: str, assignment_id: str) -> tuple[Assignment, Item, Campaign]:
    """A task of one's own, with its item and campaign.

    Raises:
        MissingError: no such task, or someone else's.
    """
    return task_of(session, assignment_id, user_id)
