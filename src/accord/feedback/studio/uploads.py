"""Rows of an uploaded file as records: JSON, one object a line. Bad rows are named, the good ones are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from accord.feedback.store import ImportReport, NewItem, Store, add_items, add_prompt, import_records
from accord.feedback.store.imports import Importable
from accord.feedback.store.queries.common import must_have
from accord.feedback.store.tables import Campaign
from accord.records import Comparison, Conversation, Demonstration, Ranking, ResponseSet, describe

__all__ = ["Kind", "PromptOnly", "keep", "read_rows"]

Kind: TypeAlias = str
MOST_COMPLAINTS = 20


class PromptOnly(BaseModel):
    """A prompt without a response, to be answered by people."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    prompt: Conversation


def read_rows(data: bytes) -> tuple[list[Importable | PromptOnly], list[str]]:
    """Records of a file and complaints, one a bad row: "row 3: what was found, what was expected".

    What a row is follows from its fields: `chosen` a Comparison, `ranks` a Ranking, `responses` a ResponseSet,
    `response` or `messages` a Demonstration, `prompt` alone a prompt.
    """
    rows: list[Importable | PromptOnly] = []
    complaints: list[str] = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            rows.append(_record(json.loads(line)))
        except ValidationError as error:
            complaints.append(f"row {number}: {describe(error)}")
        except (ValueError, RecursionError) as error:
            complaints.append(f"row {number}: {error}")
    return rows, complaints


def _record(row: Any) -> Importable | PromptOnly:
    if not isinstance(row, Mapping):
        raise ValueError(f"found {type(row).__name__}; expected an object with a prompt")
    fields = {name: value for name, value in row.items() if name not in ("meta",)}
    kinds: tuple[tuple[str, type[BaseModel]], ...] = (
        ("chosen", Comparison),
        ("ranks", Ranking),
        ("responses", ResponseSet),
        ("response", Demonstration),
        ("messages", Demonstration),
        ("prompt", PromptOnly),
    )
    kind = next((kind for name, kind in kinds if name in fields), None)
    if kind is None:
        raise ValueError(f"found the fields {sorted(fields)[:6]}; expected a prompt with responses, see the rows below")
    if kind is PromptOnly and isinstance(fields["prompt"], str):
        fields["prompt"] = [{"role": "user", "content": fields["prompt"]}]
    record = kind.model_validate(fields)
    assert isinstance(record, (Comparison, Ranking, ResponseSet, Demonstration, PromptOnly))
    return record


def keep(
    store: Store, rows: list[Importable | PromptOnly], *, campaign_id: str, source: str, kind: Kind
) -> tuple[int, ImportReport | None]:
    """Make items of the rows; return how many prompts without responses there were, and the report on the others.

    Raises:
        ValueError: a row does not fit the campaign; the ones before it in other batches of 1,000 are kept.
    """
    bare = [row for row in rows if isinstance(row, PromptOnly)]
    full = [row for row in rows if not isinstance(row, PromptOnly)]
    report = None
    if full:
        report = import_records(store, full, campaign_id=campaign_id, source=source, kind=kind)  # type: ignore[arg-type]
    if bare:
        store.run(_keep_prompts, campaign_id, bare, source)
    return len(bare), report


def _keep_prompts(session: Any, campaign_id: str, rows: list[PromptOnly], source: str) -> None:
    campaign = must_have(session, Campaign, campaign_id)
    if campaign.task_type != "demonstrate":
        raise ValueError(f"found prompts without responses; a {campaign.task_type} campaign needs responses to judge")
    items = []
    for row in rows:
        prompt = add_prompt(session, project_id=campaign.project_id, messages=row.prompt, source=source)
        items.append(NewItem(prompt_id=prompt.id))
    add_items(session, campaign_id=campaign_id, items=items)
