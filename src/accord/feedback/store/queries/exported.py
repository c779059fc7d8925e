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
from accord.feedback.store.personal_data import Numbers, moved, numbered, scrub
from accord.feedback.store.queries.common import must_have
from accord.feedback.store.queries.projects import LastSaid, last_said
from accord.feedback.store.queries.talks import lines_of, noted, spoken, thumbed
from accord.feedback.store.queries.verdicts import Content, Verdict, adjudications, contents, covers, verdicts
from accord.feedback.store.row_words import texts_in, words_of
from accord.feedback.store.splits import held_out, split_names
from accord.feedback.store.tables import Body, Campaign, Consent, Conversation, Exclusion, Project, Turn, User

__all__ = ["read_export"]


def read_export(session: Session, campaign_id: str, options: ExportOptions) -> tuple[Export, list[str]]:
    """The rows of an export, and the ids of the exclusions in force on the campaign.

    Raises:
        ValueError: the options do not go together.
    """
    campaign = must_have(session, Campaign, campaign_id)
    rule = must_have(session, Project, campaign.project_id).settings.get("on_export", "count")
    here = Exclusion.campaign_id.in_((campaign_id,)) | Exclusion.campaign_id.is_(None)
    query = select(Exclusion).where(Exclusion.reversed_at.is_(None), here).order_by(Exclusion.id)
    exclusions = session.scalars(query).all()
    export = (
        _conversations(session, campaign, options, exclusions)
        if options.form == "conversations"
        else _judged(session, campaign, options, replaces=rule == "replace")
    )
    export = export if rule == "count" else _screened(export, drops=rule == "drop")
    return _hashed(export, campaign.secret) if options.hash_annotators else export, [one.id for one in exclusions]


def _screened(export: Export, *, drops: bool) -> Export:
    """What patterns find in the rows replaced, the same by the same within a row; or such rows left out and counted."""
    left_out = Counter(export.left_out)
    parts: dict[str, list[dict[str, Any]]] = {}
    for split, rows in export.rows.items():
        parts[split] = []
        for row in rows:
            clean, meta = words_of(row)
            taken = numbered([*texts_in(clean), *texts_in(meta)], {})
            numbers: Numbers = dict(taken)
            clean, meta = _scrubbed(clean, numbers), _scrubbed(meta, numbers)
            if drops and numbers.keys() != taken.keys():
                left_out["personal data"] += 1
            else:
                parts[split].append({**row, **clean, "meta": {**row["meta"], **meta}})
    return replace(export, rows=parts, left_out=left_out)


def _scrubbed(value: Any, numbers: Numbers) -> Any:
    if isinstance(value, str):
        return scrub([value], numbers=numbers)[0][0]
    if isinstance(value, dict):
        return {name: _scrubbed(one, numbers) for name, one in value.items()}
    return [_scrubbed(one, numbers) for one in value] if isinstance(value, (list, tuple)) else value


def _with_moved_spans(verdict: Verdict, content: Content | None) -> Verdict:
    """The verdict with its marks where they are in the responses as a ranking of the item has them, replaced."""
    if content is None or not verdict.payload.get("spans") or None in content.responses.values():
        return verdict
    texts = [*(one.content for one in content.prompt), *(text or "" for text in content.responses.values())]
    numbers = numbered(texts, {})
    _, finds = scrub(texts, numbers=numbers)
    found = list(zip(texts, finds, strict=True))[len(content.prompt) :]
    of = dict(zip(content.responses, found, strict=True))
    spans = []
    for span in verdict.payload["spans"]:
        start, end = moved(*of[span["response"]], numbers, span["start"], span["end"])
        spans.append({**span, "start": start, "end": end})
    return replace(verdict, payload={**verdict.payload, "spans": spans})


def _judged(session: Session, campaign: Campaign, options: ExportOptions, *, replaces: bool) -> Export:
    found = verdicts(
        session,
        campaign_id=campaign.id,
        include_excluded=True,
        include_withdrawn=True,
        include_surplus=options.form == "judgments",
        all_revisions=options.all_revisions,
    )
    texts = contents(session, campaign_id=campaign.id)
    return export_rows(
        [_with_moved_spans(one, texts.get(one.item_id)) for one in found] if replaces else found,
        texts,
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
    return Export(rows=_split(rows, options), left_out=left_out)


def _split(rows: Sequence[dict[str, Any]], options: ExportOptions) -> dict[str, list[dict[str, Any]]]:
    """Conversations by split: all of a person's fall on one side, and so do all that begin in nearly the same words."""
    people = held_out(options.seed, [row["meta"]["annotators"][0] for row in rows], options.held_out_annotators)
    begins = [next((one["content"] for one in row["messages"] if one["role"] == "user"), "") for row in rows]
    names = split_names(begins, begins) if options.held_out_prompts else begins  # the rows are in order of age
    prompts = held_out(options.seed, names, options.held_out_prompts)
    parts: dict[str, list[dict[str, Any]]] = {"train": []}
    for at, row in enumerate(rows):
        by_prompt, by_annotator = names[at] in prompts, row["meta"]["annotators"][0] in people
        both = "held_out_both" if by_prompt and by_annotator else None
        name = both or ("held_out_prompts" if by_prompt else "held_out_annotators" if by_annotator else "train")
        parts.setdefault(name, []).append(row)
    return parts


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
