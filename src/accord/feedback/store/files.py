"""An export on disk: a file per split and a manifest, the same bytes each time, and an event in the store.

JSONL is what `accord.data` and the trainers read; Parquet and folders of `datasets` hold the same rows, objects with
keys of their own (ranks by response, payloads) as JSON text, since a table has the same columns in every row.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from sqlalchemy.orm import Session

from accord.feedback.store import personal_data
from accord.feedback.store.database import Store
from accord.feedback.store.exports import Export, ExportOptions
from accord.feedback.store.queries.common import write_event
from accord.feedback.store.queries.exported import read_export
from accord.feedback.store.row_words import texts_in, words_of

__all__ = ["export_campaign", "exported_rows"]


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
    export, exclusions = _gathered(store, campaign_id, options)
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for split, rows in export.rows.items():
        if rows:
            name, data = _write(folder, split, rows, table)
            files[name] = _file(rows, data)
    manifest = _manifest(campaign_id, options, export, exclusions, files)
    text = _text(manifest)
    (folder / "manifest.json").write_text(text, encoding="utf8")
    store.run(_note, campaign_id, actor_id, manifest, hashlib.sha256(text.encode()).hexdigest())
    return manifest


def exported_rows(
    store: Store, options: ExportOptions, *, campaign_id: str, actor_id: str | None
) -> dict[str, list[dict[str, Any]]]:
    """The rows of the same export by split, for a program; the audit log has the same line as for the files.

    Raises:
        ValueError: the options do not go together, or there is nothing to export.
    """
    export, exclusions = _gathered(store, campaign_id, options)
    rows = {split: found for split, found in export.rows.items() if found}
    files = {f"{split}.jsonl": _file(found, _lines(found)) for split, found in rows.items()}
    manifest = _manifest(campaign_id, options, export, exclusions, files)
    store.run(_note, campaign_id, actor_id, manifest, hashlib.sha256(_text(manifest).encode()).hexdigest())
    return rows


def _gathered(store: Store, campaign_id: str, options: ExportOptions) -> tuple[Export, list[str]]:
    export, exclusions = store.read(read_export, campaign_id, options)
    if not any(export.rows.values()):
        why = ", ".join(f"{count} {reason}" for reason, count in export.left_out.items()) or "no judgment"
        raise ValueError(f"campaign {campaign_id} has nothing to export as {options.form} ({why}); change the options")
    return export, exclusions


def _file(rows: list[dict[str, Any]], data: bytes) -> dict[str, Any]:
    return {"rows": len(rows), "sha256": hashlib.sha256(data).hexdigest()}


def _manifest(
    campaign_id: str, options: ExportOptions, export: Export, exclusions: list[str], files: dict[str, Any]
) -> dict[str, Any]:
    return {
        "campaign": campaign_id,
        "options": options.model_dump(),
        "files": files,
        "left_out": dict(sorted(export.left_out.items())),
        "exclusions": exclusions,
        "personal_data": dict(sorted(_finds(export).items())),
    }


def _text(manifest: dict[str, Any]) -> str:
    return json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


# Objects whose keys differ from row to row.
_FREE_FORM = ("ranks", "payload", "sampling")


def _write(folder: Path, split: str, rows: list[dict[str, Any]], table: str) -> tuple[str, bytes]:
    """Write a split; return its name and the bytes its hash is of (of `datasets`: those of the rows as JSONL)."""
    lines = _lines(rows)
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


def _finds(export: Export) -> Counter[str]:
    """What still looks personal in the rows, by type: a count for whoever decides on publishing them."""
    texts = (text for rows in export.rows.values() for row in rows for text in texts_in(words_of(row)))
    return Counter(found.type for text in texts for found in personal_data.find(text))


def _note(session: Session, campaign_id: str, actor_id: str | None, manifest: dict[str, Any], sha256: str) -> None:
    rows = {name: file["rows"] for name, file in manifest["files"].items()}
    write_event(
        session, "export", campaign_id, actor_id=actor_id, form=manifest["options"]["form"], rows=rows, sha256=sha256
    )
