"""The tables of the store as SQLAlchemy models; docs/feedback.md says what each is for.

`migrations` makes them in a database, revision by revision; a test holds both equal.
"""

from accord.feedback.store.tables.base import APPEND_ONLY, Base
from accord.feedback.store.tables.content import (
    Body,
    Conversation,
    Guideline,
    LanguageModel,
    PendingReply,
    Prompt,
    Response,
    Turn,
)
from accord.feedback.store.tables.evidence import Exclusion, Judge, Judgment, Qualification, Review, Reward
from accord.feedback.store.tables.people import (
    ApiToken,
    Consent,
    ConsentText,
    Event,
    Invite,
    LoginSession,
    Membership,
    Project,
    User,
)
from accord.feedback.store.tables.work import TASK_TYPES, Assignment, Campaign, Draft, Item, ItemResponse, Slot

__all__ = [
    "APPEND_ONLY",
    "TASK_TYPES",
    "ApiToken",
    "Assignment",
    "Base",
    "Body",
    "Campaign",
    "Consent",
    "ConsentText",
    "Conversation",
    "Draft",
    "Event",
    "Exclusion",
    "Guideline",
    "Invite",
    "Item",
    "ItemResponse",
    "Judge",
    "Judgment",
    "LanguageModel",
    "LoginSession",
    "Membership",
    "PendingReply",
    "Project",
    "Prompt",
    "Qualification",
    "Response",
    "Review",
    "Reward",
    "Slot",
    "Turn",
    "User",
]
