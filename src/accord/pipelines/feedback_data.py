"""Files -> a campaign of the feedback store: projects and campaigns are made on the way, every row is accounted for.

outcome = import_files(store, FeedbackImport(files=("trees.jsonl",), campaign="first"), seen=print)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from accord.data.collections import Asked, Collected, Opinion, read_collection
from accord.data.readers import BadRow
from accord.feedback.store import (
    Gathered,
    Statement,
    Store,
    add_campaign,
    add_consent_text,
    add_guideline,
    add_project,
    import_judgments,
    import_records,
)
from accord.feedback.store.find import find_project
from accord.feedback.store.imports import Importable
from accord.feedback.store.personal_data import Detector
from accord.feedback.store.tables import Campaign, Guideline
from accord.pipelines.feedback_settings import CampaignTarget, FeedbackImport
from accord.records import Comparison, Demonstration, Judgment, Ranking, ResponseSet

__all__ = ["ImportOutcome", "import_files", "import_rows", "import_upload", "misfit", "target_campaign"]

CONSENT = "Your judgments are kept under a pseudonym and may be used to train and evaluate models."
GUIDELINE = (
    "Prefer the response that helps the person who asked: right, honest, complete, and harmless. A longer response "
    "is not better for being longer. Say that two are equal when they are. Mark a response as failed when it is "
    "nonsense, off topic or no answer."
)


@dataclass(frozen=True, kw_only=True)
class ImportOutcome:
    """What became of the rows: rows = items + dropped + the left out ones + rows with judgments only.

    Attributes:
        campaign_id: where they went.
        campaign: PROJECT/NAME.
        rows: good rows read.
        formats: rows by format.
        items: distinct items they are now.
        judgments: that were not there before.
        dropped: rows with personal data.
        held: items that wait for a reviewer.
        finds: personal data, by type.
        left_out: rows that do not fit the task, by reason.
        bad_rows: what cannot be read, or does not fit.
    """

    campaign_id: str
    campaign: str
    rows: int
    formats: dict[str, int]
    items: int
    judgments: int
    dropped: int
    held: int
    finds: dict[str, int]
    left_out: dict[str, int]
    bad_rows: tuple[BadRow, ...]


def target_campaign(session: Session, target: CampaignTarget) -> tuple[str, str]:
    """Find or make the campaign; return its id and PROJECT/NAME.

    Raises:
        ValueError: it is there with another task.
    """
    slug, _, name = target.campaign.rpartition("/")
    slug = slug or target.project
    project = find_project(session, slug)
    if project is None:
        project = add_project(session, slug=slug)
        add_consent_text(session, project_id=project.id, markdown=CONSENT)
    found = session.scalar(select(Campaign).where(Campaign.project_id == project.id, Campaign.name == name))
    if found is not None:
        if "task" in target.model_fields_set and found.task_type != target.task:
            raise ValueError(
                f"campaign {slug}/{name} has the task {found.task_type}, not {target.task}; name another campaign"
            )
        return found.id, f"{slug}/{name}"
    guideline = _guideline(session, project.id, target.guideline)
    made = add_campaign(
        session,
        project_id=project.id,
        name=name,
        task_type=target.task,
        guideline_id=guideline.id,
        overlap=target.overlap,
    )
    return made.id, f"{slug}/{name}"


def _guideline(session: Session, project_id: str, path: Path | None) -> Guideline:
    markdown = GUIDELINE if path is None else path.read_text(encoding="utf-8")
    known = session.scalar(
        select(Guideline).where(Guideline.project_id == project_id, Guideline.markdown == markdown).limit(1)
    )
    return known or add_guideline(session, project_id=project_id, markdown=markdown)


def import_files(
    store: Store,
    config: FeedbackImport,
    *,
    seen: Callable[[int], object] = lambda rows: None,
    stored: Callable[[int, int], object] = lambda done, total: None,
    detectors: Sequence[Detector] = (),
) -> ImportOutcome:
    """Read the files, make the campaign if need be, import what fits; doing it again adds nothing.

    Args:
        store: where to.
        config: what, and how.
        seen: called with the rows read so far.
        stored: called with the rows stored so far, and all of them.
        detectors: of personal data, beyond the patterns.
    """
    read = read_collection(config.files, config.format, skip_bad_rows=config.skip_bad_rows, seen=seen)
    campaign_id, name = store.run(target_campaign, config)
    outcome = import_rows(
        store,
        read.rows,
        campaign_id=campaign_id,
        source=config.source or config.files[0].name.partition(".")[0],
        consent=config.consent,
        kind=config.kind,
        screen=config.screen,
        detectors=detectors,
        stored=stored,
    )
    return ImportOutcome(
        **{**vars(outcome), "campaign": name, "formats": dict(read.formats)}
        | {"bad_rows": read.bad_rows + outcome.bad_rows}
    )


def import_upload(store: Store, path: Path, *, campaign_id: str, source: str, kind: str) -> ImportOutcome:
    """What the studio's page does with a file: every format `import_files` reads, bad rows set aside and named."""
    if kind not in ("normal", "gold", "qualification"):
        raise ValueError(f"found the kind {kind!r}; expected normal, gold or qualification")
    settings = FeedbackImport.model_fields
    read = read_collection([path], skip_bad_rows=True)
    consent = str(settings["consent"].default)
    outcome = import_rows(
        store,
        read.rows,
        campaign_id=campaign_id,
        source=source,
        consent=consent,
        kind=kind,  # type: ignore[arg-type]
    )
    return replace(outcome, formats=dict(read.formats), bad_rows=read.bad_rows + outcome.bad_rows)


