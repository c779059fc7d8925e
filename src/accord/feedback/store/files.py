"""An export on disk: a file per split and a manifest, the same bytes each time, and an event in the store.

JSONL is what `accord.data` and the trainers read; Parquet and folders of `datasets` hold the same rows, objects with
keys of their own (ranks by response, payloads) as JSON text, since a table has the same columns in every row.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from accord.feedback.store import personal_data
from accord.feedback.store.database import Store
from accord.feedback.store.exports import Export, ExportOptions, export_rows
from accord.feedback.store.queries.common import must_have, write_event
from accord.feedback.store.queries.talks import lines_of, noted, spoken, thumbed
from accord.feedback.store.queries.verdicts import adjudications, contents, verdicts
from accord.feedback.store.tables import Campaign, Consent, Conversation, Exclusion, User

__all__ = ["export_campaign"]


def export_campaign(
    store: Store,
    folder: Path,
    options: ExportOptions,
    *,
    campaign_id: str,
    actor_id: str | None,
    table: Literal["jsonl", "parquet", "datasets"] = "jsonl",
) -> dict[str, Any]:
    """Write an export and return its manifest.

    Args:
        store: where from.
        folder: where to; made if it is not there, files of an earlier export of the same name are replaced.
        options: what and how.
        campaign_id: of which campaign.
        actor_id: who exports; noted in the audit log with the manifest's counts and hash.
        table: what is written per split: SPLIT.jsonl, SPLIT.parquet, or a folder SPLIT for `datasets`.

    Raises:
        ValueError: the options do not go together, or there is nothing to export.
    """
    export, exclusions = store.read(_read, campaign_id, options)
    if not any(export.rows.values()):
        why = ", ".join(f"{count} {reason}" for reason, count in export.left_out.items()) or "no judgment"
        raise ValueError(f"campaign {campaign_id} has nothing to export as {options.form} ({why}); change the options")
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for split, rows in export.rows.items():
        if rows:
            name, data = _write(folder, split, rows, table)
            files[name] = {"rows": len(rows), "sha256": hashlib.sha256(data).hexdigest()}
    manifest = {
        "campaign": campaign_id,
        "options": options.model_dump(),
        "files": files,
        "left_out": dict(sorted(export.left_out.items())),
        "exclusions": exclusions,
        "personal_data": dict(sorted(_finds(export).items())),
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf8")
    store.run(_note, campaign_id, actor_id, manifest, hashlib.sha256(text.encode()).hexdigest())
    return manifest


# Objects whose keys differ from row to row.
_FREE_FORM = ("ranks", "payload", "sampling")


def _write(folder: Path, split: str, rows: list[dict[str, Any]], table: str) -> tuple[str, bytes]:
    """Write a split; return its name and the bytes its hash is of (of `datasets`: those of the rows as JSONL)."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if table == "jsonl":
        (folder / f"{split}.jsonl").write_bytes(lines)
        return f"{split}.jsonl", lines
    flat = [_flat(row) for row in rows]
    if table == "parquet":
        import pyarrow
        import pyarrow.parquet

        path = folder / f"{split}.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(flat), path)
        return path.name, path.read_bytes()
    try:
        from datasets import Dataset
    except ImportError:
        raise ValueError(
            "writing a folder of `datasets` needs that package; pip install 'accord-align[datasets]', or write parquet"
        ) from None
    Dataset.from_list(flat).save_to_disk(str(folder / split))
    return split, lines


def _flat(value: Any) -> Any:
    if isinstance(value, list):
        return [_flat(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: json.dumps(one, ensure_ascii=False) if name in _FREE_FORM and isinstance(one, dict) else _flat(one)
        for name, one in value.items()
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


def _finds(export: Export) -> Counter[str]:
    """What still looks personal in the rows, by type: a count for whoever decides on publishing them."""
    texts = [json.dumps(row, ensure_ascii=False) for rows in export.rows.values() for row in _without_meta(rows)]
    return Counter(found.type for text in texts for found in personal_data.find(text))


def _without_meta(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    hidden = ("meta", "shown_at", "submitted_at", "display_order", "ranks", "annotator")
    return [{name: value for name, value in row.items() if name not in hidden} for row in rows]


def _note(session: Session, campaign_id: str, actor_id: str | None, manifest: dict[str, Any], sha256: str) -> None:
    rows = {name: file["rows"] for name, file in manifest["files"].items()}
    write_event(
        session, "export", campaign_id, actor_id=actor_id, form=manifest["options"]["form"], rows=rows, sha256=sha256
    )


def _read(session: Session, campaign_id: str, options: ExportOptions) -> tuple[Export, list[str]]:
    campaign = must_have(session, Campaign, campaign_id)
    if options.form == "conversations":
        talked = _conversations(session, campaign_id)
        return _hashed(talked, campaign.secret) if options.hash_annotators else talked, []
    found = verdicts(
        session, campaign_id=campaign_id, include_excluded=True, include_surplus=options.form == "judgments"
    )
    export = export_rows(
        found,
        contents(session, campaign_id=campaign_id),
        options,
        task_type=campaign.task_type,
        adjudicated=adjudications(session, campaign_id=campaign_id),
    )
    in_force = session.scalars(
        select(Exclusion.id)
        .where(
            Exclusion.reversed_at.is_(None), Exclusion.campaign_id.in_((campaign_id,)) | Exclusion.campaign_id.is_(None)
        )
        .order_by(Exclusion.id)
    )
    return _hashed(export, campaign.secret) if options.hash_annotators else export, list(in_force)


def _conversations(session: Session, campaign_id: str) -> Export:
    """Finished conversations of people who agreed to training on them."""
    rows: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    found = session.execute(
        select(Conversation, Consent, User.pseudonym)
        .join(Consent, Consent.id == Conversation.consent_id)
        .join(User, User.id == Conversation.user_id)
        .where(Conversation.campaign_id == campaign_id)
        .order_by(Conversation.id)
    )
    for conversation, consent, pseudonym in found.all():
        if conversation.state != "finished" or "train" not in consent.uses:
            left_out["unfinished" if conversation.state == "open" else "no consent to training"] += 1
            continue
        lines = thumbed(session, lines_of(session, conversation.id))
        messages = [{"role": line.role, "content": line.text} for line in spoken(lines)]
        meta = {"kind": conversation.kind, "rating": conversation.rating, "annotators": [pseudonym]}
        rows.append({"messages": messages, "meta": {"item": conversation.id, **meta, **noted(lines)}})
    return Export(rows={"train": rows}, left_out=left_out)
