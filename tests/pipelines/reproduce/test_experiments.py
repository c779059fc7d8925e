"""Experiments from data to evidence on a tiny model, and what becomes of a run that was stopped."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from accord.pipelines.reproduce.evidence import Evidence, read
from accord.pipelines.reproduce.page import keep
from accord.pipelines.reproduce.runner import EXPERIMENTS, reproduce
from pipelines.reproduce.little_world import write_data

pytest.importorskip("sklearn")


def perform(name: str, tiny: Path, tmp_path: Path, **more: Any) -> tuple[Evidence, Path]:
    data = write_data(tmp_path / "data")
    settings = {"model": str(tiny), "data": data, "out": tmp_path / name, "fast": True}
    config = EXPERIMENTS[name].config(**settings | more)
    return reproduce(EXPERIMENTS[name], config, Console(file=io.StringIO()))


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_data_that_a_late_step_needs_is_missed_at_once(
    name: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody watches: a file that the last step reads must be there before the first begins, and before the model."""
    monkeypatch.setattr("accord.models.load.resolve", lambda _: pytest.fail("the model was loaded first"))
    data = write_data(tmp_path / "data")
    for pattern in EXPERIMENTS[name].needs:
        assert list(data.glob(pattern)), pattern
    last = next(data.glob(EXPERIMENTS[name].needs[-1]))
    last.rename(tmp_path / "elsewhere")
    config = EXPERIMENTS[name].config(model=str(tiny_folder), data=data, out=tmp_path / name, fast=True)
    with pytest.raises(ValueError, match=last.name.split(".")[0]):
        reproduce(EXPERIMENTS[name], config, Console(file=io.StringIO()))


@pytest.mark.slow
def test_listwise_leaves_evidence_that_can_be_read_but_not_kept(tiny_folder: Path, tmp_path: Path) -> None:
    evidence, path = perform("listwise", tiny_folder, tmp_path)
    assert [row[0] for row in evidence.tables[0].rows] == ["reference", "dpo", "pro"]
    assert evidence.findings[0].seen == "unclear"  # one seed never says more
    about = evidence.provenance
    assert about["seeds"] == [0]
    assert about["data"][0]["rows"] == 120
    assert len(about["model_fingerprint"]) > 11
    assert read(path) == read(path)
    assert read(path).findings == evidence.findings
    with pytest.raises(ValueError, match="fast run"):
        keep(path.parent, tmp_path / "docs")


@pytest.mark.slow
def test_a_stopped_experiment_ends_in_the_same_figures(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = perform("listwise", tiny_folder, tmp_path / "whole")
    module = EXPERIMENTS["listwise"].load()
    train = module._train

    def stops(lab: Any, config: Any, world: Any, loss: str, seed: int) -> float:
        if loss == "pro":
            raise KeyboardInterrupt
        return float(train(lab, config, world, loss, seed))

    monkeypatch.setattr(module, "_train", stops)
    with pytest.raises(KeyboardInterrupt):
        perform("listwise", tiny_folder, tmp_path / "cut")
    finished = json.loads((tmp_path / "cut/listwise/clock.json").read_text())["seconds"]
    assert "dpo-0" in finished
    assert "pro-0" not in finished
    monkeypatch.setattr(module, "_train", train)
    again, _ = perform("listwise", tiny_folder, tmp_path / "cut")
    assert again.tables == whole.tables


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name != "listwise"])
def test_every_experiment_goes_through(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    evidence, _ = perform(name, tiny_folder, tmp_path)
    assert evidence.findings
    assert evidence.figures
    assert all(len(row) == len(table.columns) for table in evidence.tables for row in table.rows)
    assert {finding.seen for finding in evidence.findings} == {"unclear"}


def test_another_experiment_does_not_fit_into_a_folder(tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "one"
    out.mkdir()
    (out / "config.yaml").write_text("job: reproduce-length\n")
    (out / "clock.json").write_text("{}")  # a step of it is done
    with pytest.raises(ValueError, match="another --out"):
        perform("listwise", tiny_folder, tmp_path, out=out)


def test_data_that_are_not_there_are_named(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        perform("listwise", tiny_folder, tmp_path, data=tmp_path / "nowhere")