CHUNK = 200  # rows between two steps of the progress bar


def import_rows(
    store: Store,
    rows: Sequence[Collected],
    *,
    campaign_id: str,
    source: str,
    consent: str,
    kind: Literal["normal", "gold", "qualification"] = "normal",
    screen: Literal["replace", "drop", "hold", "off"] = "replace",
    detectors: Sequence[Detector] = (),
    stored: Callable[[int, int], object] = lambda done, total: None,
) -> ImportOutcome:
    """Import rows that were read; those that do not fit the task are left out and listed."""
    task = store.read(_task_of, campaign_id)
    fitting: list[Importable] = []
    judgments: list[Judgment | Statement] = []
    left_out: Counter[str] = Counter()
    bad: list[BadRow] = []
    for row in rows:
        reason = misfit(row, task)
        if reason is not None:
            left_out[reason] += 1
            bad.append(BadRow(file=row.file, row=row.row, message=reason, raw=_plain(row)))
            continue
        fitting += [] if row.record is None else [_importable(row)]
        judgments += [_statement(one) for one in row.judgments] if kind == "normal" else []
    items: set[str] = set()
    held: set[str] = set()
    names: dict[str, str] = {}
    dropped = added = 0
    finds: Counter[str] = Counter()
    total = len(fitting) + len(judgments)
    for start in range(0, len(fitting), CHUNK):
        report = import_records(
            store, fitting[start : start + CHUNK], campaign_id=campaign_id, source=source, kind=kind, screen=screen,
            detectors=detectors,
        )  # fmt: skip
        items.update(report.items)
        held.update(report.held)
        names |= report.names
        finds += report.finds
        dropped += report.dropped
        stored(min(start + CHUNK, len(fitting)), total)
    gone = {row.name for row in fitting if isinstance(row, Gathered)} - names.keys()
    kept = [one for one in judgments if one.response_set not in gone]
    if len(kept) < len(judgments):
        left_out["judgment of a row that was dropped"] += len(judgments) - len(kept)
    for start in range(0, len(kept), CHUNK):
        added += import_judgments(
            store, kept[start : start + CHUNK], campaign_id=campaign_id, source=source, consent=consent, names=names
        )
        stored(len(fitting) + min(start + CHUNK, len(kept)), total)
    return ImportOutcome(
        campaign_id=campaign_id,
        campaign="",
        rows=len(rows),
        formats={},
        items=len(items),
        judgments=added,
        dropped=dropped,
        held=len(held),
        finds=dict(finds),
        left_out=dict(left_out),
        bad_rows=tuple(bad),
    )


def _task_of(session: Session, campaign_id: str) -> str:
    return session.scalars(select(Campaign.task_type).where(Campaign.id == campaign_id)).one()


def misfit(row: Collected, task: str) -> str | None:
    """Why a row cannot be judged in a kind of task; None: it can."""
    record = row.record
    if record is None or task == "demonstrate":
        return None
    if isinstance(record, Asked):
        return f"no response; a {task} task needs some"
    texts = _texts(record)
    if task in ("pairwise", "winrate") and len(texts) != 2:
        return f"{len(texts)} response{'s' * (len(texts) != 1)}; a {task} task takes two"
    if task == "rank" and len(texts) < 2:
        return "one response; a rank task takes two or more"
    if task == "labels" and len(texts) != 1:
        return f"{len(texts)} responses; a labels task takes one"
    if len(set(texts)) < len(texts):
        return "two responses are the same text of the same model"
    return None


def _texts(record: Demonstration | ResponseSet | Comparison | Ranking) -> list[tuple[str | None, str]]:
    """(model, text) of each response, as far as the store tells them apart."""
    if isinstance(record, ResponseSet):
        return [(response.model, response.text) for response in record.responses]
    if isinstance(record, Ranking):
        return [(None, text) for text in record.responses]
    if isinstance(record, Comparison):
        return [(None, record.chosen), (None, record.rejected)]
    return [(None, record.conversation[-1].content)]


def _importable(row: Collected) -> Importable:
    record = row.record
    assert record is not None
    if isinstance(record, (Asked, ResponseSet)):
        return Gathered(
            name=record.id,
            prompt=record.prompt,
            responses=record.responses if isinstance(record, ResponseSet) else (),
            ranks=row.ranks,
            group=row.group,
            language=row.language,
        )
    return record


def _statement(judgment: Judgment | Opinion) -> Judgment | Statement:
    return judgment if isinstance(judgment, Judgment) else Statement(**vars(judgment))


def _plain(row: Collected) -> str:
    name = getattr(row.record, "id", "")
    return f"{type(row.record).__name__} {name}".strip()
