"""The feedback store: who said what of which responses, kept as evidence, in SQLite or PostgreSQL.

    store = Store.open("sqlite:///feedback.db")
    task = store.run(next_task, campaign_id=campaign, annotator_id=me, now=now_ms())

docs/feedback.md has the tables, the rules of leases and order, and an example that runs. Queries are functions whose
first argument is a session: `Store.run` and `Store.read` call them.
"""

from accord.feedback.store.arrays import Labels, Table, labels, matrix, pair_verdict, ranks_by_item
from accord.feedback.store.database import Store
from accord.feedback.store.exports import ExportOptions
from accord.feedback.store.files import export_campaign, exported_rows
from accord.feedback.store.ids import now_ms
from accord.feedback.store.imports import Gathered, ImportReport, import_judgments, import_records
from accord.feedback.store.queries.campaigns import (
    NewItem,
    add_campaign,
    add_items,
    change_campaign,
    prioritise,
    restore_item,
    withdraw_item,
)
from accord.feedback.store.queries.common import MissingError
from accord.feedback.store.queries.content import add_judge, add_model, add_prompt, add_response
from accord.feedback.store.queries.conversations import (
    add_turn,
    finish_conversation,
    messages_of,
    rate_by_others,
    start_conversation,
)
from accord.feedback.store.queries.foreign import Statement, add_model_judgment
from accord.feedback.store.queries.forget import Forgotten, enforce_retention, forget
from accord.feedback.store.queries.leases import Shown, Task, next_task, sweep
from accord.feedback.store.queries.people import (
    accept_invite,
    add_user,
    invite,
    revoke_session,
    session_of,
    set_role,
    start_session,
)
from accord.feedback.store.queries.projects import (
    add_consent_text,
    add_guideline,
    add_project,
    confirm_guideline,
    consent_in_force,
    give_consent,
    has_confirmed,
    withdraw_consent,
)
from accord.feedback.store.queries.quality import add_review, exclude, resume_annotator, reverse_exclusion
from accord.feedback.store.queries.rewards import keep_rewards, rewarded
from accord.feedback.store.queries.submissions import DraftConflictError, Receipt, Submission, save_draft, submit
from accord.feedback.store.queries.verdicts import Content, Verdict, adjudications, contents, verdicts
from accord.feedback.store.selection import by_disagreement, by_diversity, by_uncertainty
from accord.feedback.store.settings import CampaignSettings
from accord.feedback.store.steps import Stop

__all__ = [
    "CampaignSettings",
    "Content",
    "DraftConflictError",
    "ExportOptions",
    "Forgotten",
    "Gathered",
    "ImportReport",
    "Labels",
    "MissingError",
    "NewItem",
    "Receipt",
    "Shown",
    "Statement",
    "Stop",
    "Store",
    "Submission",
    "Table",
    "Task",
    "Verdict",
    "accept_invite",
    "add_campaign",
    "add_consent_text",
    "add_guideline",
    "add_items",
    "add_judge",
    "add_model",
    "add_model_judgment",
    "add_project",
    "add_prompt",
    "add_response",
    "add_review",
    "add_turn",
    "add_user",
    "adjudications",
    "by_disagreement",
    "by_diversity",
    "by_uncertainty",
    "change_campaign",
    "confirm_guideline",
    "consent_in_force",
    "contents",
    "enforce_retention",
    "exclude",
    "export_campaign",
    "exported_rows",
    "finish_conversation",
    "forget",
    "give_consent",
    "has_confirmed",
    "import_judgments",
    "import_records",
    "invite",
    "keep_rewards",
    "labels",
    "matrix",
    "messages_of",
    "next_task",
    "now_ms",
    "pair_verdict",
    "prioritise",
    "ranks_by_item",
    "rate_by_others",
    "restore_item",
    "resume_annotator",
    "reverse_exclusion",
    "revoke_session",
    "rewarded",
    "save_draft",
    "session_of",
    "set_role",
    "start_conversation",
    "start_session",
    "submit",
    "sweep",
    "verdicts",
    "withdraw_consent",
    "withdraw_item",
]
