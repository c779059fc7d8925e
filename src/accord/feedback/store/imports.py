"""Records -> items of a campaign: screened for personal data, each kept once, however often they are imported.

Files are read by `accord.data`, which names bad rows; this takes the records. A ranking or comparison has a verdict
without an annotator: it becomes the known answer of a gold or qualification item, or a judgment of a rule that
carries the source's name. Judgments keep who judged, in which order, under which guideline.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal, TypeAlias, TypeVar

from sqlalchemy.orm import Session

from accord.feedback.store import personal_data
from accord.feedback.store.database import Store
from accord.feedback.store.personal_data import Detector, Find
from accord.feedback.store.queries import campaigns, content
from accord.feedback.store.queries.campaigns import NewItem, add_items, withdraw_item
from accord.feedback.store.queries.common import must_have, write_event
from accord.feedback.store.queries.content import add_prompt, add_response
from accord.feedback.store.queries.foreign import Statement, add_foreign_judgment, add_rule_judgment
from accord.feedback.store.tables import Campaign
from accord.records import Comparison, Conversation, Demonstration, Judgment, Message, Ranking, Response, ResponseSet

__all__ = ["Gathered", "ImportReport", "Importable", "Screen", "import_judgments", "import_records"]


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """What is to be judged, as another project published it: K responses of known models, or none yet.

    Attributes:
        name: what judgments call it; unique in its source.
        prompt: the messages.
        responses: with their models; none: people are to write some.
        ranks: response id -> place, given by the source without saying by whom; None: nobody ranked them.
        group: kind of prompt.
        language: of the prompt.
    """

    name: str
    prompt: Conversation
    responses: tuple[Response, ...] = ()
    ranks: Mapping[str, int | None] | None = None
    group: str | None = None
    language: str | None = None


Importable: TypeAlias = Demonstration | ResponseSet | Comparison | Ranking | Gathered
Screen: TypeAlias = Literal["off", "replace", "drop", "hold"]
Kind: TypeAlias = Literal["normal", "gold", "qualification"]

T = TypeVar("T")

BATCH = 1000  # rows per transaction


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What became of the rows: imported + dropped is all of them; `held` items wait for a reviewer.

    Attributes:
        items: id of the item of each row that was imported, in order; a row that was there before has its old one.
        dropped: rows with personal data, left out.
        held: items with personal data, withdrawn until `restore_item`.
        names: what a row is called where it comes from -> its item. Rows of the same content are one item, which keeps
            the name of the first.
        finds: personal data found, by type.
    """

    items: tuple[str, ...]
    dropped: int
    held: tuple[str, ...]
    finds: Counter[str]
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A record in the one shape all of them have: a prompt, K responses, and perhaps their ranks."""

    prompt: Conversation
    texts: tuple[str, ...]
    models: tuple[str | None, ...]
    sampling: tuple[dict[str, object] | None, ...]
    names: tuple[str, ...] | None = None
    name: str | None = None
    ranks: tuple[int | None, ...] | None = None
    group: str | None = None
    language: str | None = None


def import_records(
    store: Store,
    records: Iterable[Importable],
    *,
    campaign_id: str,
    source: str,
    kind: Kind = "normal",
    screen: Screen = "replace",
    detectors: Sequence[Detector] = (),
) -> ImportReport:
    """Import records as items of a campaign, 1,000 rows a transaction. Doing it again adds nothing.

    Args:
        store: where to.
        records: demonstrations, response sets, comparisons, rankings.
        campaign_id: whose items they become.
        source: where they come from, e.g. "hh-rlhf"; the name of the rule their verdicts are kept under.
        kind: gold and qualification make the verdicts known answers; they need rankings or comparisons.
        screen: of personal data: "replace" it by placeholders, "drop" the row, "hold" the item for a reviewer, "off".
        detectors: further ones, for what no pattern finds.

    Raises:
        ValueError: a row does not fit the campaign; source and row number are named, earlier transactions stay.
    """
    items: list[str] = []
    held: list[str] = []
    names: dict[str, str] = {}
    finds: Counter[str] = Counter()
    total = 0
    for number, rows in enumerate(_batches(records)):
        report = store.run(_import_batch, rows, campaign_id, source, kind, screen, tuple(detectors), number * BATCH)
        items += report.items
        held += report.held
        names |= report.names
        finds += report.finds
        total += len(rows)
    return ImportReport(items=tuple(items), dropped=total - len(items), held=tuple(held), finds=finds, names=names)


def _batches(rows: Iterable[T]) -> Iterator[tuple[T, ...]]:
    every = iter(rows)
    while batch := tuple(islice(every, BATCH)):
        yield batch


def _import_batch(
    session: Session,
    records: Sequence[Importable],
    campaign_id: str,
    source: str,
    kind: Kind,
    screen: Screen,
    detectors: tuple[Detector, ...],
    offset: int,
) -> ImportReport:
    campaign = must_have(session, Campaign, campaign_id)
    new: list[tuple[NewItem, _Row, bool]] = []
    finds: Counter[str] = Counter()
    for number, record in enumerate(records, offset + 1):
        row, found = _screened(_shape(record, campaign.task_type), screen, detectors)
        finds.update(one.type for one in found)
        if found and screen == "drop":
            continue
        pii = "unchecked" if screen == "off" else ("found" if screen == "hold" else "scrubbed") if found else "clean"
        try:
            item = _new_item(session, campaign, row, source, kind, pii)
            campaigns.check_item(session, campaign, item)
        except ValueError as error:
            raise ValueError(f"{source}, row {number}: {error}") from None
        new.append((item, row, bool(found) and screen == "hold"))
    ids = add_items(session, campaign_id=campaign_id, items=[item for item, _, _ in new])
    for item_id, (item, row, _) in zip(ids, new, strict=True):
        if kind == "normal" and row.ranks is not None and campaign.task_type in ("rank", "pairwise", "winrate"):
            add_rule_judgment(
                session, item_id=item_id, ranks=dict(zip(item.response_ids, row.ranks, strict=True)), rule=source
            )
    held = [item_id for item_id, (_, _, hold) in zip(ids, new, strict=True) if hold]
    for item_id in held:
        withdraw_item(session, item_id=item_id, actor_id=None, reason="personal data found at import")
    write_event(session, "import", campaign_id, actor_id=None, source=source, items=len(ids), held=len(held))
    names = {row.name: item_id for item_id, (_, row, _) in zip(ids, new, strict=True) if row.name is not None}
    dropped = len(records) - len(ids)
    return ImportReport(items=tuple(ids), dropped=dropped, held=tuple(held), finds=finds, names=names)


def _shape(record: Importable, task_type: str) -> _Row:
    if isinstance(record, ResponseSet):
        record = Gathered(name=record.id, prompt=record.prompt, responses=record.responses)
    if isinstance(record, Gathered):
        # Who is to write a response does not see those that are there.
        responses = () if task_type == "demonstrate" else record.responses
        places = record.ranks if responses else None
        return _Row(
            prompt=record.prompt,
            texts=tuple(response.text for response in responses),
            models=tuple(response.model for response in responses),
            sampling=tuple(response.sampling for response in responses),
            names=tuple(response.id for response in responses),
            name=record.name,
            ranks=None if places is None else tuple(places[response.id] for response in responses),
            group=record.group,
            language=record.language,
        )
    if isinstance(record, Demonstration):
        *prompt, last = record.conversation
        texts = () if task_type == "demonstrate" else (last.content,)
        return _plain(tuple(prompt), texts)
    if isinstance(record, Comparison):
        sure = record.probability if record.probability is not None else 1.0
        ranks = (1, 1) if sure == 0.5 else (1, 2) if sure > 0.5 else (2, 1)
        return _plain(record.prompt, (record.chosen, record.rejected), ranks)
    return _plain(record.prompt, record.responses, record.ranks)


def _plain(prompt: Conversation, texts: tuple[str, ...], ranks: tuple[int | None, ...] | None = None) -> _Row:
    return _Row(prompt=prompt, texts=texts, models=(None,) * len(texts), sampling=(None,) * len(texts), ranks=ranks)


def _screened(row: _Row, screen: Screen, detectors: tuple[Detector, ...]) -> tuple[_Row, list[Find]]:
    """The row with personal data replaced (if that is asked for), and what was found; one numbering per row."""
    if screen == "off":
        return row, []
    texts = [message.content for message in row.prompt] + list(row.texts)
    scrubbed, finds = personal_data.scrub(texts, detectors)
    flat = [found for one in finds for found in one]
    if not flat or screen != "replace":
        return row, flat
    turns = tuple(Message(role=message.role, content=text) for message, text in zip(row.prompt, scrubbed, strict=False))
    return replace(row, prompt=turns, texts=tuple(scrubbed[len(turns) :])), flat


def _new_item(session: Session, campaign: Campaign, row: _Row, source: str, kind: Kind, pii: str) -> NewItem:
    prompt = add_prompt(
        session,
        project_id=campaign.project_id,
        messages=row.prompt,
        source=source,
        source_ref=row.name,
        language=row.language,
        group=row.group,
        pii=pii,
    )
    ids = []
    for text, model, sampling in zip(row.texts, row.models, row.sampling, strict=True):
        name, revision = (part.strip() for part in (model or "").partition("@")[::2])
        model_id = content.add_model(session, name=name, revision=revision).id if model else None
        origin = "model" if model else "imported"
        response = add_response(
            session, prompt_id=prompt.id, text=text, origin=origin, model_id=model_id, sampling=sampling
        )
        ids.append(response.id)
    if len(set(ids)) < len(ids):
        raise ValueError("two responses are the same text of the same model; expected distinct ones; remove one")
    known = None if kind == "normal" or row.ranks is None else {"ranks": dict(zip(ids, row.ranks, strict=True))}
    return NewItem(
        prompt_id=prompt.id, response_ids=tuple(ids), names=row.names, kind=kind, expected=known, source_ref=row.name
    )


def import_judgments(
    store: Store,
    judgments: Iterable[Judgment | Statement],
    *,
    campaign_id: str,
    source: str,
    consent: str,
    names: Mapping[str, str] | None = None,
) -> int:
    """Import judgments of response sets that are items of the campaign; doing it again adds nothing.

    A person becomes an account nobody can log in to, with the given name as pseudonym; a model becomes a judge.

    Args:
        store: where to.
        judgments: their `response_set` is the id the set was imported under. A `Judgment` has ranks, a `Statement` the
            payload of any kind of task.
        campaign_id: of the items.
        source: where they come from.
        consent: on what ground people's judgments are kept, e.g. "published under CC-BY-4.0 with consent of the
            annotators"; becomes a consent text of the project.
        names: response set -> item, beyond the names the items have; see `ImportReport.names`.

    Returns: number of judgments that were not there before.

    Raises:
        ValueError: a response set or a response is unknown; source and row number are named.
    """
    added = 0
    for number, rows in enumerate(_batches(judgments)):
        added += store.run(_judgment_batch, rows, campaign_id, source, consent, number * BATCH, names or {})
    return added


def _judgment_batch(
    session: Session,
    rows: Sequence[Judgment | Statement],
    campaign_id: str,
    source: str,
    consent: str,
    offset: int,
    names: Mapping[str, str],
) -> int:
    added = 0
    for number, row in enumerate(rows, offset + 1):
        try:
            item = names.get(row.response_set)
            added += add_foreign_judgment(
                session, row, campaign_id=campaign_id, source=source, consent=consent, item_id=item
            )
        except ValueError as error:
            raise ValueError(f"{source}, row {number}: {error}") from None
    write_event(session, "import", campaign_id, actor_id=None, source=source, judgments=added)
    return added
