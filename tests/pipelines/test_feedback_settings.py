"""The command's settings of an export and the store's are two classes, because the store is an optional package."""

from __future__ import annotations

from accord.feedback.store import ExportOptions
from accord.pipelines.feedback_settings import FeedbackExport


def test_an_export_means_the_same_to_the_command_and_to_the_store() -> None:
    command, store = FeedbackExport.model_fields, ExportOptions.model_fields
    assert set(store) <= set(command)
    for name, field in store.items():
        assert (command[name].annotation, command[name].default) == (field.annotation, field.default), name
        assert command[name].metadata == field.metadata, name
        if field.description:
            assert command[name].description == field.description, name
