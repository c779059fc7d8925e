"""Exports of a campaign as a ZIP file of JSONL and a manifest: the same bytes as `accord feedback export`."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from starlette.datastructures import FormData

from accord.feedback.store import ExportOptions, export_campaign
from accord.feedback.store.queries.administration import events_of
from accord.feedback.studio.access import may_administer, may_administer_campaign
from accord.feedback.studio.context import Form, Me, StudioOf
from accord.feedback.studio.view import page
from accord.records import describe

__all__ = ["export_fields", "router"]

router = APIRouter(prefix="/admin/campaign")


def export_fields() -> list[dict[str, Any]]:
    """The options as fields of a form: name, kind, choices, default, meaning."""
    found = []
    for name, info in ExportOptions.model_fields.items():
        choices = get_args(info.annotation) if get_origin(info.annotation) is Literal else ()
        kind = "choice" if choices else "flag" if info.annotation is bool else "text"
        meaning = info.description or ""
        found.append({"name": name, "kind": kind, "choices": choices, "default": info.default, "meaning": meaning})
    return found


@router.get("/{campaign_id}/export")
def show_export(request: Request, studio: StudioOf, me: Me, campaign_id: str) -> Response:
    """The form, and the exports there were."""
    campaign = studio.store.read(may_administer_campaign, me.user_id, campaign_id)
    project = studio.store.read(may_administer, me.user_id, campaign.project_id)
    events = studio.store.read(events_of, campaign.project_id)
    before = [(event, who) for event, who in events if event.kind == "export" and event.subject == campaign_id]
    return page(request, "admin_export.html", project=project, campaign=campaign, fields=export_fields(), before=before)


@router.post("/{campaign_id}/export")
def export(studio: StudioOf, me: Me, campaign_id: str, form: Form) -> Response:
    """Write the export and send it."""
    studio.store.read(may_administer_campaign, me.user_id, campaign_id)
    options = options_of(form)
    with tempfile.TemporaryDirectory() as name:
        export_campaign(studio.store, Path(name), options, campaign_id=campaign_id, actor_id=me.user_id)
        data = zipped(Path(name))
    headers = {"Content-Disposition": f'attachment; filename="{options.form}.zip"'}
    return Response(data, media_type="application/zip", headers=headers)


def options_of(form: FormData) -> ExportOptions:
    """The options of a filled form.

    Raises:
        ValueError: one of them is wrong.
    """
    given: dict[str, Any] = {}
    for field in export_fields():
        name, value = field["name"], str(form.get(field["name"], "")).strip()
        if field["kind"] == "flag":
            given[name] = value == "yes"
        elif value:
            given[name] = value
    try:
        return ExportOptions.model_validate(given)
    except ValidationError as error:
        raise ValueError(describe(error)) from None


def zipped(folder: Path) -> bytes:
    """The files of a folder, with a fixed time, so that equal exports are equal bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.writestr(zipfile.ZipInfo(path.name, (1980, 1, 1, 0, 0, 0)), path.read_bytes())
    return out.getvalue()
