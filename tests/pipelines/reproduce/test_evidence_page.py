"""Intervals over seeds, verdicts, figures, and the page that is made of kept evidence."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from accord.pipelines.reproduce.configs import LengthConfig
from accord.pipelines.reproduce.drawing import draw
from accord.pipelines.reproduce.evidence import (
    Evidence,
    Figure,
    Finding,
    Point,
    Series,
    Table,
    over_seeds,
    read,
    sign_of,
    with_interval,
)
from accord.pipelines.reproduce.lab import Lab
from accord.pipelines.reproduce.length import biased
from accord.pipelines.reproduce.page import keep, markdown
from accord.pipelines.reproduce.runner import EXPERIMENTS

ROOT = Path(__file__).resolve().parents[3]


def evidence(**more: object) -> Evidence:
    points = [Point(x=0.0, y=0.4), Point(x=2.0, y=0.7, low=0.6, high=0.8, label="a < b & c")]
    about = {
        "model": "tiny", "model_fingerprint": "0123456789abcdef", "seeds": [0, 1, 2], "fast": False, "seconds": 600.0,
        "peak_memory_gb": 1.5, "precision": "fp32", "environment": {"threads": 1}, "versions": {"numpy": "2"},
        "data": [{"path": "x/imdb/train.jsonl.gz", "rows": 3, "hash": "f" * 64}], "time": "2026-01-02T03:04:05+0000",
    }  # fmt: skip
    settings: dict[str, object] = {
        "experiment": "frontier", "title": "Reward against KL", "question": "Which?", "setting": "So.",
        "findings": [Finding(claim="It was said.", seen="no", words="0.1 [0.0, 0.2]")],
        "tables": [Table(title="Figures", columns=["a", "b"], rows=[["1 | 2", "3"]])],
        "figures": [Figure(name="f", title="T", x="KL", y="gold", series=[Series(name="DPO", points=points)])],
        "caveats": ["Few."], "provenance": about,
    }  # fmt: skip
    return Evidence(**settings | more)  # type: ignore[arg-type]


def test_provenance_names_each_machine_that_went_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(LengthConfig(data=tmp_path, out=tmp_path))
    for threads in (1, 1, 2, 1, 3, 2):
        here = {"versions": {"numpy": "2"}, "environment": {"threads": threads}, "started": "now"}
        monkeypatch.setattr("accord.train.run.environment", lambda here=here: here)
        lab.settle({"model_fingerprint": "f"})
    about = lab.facts({"a": 60.0}, 1.0)
    assert (about["environment"], [one["environment"] for one in about["continued"]]) == (
        {"threads": 1},
        [{"threads": 2}, {"threads": 3}],
    )
    whole = evidence().provenance | {"continued": about["continued"]}
    for one, words in ((evidence(provenance=whole), "on 1 and 2 and 3 threads"), (evidence(), "on 1 thread")):
        one.write(tmp_path / "evidence.json")
        keep(tmp_path / "evidence.json", tmp_path / "page")
        assert f"{words}, 10 minutes" in markdown(tmp_path / "page")


def test_the_interval_over_seeds_is_students() -> None:
    # mean 2, deviation 1, t(.975, 2) = 4.30265: half width 4.30265 / sqrt 3
    mean, low, high = over_seeds([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert low is not None
    assert high == pytest.approx(2 + 2.48414, abs=1e-4)
    assert low == pytest.approx(2 - 2.48414, abs=1e-4)
    assert over_seeds([5.0]) == (5.0, None, None)
    assert math.isnan(over_seeds([math.nan])[0])


@pytest.mark.parametrize(
    ("ends", "seen"), [((0.1, 0.3), "yes"), ((-0.3, -0.1), "no"), ((-0.1, 0.1), "unclear"), ((None, None), "unclear")]
)
def test_only_an_interval_makes_a_verdict(ends: tuple[float | None, float | None], seen: str) -> None:
    assert sign_of(*ends) == seen


def test_figures_in_words() -> None:
    assert with_interval(0.614, 0.5, 0.7) == "0.61 [0.50, 0.70]"
    assert with_interval(0.614, None, None, 1) == "0.6"
    assert with_interval(math.nan, 0.0, 1.0) == "-"


def test_evidence_comes_back_as_it_was(tmp_path: Path) -> None:
    evidence().write(tmp_path / "e.json")
    assert read(tmp_path / "e.json") == evidence()
    (tmp_path / "e.json").write_text("{}")
    with pytest.raises(ValueError, match="not the evidence"):
        read(tmp_path / "e.json")


def test_a_drawing_is_xml_with_every_point_and_no_markup_from_names() -> None:
    root = ET.fromstring(draw(evidence().figures[0]))
    titles = [one.text for one in root.iter("{http://www.w3.org/2000/svg}title")]
    assert "DPO, a < b & c: 2, 0.7" in titles
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 3  # two points and the key


def test_the_seeds_of_a_run_have_one_key() -> None:
    names = ("free, seed 0", "free, seed 1", "held", "hull of held")
    series = [Series(name=name, points=[Point(x=i, y=1.0), Point(x=i + 1, y=2.0)]) for i, name in enumerate(names)]
    root = ET.fromstring(draw(Figure(name="f", title="T", x="x", y="y", series=series)))
    keys = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text") if one.get("class") == "name"]
    assert keys == ["free", "held"]


def test_a_drawing_without_points_says_so() -> None:
    figure = Figure(name="f", title="T", x="x", y="y", series=[Series(name="s", points=[Point(x=math.nan, y=1.0)])])
    assert "no finite point" in draw(figure)


def test_the_page_has_what_was_found_and_what_was_not_run(tmp_path: Path) -> None:
    run, folder = tmp_path / "run", tmp_path / "evidence"
    run.mkdir()
    evidence().write(run / "evidence.json")
    keep(run, folder)
    page = markdown(folder)
    assert "seen here" in page
    assert "**no**" in page
    assert "1 \\| 2" in page
    assert "10 min" in page
    assert "(evidence/frontier-f.svg)" in page
    assert (folder / "frontier-f.svg").exists()
    missing = page[page.index("## Not run yet") : page.index("## Reward against KL")]
    assert re.findall(r"- `([\w-]+)`", missing) == [name for name in EXPERIMENTS if name != "frontier"]


def test_the_committed_page_is_what_its_files_say() -> None:
    assert (ROOT / "docs/evidence.md").read_text(encoding="utf8") == markdown(ROOT / "docs/evidence")


def test_every_experiment_has_a_recipe_that_its_settings_accept() -> None:
    from accord.pipelines.settings import build, read_yaml, settings_of

    for name, experiment in EXPERIMENTS.items():
        path = ROOT / "recipes/reproduce" / f"{name}.yaml"
        config = build(experiment.config, settings_of(read_yaml(path), path))
        assert len(config.seeds) >= 3


def test_the_annotator_who_likes_length() -> None:
    assert biased(0.5, 0, 1.0) == 0.0
    assert biased(0.5, 20, 1.0) == 2.0  # ten tokens are worth the bias
    assert biased(1.0, 0, 0.0) == pytest.approx(9.2102, abs=1e-3)  # log-odds of 1 - 1e-4
