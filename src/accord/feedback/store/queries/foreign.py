"""Judgments that were not given here: of models, of rules, and of people elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from accord.feedback.store.ids import content_hash, now_ms
from accord.feedback.store.payloads import parse, split
from accord.feedback.store.queries.common import keep_words, must_have
from accord.feedback.store.queries.content import add_judge, add_model, texts_of
from accord.feedback.store.tables import (
    Campaign,
    Consent,
    ConsentText,
    Guideline,
    Item,
    ItemResponse,
    Judge,
    Judgment,
    LanguageModel,
    User,
)
from accord.records import Judgment as JudgmentRecord
from accord.records import Model, Person

IMPORTED = "imported: "  # the note of a guideline that came with judgments, before its name there

__all__ = ["IMPORTED", "Statement", "add_foreign_judgment", "add_model_judgment", "add_rule_judgment"]


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What somebody elsewhere said of an item, for any kind of task; a `Judgment` of the records is one with ranks.

    Attributes:
        annotator: a person or a model.
        response_set: the name the item was imported under.
        payload: as the task takes it, by the names the responses had where they come from.
        display_order: those names as shown; empty: the item's own order, the one shown is not known.
        submitted_at: with time zone; 1970 where it is not known.
        shown_at: None: not known.
        guideline: version that was followed.
    """

    annotator: Person | Model
    response_set: str
    payload: Mapping[str, Any]
    display_order: tuple[str, ...]
    submitted_at: datetime
    shown_at: datetime | None
    guideline: str

    @property
    def content(self) -> str:
        """Hash that tells two statements apart."""
        plain = asdict(self) | {"annotator": self.annotator.model_dump(mode="json"), "payload": dict(self.payload)}
        plain |= {
            "submitted_at": _ms(self.submitted_at),
            "shown_at": None if self.shown_at is None else _ms(self.shown_at),
        }
        return content_hash(plain)


def _stated(record: JudgmentRecord) -> Statement:
    skipped = {"skip": "other", "text": record.skipped}
    return Statement(
        annotator=record.annotator,
        response_set=record.response_set,
        payload={"ranks": dict(record.ranks)} if record.skipped is None else skipped,
        display_order=record.display_order,
        submitted_at=record.submitted_at,
        shown_at=record.shown_at,
        guideline=record.guideline,
    )


def add_model_judgment(
    session: Session,
    *,
    item_id: str,
    judge_id: str,
    payload: Mapping[str, Any],
    display_order: Sequence[str],
    client_key: str,
    started_at: int,
    submitted_at: int,
) -> Judgment:
    """Add what a model said of an item; a second call with the same key returns the first judgment.

    Args:
        session: of the transaction.
        item_id: what was judged.
        judge_id: the model with its prompt, of `add_judge`.
        payload: as people's.
        display_order: response ids as the model was shown them.
        client_key: of the request, so that a resend is recognised.
        started_at: UTC milliseconds.
        submitted_at: UTC milliseconds.
    """
    known = session.scalar(select(Judgment).where(Judgment.client_key == client_key))
    if known is not None:
        return known
    campaign = must_have(session, Campaign, must_have(session, Item, item_id).campaign_id)
    kept, words = split(parse(campaign.task_type, payload, texts_of(session, item_id)))
    body_id = None if words is None else keep_words(session, words, author_id=None)
    model = must_have(session, Judge, judge_id).model_id
    last = session.scalar(
        select(func.max(Judgment.revision)).where(Judgment.item_id == item_id, Judgment.judge_id == judge_id)
    )
    judgment = Judgment(
        item_id=item_id,
        judge_id=judge_id,
        source="rule" if _is_rule(session, model) else "ai",
        revision=(last or 0) + 1,
        payload=kept,
        display_order=list(display_order),
        started_at=started_at,
        submitted_at=submitted_at,
        touched=True,
        counted="skip" not in kept,
        client_key=client_key,
        body_id=body_id,
    )
    session.add(judgment)
    session.flush()
    return judgment


