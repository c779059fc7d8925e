"""The first schema: people, content, work and evidence, and the triggers that keep evidence as it is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

APPEND_ONLY = ("judgment", "consent", "consent_text", "guideline", "turn", "review", "event")


def upgrade() -> None:
    """Make the tables in an order in which each finds those it refers to."""
    _people()
    _content()
    _work()
    _evidence()
    for table in APPEND_ONLY:
        _refuse_changes(table)


def _refuse_changes(table: str) -> None:
    """Triggers; on PostgreSQL all of them call one function."""
    said = f"{table} is append-only"
    if op.get_bind().dialect.name == "sqlite":
        for action in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{said}'); END"
            )
        return
    op.execute(
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation'; "
        "END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )


def _people() -> None:
    """Who takes part, and what they agreed to."""
    op.create_table(
        "user",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("handle", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("pseudonym", sa.Text(), nullable=False),
        sa.Column("is_admin", sa.Boolean(), nullable=False),
        sa.Column("disabled_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user")),
        sa.UniqueConstraint("handle", name=op.f("uq_user_handle")),
        sa.UniqueConstraint("pseudonym", name=op.f("uq_user_pseudonym")),
    )
    op.create_index("uq_user_email", "user", [sa.text("lower(email)")], unique=True)
    op.create_table(
        "project",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("settings", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("content_warning", sa.Text(), nullable=True),
        sa.Column("retention_days", sa.Integer(), nullable=True),
        sa.Column("on_withdrawal", sa.Text(), nullable=False),
        sa.CheckConstraint("\"on_withdrawal\" IN ('keep_verdicts', 'delete')", name=op.f("ck_project_on_withdrawal")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_project")),
        sa.UniqueConstraint("slug", name=op.f("uq_project_slug")),
    )
    op.create_table(
        "session",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("token_hash", sa.Text(), nullable=False),
        sa.Column("user_id", sa.String(length=36), nullable=False),
        sa.Column("csrf", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_session_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_session")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_session_token_hash")),
    )
    op.create_table(
        "invite",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("token_hash", sa.Text(), nullable=False),
        sa.Column("project_id", sa.String(length=36), nullable=True),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("used_by", sa.String(length=36), nullable=True),
        sa.CheckConstraint("\"role\" IN ('annotator', 'reviewer', 'admin')", name=op.f("ck_invite_role")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_invite_project_id")),
        sa.ForeignKeyConstraint(["used_by"], ["user.id"], name=op.f("fk_invite_used_by")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invite")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_invite_token_hash")),
    )
    op.create_table(
        "membership",
        sa.Column("user_id", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=36), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("\"role\" IN ('annotator', 'reviewer', 'admin')", name=op.f("ck_membership_role")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_membership_project_id")),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_membership_user_id")),
        sa.PrimaryKeyConstraint("user_id", "project_id", name=op.f("pk_membership")),
    )
    op.create_table(
        "consent_text",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("markdown", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_consent_text_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_consent_text")),
        sa.UniqueConstraint("project_id", "version", name=op.f("uq_consent_text_project_id_version")),
    )
    op.create_table(
        "consent",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.String(length=36), nullable=False),
        sa.Column("consent_text_id", sa.String(length=36), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("uses", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("\"action\" IN ('given', 'withdrawn')", name=op.f("ck_consent_action")),
        sa.ForeignKeyConstraint(["consent_text_id"], ["consent_text.id"], name=op.f("fk_consent_consent_text_id")),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_consent_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_consent")),
    )
    op.create_index(op.f("ix_consent_user_id_at"), "consent", ["user_id", "at"], unique=False)
    op.create_table(
        "event",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("actor_id", sa.String(length=36), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(none_as_null=True), nullable=False),
        sa.ForeignKeyConstraint(["actor_id"], ["user.id"], name=op.f("fk_event_actor_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event")),
    )
    op.create_index(op.f("ix_event_kind_subject"), "event", ["kind", "subject"], unique=False)


def _content() -> None:
    """What is judged."""
    op.create_table(
        "guideline",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("markdown", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_guideline_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_guideline")),
        sa.UniqueConstraint("project_id", "version", name=op.f("uq_guideline_project_id_version")),
    )
    op.create_table(
        "model",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("revision", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.CheckConstraint("\"kind\" IN ('language', 'reward', 'rule')", name=op.f("ck_model_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model")),
        sa.UniqueConstraint("name", "revision", name=op.f("uq_model_name_revision")),
    )
    op.create_table(
        "prompt",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.String(length=36), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("messages", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("source_ref", sa.Text(), nullable=True),
        sa.Column("language", sa.Text(), nullable=True),
        sa.Column("group", sa.Text(), nullable=True),
        sa.Column("pii", sa.Text(), nullable=False),
        sa.CheckConstraint("\"pii\" IN ('clean', 'found', 'scrubbed', 'unchecked')", name=op.f("ck_prompt_pii")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_prompt_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prompt")),
        sa.UniqueConstraint("project_id", "content_hash", name=op.f("uq_prompt_project_id_content_hash")),
    )
    op.create_table(
        "response",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("prompt_id", sa.String(length=36), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("model_id", sa.String(length=36), nullable=True),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("sampling", sa.JSON(none_as_null=True), nullable=True),
        sa.CheckConstraint("\"origin\" IN ('model', 'human', 'imported')", name=op.f("ck_response_origin")),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name=op.f("fk_response_model_id")),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompt.id"], name=op.f("fk_response_prompt_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_response")),
        sa.UniqueConstraint(
            "prompt_id", "content_hash", "model_id", name=op.f("uq_response_prompt_id_content_hash_model_id")
        ),
    )
    op.create_table(
        "body",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("author_id", sa.String(length=36), nullable=True),
        sa.ForeignKeyConstraint(["author_id"], ["user.id"], name=op.f("fk_body_author_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_body")),
    )
    op.create_index(op.f("ix_body_author_id"), "body", ["author_id"], unique=False)


def _work() -> None:
    """Who judges what, until when."""
    op.create_table(
        "campaign",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("task_type", sa.Text(), nullable=False),
        sa.Column("settings", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("guideline_id", sa.String(length=36), nullable=False),
        sa.Column("overlap", sa.Integer(), nullable=False),
        sa.Column("lease_minutes", sa.Integer(), nullable=False),
        sa.Column("queue_seed", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "\"state\" IN ('draft', 'pilot', 'open', 'paused', 'closed')", name=op.f("ck_campaign_state")
        ),
        sa.CheckConstraint(
            "\"task_type\" IN ('demonstrate', 'rank', 'pairwise', 'winrate', 'attributes', 'labels', 'chat', 'redteam', 'review')",
            name=op.f("ck_campaign_task_type"),
        ),
        sa.CheckConstraint("lease_minutes >= 1", name=op.f("ck_campaign_lease_minutes")),
        sa.CheckConstraint("overlap BETWEEN 1 AND 50", name=op.f("ck_campaign_overlap")),
        sa.ForeignKeyConstraint(["guideline_id"], ["guideline.id"], name=op.f("fk_campaign_guideline_id")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_campaign_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_campaign")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_campaign_project_id_name")),
    )
    op.create_table(
        "item",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("campaign_id", sa.String(length=36), nullable=False),
        sa.Column("prompt_id", sa.String(length=36), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("source_ref", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("expected", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("explanation", sa.Text(), nullable=True),
        sa.Column("priority", sa.Double(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.CheckConstraint("kind = 'normal' OR expected IS NOT NULL", name=op.f("ck_item_expected")),
        sa.CheckConstraint("\"kind\" IN ('normal', 'gold', 'attention', 'qualification')", name=op.f("ck_item_kind")),
        sa.CheckConstraint("\"state\" IN ('open', 'done', 'withdrawn')", name=op.f("ck_item_state")),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.id"], name=op.f("fk_item_campaign_id")),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompt.id"], name=op.f("fk_item_prompt_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_item")),
        sa.UniqueConstraint("campaign_id", "content_hash", name=op.f("uq_item_campaign_id_content_hash")),
    )
    op.create_index(op.f("ix_item_campaign_id_kind_state"), "item", ["campaign_id", "kind", "state"], unique=False)
    op.create_table(
        "item_response",
        sa.Column("item_id", sa.String(length=36), nullable=False),
        sa.Column("response_id", sa.String(length=36), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["item_id"], ["item.id"], name=op.f("fk_item_response_item_id")),
        sa.ForeignKeyConstraint(["response_id"], ["response.id"], name=op.f("fk_item_response_response_id")),
        sa.PrimaryKeyConstraint("item_id", "response_id", name=op.f("pk_item_response")),
    )
    op.create_table(
        "slot",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("item_id", sa.String(length=36), nullable=False),
        sa.Column("campaign_id", sa.String(length=36), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("queue", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("annotator_id", sa.String(length=36), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("(annotator_id IS NULL) = (state = 'open')", name=op.f("ck_slot_annotator")),
        sa.CheckConstraint("(expires_at IS NOT NULL) = (state = 'leased')", name=op.f("ck_slot_expires_at")),
        sa.CheckConstraint("\"state\" IN ('open', 'leased', 'done')", name=op.f("ck_slot_state")),
        sa.ForeignKeyConstraint(["annotator_id"], ["user.id"], name=op.f("fk_slot_annotator_id")),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.id"], name=op.f("fk_slot_campaign_id")),
        sa.ForeignKeyConstraint(["item_id"], ["item.id"], name=op.f("fk_slot_item_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_slot")),
        sa.UniqueConstraint("item_id", "annotator_id", name=op.f("uq_slot_item_id_annotator_id")),
        sa.UniqueConstraint("item_id", "number", name=op.f("uq_slot_item_id_number")),
    )
    op.create_index(op.f("ix_slot_campaign_id_state_queue"), "slot", ["campaign_id", "state", "queue"], unique=False)
    op.create_table(
        "assignment",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("item_id", sa.String(length=36), nullable=False),
        sa.Column("annotator_id", sa.String(length=36), nullable=False),
        sa.Column("display_order", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("guideline_id", sa.String(length=36), nullable=False),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("reissued", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["annotator_id"], ["user.id"], name=op.f("fk_assignment_annotator_id")),
        sa.ForeignKeyConstraint(["guideline_id"], ["guideline.id"], name=op.f("fk_assignment_guideline_id")),
        sa.ForeignKeyConstraint(["item_id"], ["item.id"], name=op.f("fk_assignment_item_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_assignment")),
        sa.UniqueConstraint("item_id", "annotator_id", name=op.f("uq_assignment_item_id_annotator_id")),
    )
    op.create_table(
        "draft",
        sa.Column("assignment_id", sa.String(length=36), nullable=False),
        sa.Column("payload", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["assignment_id"], ["assignment.id"], name=op.f("fk_draft_assignment_id")),
        sa.PrimaryKeyConstraint("assignment_id", name=op.f("pk_draft")),
    )
    op.create_table(
        "conversation",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("campaign_id", sa.String(length=36), nullable=False),
        sa.Column("user_id", sa.String(length=36), nullable=False),
        sa.Column("model_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("goal", sa.Text(), nullable=True),
        sa.Column("consent_id", sa.String(length=36), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("rating", sa.Integer(), nullable=True),
        sa.CheckConstraint("\"kind\" IN ('chat', 'redteam')", name=op.f("ck_conversation_kind")),
        sa.CheckConstraint("\"state\" IN ('open', 'finished', 'withdrawn')", name=op.f("ck_conversation_state")),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.id"], name=op.f("fk_conversation_campaign_id")),
        sa.ForeignKeyConstraint(["consent_id"], ["consent.id"], name=op.f("fk_conversation_consent_id")),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name=op.f("fk_conversation_model_id")),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_conversation_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_conversation")),
    )
    op.create_table(
        "turn",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("conversation_id", sa.String(length=36), nullable=False),
        sa.Column("parent_id", sa.String(length=36), nullable=True),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("body_id", sa.String(length=36), nullable=False),
        sa.Column("sampling", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("chosen", sa.Boolean(), nullable=False),
        sa.Column("latency_ms", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("\"role\" IN ('system', 'user', 'assistant', 'tool')", name=op.f("ck_turn_role")),
        sa.ForeignKeyConstraint(["body_id"], ["body.id"], name=op.f("fk_turn_body_id")),
        sa.ForeignKeyConstraint(["conversation_id"], ["conversation.id"], name=op.f("fk_turn_conversation_id")),
        sa.ForeignKeyConstraint(["parent_id"], ["turn.id"], name=op.f("fk_turn_parent_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_turn")),
    )
    op.create_index(op.f("ix_turn_conversation_id"), "turn", ["conversation_id"], unique=False)


def _evidence() -> None:
    """What was found."""
    op.create_table(
        "judge",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("model_id", sa.String(length=36), nullable=False),
        sa.Column("prompt_hash", sa.Text(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("settings", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name=op.f("fk_judge_model_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_judge")),
        sa.UniqueConstraint("content_hash", name=op.f("uq_judge_content_hash")),
    )
    op.create_table(
        "judgment",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("item_id", sa.String(length=36), nullable=False),
        sa.Column("annotator_id", sa.String(length=36), nullable=True),
        sa.Column("judge_id", sa.String(length=36), nullable=True),
        sa.Column("assignment_id", sa.String(length=36), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("payload", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("display_order", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("guideline_id", sa.String(length=36), nullable=True),
        sa.Column("consent_id", sa.String(length=36), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("submitted_at", sa.BigInteger(), nullable=False),
        sa.Column("active_ms", sa.BigInteger(), nullable=True),
        sa.Column("touched", sa.Boolean(), nullable=False),
        sa.Column("counted", sa.Boolean(), nullable=False),
        sa.Column("client_key", sa.Text(), nullable=False),
        sa.Column("body_id", sa.String(length=36), nullable=True),
        sa.CheckConstraint(
            "(source = 'human' AND annotator_id IS NOT NULL AND consent_id IS NOT NULL AND judge_id IS NULL) OR (source <> 'human' AND judge_id IS NOT NULL AND annotator_id IS NULL)",
            name=op.f("ck_judgment_who"),
        ),
        sa.CheckConstraint("\"source\" IN ('human', 'ai', 'rule')", name=op.f("ck_judgment_source")),
        sa.CheckConstraint("revision >= 1", name=op.f("ck_judgment_revision")),
        sa.ForeignKeyConstraint(["annotator_id"], ["user.id"], name=op.f("fk_judgment_annotator_id")),
        sa.ForeignKeyConstraint(["assignment_id"], ["assignment.id"], name=op.f("fk_judgment_assignment_id")),
        sa.ForeignKeyConstraint(["body_id"], ["body.id"], name=op.f("fk_judgment_body_id")),
        sa.ForeignKeyConstraint(["consent_id"], ["consent.id"], name=op.f("fk_judgment_consent_id")),
        sa.ForeignKeyConstraint(["guideline_id"], ["guideline.id"], name=op.f("fk_judgment_guideline_id")),
        sa.ForeignKeyConstraint(["item_id"], ["item.id"], name=op.f("fk_judgment_item_id")),
        sa.ForeignKeyConstraint(["judge_id"], ["judge.id"], name=op.f("fk_judgment_judge_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_judgment")),
        sa.UniqueConstraint("client_key", name=op.f("uq_judgment_client_key")),
        sa.UniqueConstraint(
            "item_id", "annotator_id", "revision", name=op.f("uq_judgment_item_id_annotator_id_revision")
        ),
        sa.UniqueConstraint("item_id", "judge_id", "revision", name=op.f("uq_judgment_item_id_judge_id_revision")),
    )
    op.create_index(op.f("ix_judgment_annotator_id"), "judgment", ["annotator_id"], unique=False)
    op.create_table(
        "review",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("judgment_id", sa.String(length=36), nullable=True),
        sa.Column("item_id", sa.String(length=36), nullable=True),
        sa.Column("reviewer_id", sa.String(length=36), nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("payload", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("body_id", sa.String(length=36), nullable=False),
        sa.CheckConstraint("\"decision\" IN ('accept', 'reject', 'adjudicate')", name=op.f("ck_review_decision")),
        sa.CheckConstraint("(judgment_id IS NULL) <> (item_id IS NULL)", name=op.f("ck_review_subject")),
        sa.ForeignKeyConstraint(["body_id"], ["body.id"], name=op.f("fk_review_body_id")),
        sa.ForeignKeyConstraint(["item_id"], ["item.id"], name=op.f("fk_review_item_id")),
        sa.ForeignKeyConstraint(["judgment_id"], ["judgment.id"], name=op.f("fk_review_judgment_id")),
        sa.ForeignKeyConstraint(["reviewer_id"], ["user.id"], name=op.f("fk_review_reviewer_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review")),
    )
    op.create_table(
        "qualification",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("campaign_id", sa.String(length=36), nullable=False),
        sa.Column("annotator_id", sa.String(length=36), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("detail", sa.JSON(none_as_null=True), nullable=False),
        sa.ForeignKeyConstraint(["annotator_id"], ["user.id"], name=op.f("fk_qualification_annotator_id")),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.id"], name=op.f("fk_qualification_campaign_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_qualification")),
        sa.UniqueConstraint(
            "campaign_id", "annotator_id", "attempt", name=op.f("uq_qualification_campaign_id_annotator_id_attempt")
        ),
    )
    op.create_table(
        "exclusion",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("annotator_id", sa.String(length=36), nullable=False),
        sa.Column("campaign_id", sa.String(length=36), nullable=True),
        sa.Column("since", sa.BigInteger(), nullable=True),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("decided_by", sa.String(length=36), nullable=False),
        sa.Column("reversed_at", sa.BigInteger(), nullable=True),
        sa.Column("reversed_by", sa.String(length=36), nullable=True),
        sa.Column("reversal_reason", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["annotator_id"], ["user.id"], name=op.f("fk_exclusion_annotator_id")),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.id"], name=op.f("fk_exclusion_campaign_id")),
        sa.ForeignKeyConstraint(["decided_by"], ["user.id"], name=op.f("fk_exclusion_decided_by")),
        sa.ForeignKeyConstraint(["reversed_by"], ["user.id"], name=op.f("fk_exclusion_reversed_by")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exclusion")),
    )
    op.create_index(op.f("ix_exclusion_annotator_id"), "exclusion", ["annotator_id"], unique=False)