def _is_rule(session: Session, model_id: str) -> bool:
    return must_have(session, LanguageModel, model_id).kind == "rule"


def _names(session: Session, item_id: str) -> dict[str, str]:
    """Response id -> what it was called where it comes from, in the item's order."""
    query = select(ItemResponse.response_id, ItemResponse.name).where(ItemResponse.item_id == item_id)
    return {one: name or one for one, name in session.execute(query.order_by(ItemResponse.position))}


def add_rule_judgment(session: Session, *, item_id: str, ranks: Mapping[str, int | None], rule: str) -> Judgment:
    """Add ranks that came without an annotator, under the name of where they come from. The order shown is unknown."""
    campaign = must_have(session, Campaign, must_have(session, Item, item_id).campaign_id)
    judge = add_judge(session, model_id=add_model(session, name=rule, kind="rule").id, prompt="")
    now = now_ms()
    return add_model_judgment(
        session,
        item_id=item_id,
        judge_id=judge.id,
        payload=_as_payload(campaign.task_type, ranks),
        display_order=list(ranks),
        client_key=f"{item_id}:{judge.id}:{content_hash(dict(ranks))}",
        started_at=now,
        submitted_at=now,
    )


def _as_payload(task_type: str, ranks: Mapping[str, int | None]) -> dict[str, Any]:
    if task_type == "rank":
        return {"ranks": dict(ranks)}
    places = {response: float("inf") if rank is None else rank for response, rank in ranks.items()}
    best = min(places.values())
    winners = [response for response, place in places.items() if place == best]
    failed = best == float("inf")
    return {"choice": winners[0] if len(winners) == 1 else None, "both_failed": failed}


def add_foreign_judgment(
    session: Session,
    record: JudgmentRecord | Statement,
    *,
    campaign_id: str,
    source: str,
    consent: str,
    item_id: str | None = None,
) -> bool:
    """Add a judgment from a file; False: it is there already.

    Args:
        session: of the transaction.
        record: what was said.
        campaign_id: of the item.
        source: where it comes from.
        consent: on what ground it is kept.
        item_id: of the response set; None: the item of that name.

    Raises:
        ValueError: the campaign has no item of that name, the item no such response, or the payload is of another task.
    """
    named = Item.source_ref == record.response_set if item_id is None else Item.id == item_id
    item = session.scalar(select(Item).where(Item.campaign_id == campaign_id, named))
    if item is None:
        raise ValueError(f"`response_set` is {record.response_set!r}; expected the id of a set imported before")
    content = record.content if isinstance(record, Statement) else content_hash(record.model_dump(mode="json"))
    key = f"{source}:{item.id}:{content}"
    if session.scalar(select(Judgment.id).where(Judgment.client_key == key)) is not None:
        return False
    said = record if isinstance(record, Statement) else _stated(record)
    campaign = must_have(session, Campaign, campaign_id)
    ids = {name: response for response, name in _names(session, item.id).items()}
    if set(said.display_order or ids) != ids.keys():
        raise ValueError(f"`display_order` is {list(said.display_order)}; expected the responses {sorted(ids)}")
    order = [ids[name] for name in said.display_order or ids]
    payload = _translated(campaign.task_type, said.payload, ids)
    if isinstance(said.annotator, Model):
        model = add_model(session, name=said.annotator.name, revision=said.annotator.revision)
        add_model_judgment(
            session,
            item_id=item.id,
            judge_id=add_judge(session, model_id=model.id, prompt=said.annotator.prompt).id,
            payload=payload,
            display_order=order,
            client_key=key,
            started_at=_ms(said.shown_at or said.submitted_at),
            submitted_at=_ms(said.submitted_at),
        )
    else:
        person = _person(session, said.annotator.id, source)
        agreed = _consent(session, person.id, campaign.project_id, consent, _ms(said.submitted_at))
        _add_person_judgment(session, campaign, item, said, person, agreed, payload, order, key)
    return True


def _translated(task_type: str, payload: Mapping[str, Any], ids: Mapping[str, str]) -> dict[str, Any]:
    """A payload by response ids instead of the names the responses have where it comes from."""
    found = dict(payload)
    for name in ("ranks", "responses", "attributes"):
        if isinstance(found.get(name), Mapping):
            found[name] = {_known(one, ids): value for one, value in found[name].items()}
    if found.get("choice") is not None:
        found["choice"] = _known(found["choice"], ids)
    if found.get("spans"):
        found["spans"] = [{**span, "response": _known(span["response"], ids)} for span in found["spans"]]
    is_pair = task_type in ("pairwise", "winrate")
    return _as_payload(task_type, found["ranks"]) if is_pair and "ranks" in found else found


def _known(name: str, ids: Mapping[str, str]) -> str:
    """The id of a response; payloads that were exported from a store have ids already."""
    if name in ids:
        return ids[name]
    if name in ids.values():
        return name
    raise ValueError(f"the payload names the response {name!r}; expected one of {sorted(ids)}")


def _ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def _add_person_judgment(
    session: Session,
    campaign: Campaign,
    item: Item,
    record: Statement,
    person: User,
    consent_id: str,
    payload: Mapping[str, Any],
    order: list[str],
    key: str,
) -> None:
    kept, words = split(parse(campaign.task_type, payload, texts_of(session, item.id)))
    body_id = None if words is None else keep_words(session, words, author_id=person.id)
    last = session.scalar(
        select(func.max(Judgment.revision)).where(Judgment.item_id == item.id, Judgment.annotator_id == person.id)
    )
    session.add(
        Judgment(
            item_id=item.id,
            annotator_id=person.id,
            source="human",
            revision=(last or 0) + 1,
            payload=kept,
            display_order=order,
            guideline_id=_guideline(session, campaign.project_id, record.guideline),
            consent_id=consent_id,
            started_at=_ms(record.shown_at or record.submitted_at),
            submitted_at=_ms(record.submitted_at),
            touched=True,
            counted="skip" not in kept,
            client_key=key,
            body_id=body_id,
        )
    )
    session.flush()


def _person(session: Session, name: str, source: str) -> User:
    """The account of someone who judged elsewhere: known by pseudonym, and closed."""
    handle = f"imported:{source}:{name}"
    found = session.scalar(select(User).where(User.handle == handle))
    if found is None:
        taken = session.scalar(select(User.id).where(User.pseudonym == name)) is not None
        found = User(handle=handle, pseudonym=f"{source}:{name}" if taken else name, disabled_at=now_ms())
        session.add(found)
        session.flush()
    return found


def _consent(session: Session, user_id: str, project_id: str, basis: str, at: int) -> str:
    text = session.scalar(
        select(ConsentText).where(ConsentText.project_id == project_id, ConsentText.markdown == basis)
    )
    if text is None:
        first = session.scalar(select(func.min(ConsentText.version)).where(ConsentText.project_id == project_id))
        # Below the versions people here are asked to agree to, so that nobody is asked because of an import.
        text = ConsentText(project_id=project_id, version=min(first or 1, 1) - 1, markdown=basis)
        session.add(text)
        session.flush()
    given = session.scalar(
        select(Consent.id).where(Consent.user_id == user_id, Consent.consent_text_id == text.id).limit(1)
    )
    if given is None:
        row = Consent(user_id=user_id, consent_text_id=text.id, action="given", at=at)
        session.add(row)
        session.flush()
        given = row.id
    return given


def _guideline(session: Session, project_id: str, name: str) -> str:
    """The guideline of that name, kept as a version of the project's, below those that are followed here."""
    note = f"{IMPORTED}{name}"
    found = session.scalar(select(Guideline.id).where(Guideline.project_id == project_id, Guideline.note == note))
    if found is None:
        first = session.scalar(select(func.min(Guideline.version)).where(Guideline.project_id == project_id))
        row = Guideline(project_id=project_id, version=min(first or 1, 1) - 1, markdown="", note=note)
        session.add(row)
        session.flush()
        found = row.id
    return found
