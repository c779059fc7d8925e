"""Agreement of a campaign: numbers worked by hand, and those published on real annotators."""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from accord.feedback.analysis import analyse, suspects
from accord.feedback.analysis.agreement import agreement_of, annotator_lines, week_of
from accord.feedback.analysis.measures import main_measure, measures_of
from feedback.analysis.verdicts import START, content, material, verdict

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"


def people(*rows):
    """One row of ranks per item and annotator: people("a", (1, 2), (1, 2)) is p0 and p1 on item a."""
    return [verdict(item, f"p{number}", ranks=ranks) for item, *said in rows for number, ranks in enumerate(said)]


def test_two_of_three_pairs_agree_is_kappa_a_third():
    # a: 3 of 3 pairs agree; b: 1 of 3. Mean (1 + 1/3)/2 = 2/3, and (2/3 - 1/2)/(1/2) = 1/3.
    said = people(("a", (1, 2), (1, 2), (1, 2)), ("b", (1, 2), (1, 2), (2, 1)))
    (found,) = analyse(material(said)).agreement
    assert found.agreement.value == pytest.approx(2 / 3)
    assert found.kappa.value == pytest.approx(1 / 3)
    assert found.kappa.detail == {"expected": 0.5}
    assert found.kappa.ci == pytest.approx([2 * end - 1 for end in found.agreement.ci])
    assert (found.values, found.annotators, found.shared_items) == (6, 3, 2)


def test_a_tie_leaves_the_agreement_and_stands_in_ties_as_half():
    said = people(("a", (1, 2), (1, 1)), ("b", (1, 2), (1, 2)))
    (found,) = analyse(material(said)).agreement
    assert found.agreement.value == 1.0
    assert found.agreement.n_unscored == 1  # item a has no pair without a tie
    assert found.agreement_half == pytest.approx(0.75)
    assert found.tie_rate == pytest.approx(0.25)


def test_the_side_of_the_screen_changes_no_figure():
    said = people(("a", (1, 2), (2, 1)), ("b", (1, 2), (1, 2)), ("c", (2, 1), (2, 1)))
    turned = [replace(one, display_order=tuple(reversed(one.display_order))) for one in said]
    assert analyse(material(said)).agreement == analyse(material(turned)).agreement


def test_rankings_of_three_have_tau_b_over_items():
    texts = ("x", "y", "z")
    said = [verdict("a", "p0", ranks=(1, 2, 3)), verdict("a", "p1", ranks=(1, 3, 2))]  # tau 1/3
    said += [verdict("b", "p0", ranks=(1, 2, 3)), verdict("b", "p1", ranks=(1, 2, 3))]  # tau 1
    (found,) = analyse(material(said, [content("a", texts), content("b", texts)])).agreement
    assert found.tau_b.value == pytest.approx((1 / 3 + 1) / 2)


def test_attributes_are_measured_one_by_one_and_n_a_is_no_answer():
    def said(item, who, quality, hallucination):
        attributes = {"quality": quality, "hallucination": hallucination, "violent": False}
        return verdict(item, who, {"schema": 1, "responses": {f"{item}.0": attributes}})

    rows = [said("a", "p", 7, "n/a"), said("a", "q", 6, "n/a"), said("b", "p", 1, True), said("b", "q", 2, True)]
    measures = {measure.name: measure for measure in measures_of(rows, {})}
    assert measures["quality"].level == "ordinal"
    assert measures["violent"].level == "nominal"
    assert measures["hallucination"].units == (("b", "b.0"),)
    assert main_measure(list(measures.values())).name == "quality"
    alpha = {one.name: one.alpha.value for one in analyse(material(rows, task_type="attributes")).agreement}
    # Ordinal distances of 1, 2, 6, 7 are 1, 2, 3: D_o = 1, D_e = 2 (1 + 4 + 9 + 1 + 4 + 1) / 12 = 10/3.
    assert alpha["quality"] == pytest.approx(0.7)
    assert math.isnan(alpha["violent"])  # nobody says anything else


def test_excluded_annotators_are_left_out_and_shown_beside():
    said = people(("a", (1, 2), (1, 2), (2, 1)), ("b", (1, 2), (1, 2), (2, 1)))
    said = [replace(one, excluded=one.annotator == "p2") for one in said]
    report = analyse(material(said))
    assert report.agreement[0].agreement.value == 1.0
    assert report.with_excluded[0].agreement.value == pytest.approx(1 / 3)
    assert report.counts["excluded"] == 2
    assert [line.excluded for line in report.annotators if line.annotator == "p2"] == [True]


def test_parts_by_group_guideline_and_week():
    week = 7 * 86_400_000
    said = [
        verdict(item, who, ranks=ranks, guideline=version, submitted_at=START + number * week)
        for item, number, version in (("a", 0, "1"), ("b", 1, "2"))
        for who, ranks in (("p", (1, 2)), ("q", (1, 2) if item == "a" else (2, 1)))
    ]
    report = analyse(material(said, [content("a", group="x"), content("b", group="y")]))
    assert set(report.slices) == {"prompt group", "guideline", "week"}
    found = {dimension: [one.agreement.value for one in parts.values()] for dimension, parts in report.slices.items()}
    assert found == {"prompt group": [1.0, 0.0], "guideline": [1.0, 0.0], "week": [1.0, 0.0]}


def test_weeks_are_iso_weeks_and_no_time_is_unknown():
    assert week_of(1_767_225_600_000) == "2026-W01"  # Thursday, 1 January 2026
    assert week_of(0) == "unknown"


def test_with_a_selected_arm_figures_are_also_given_on_the_random_one_alone():
    said = people(("a", (1, 2), (1, 2)), ("b", (1, 2), (2, 1)))
    said = [replace(one, arm="selected" if one.item_id == "b" else "random") for one in said]
    report = analyse(material(said))
    assert report.agreement[0].agreement.value == 0.5
    assert report.random_arm[0].agreement.value == 1.0


def test_models_are_set_beside_the_majority_of_people():
    said = people(("a", (1, 2), (1, 2), (2, 1)), ("b", (1, 2), (1, 2), (1, 2)))
    judge = {"source": "ai", "judge": ("judge", "1", "")}
    said += [verdict("a", "j", ranks=(1, 2), **judge), verdict("b", "j", ranks=(2, 1), **judge)]
    report = analyse(material(said))
    (line,) = report.judges
    assert (line.judge, line.agreement, line.n) == ("judge@1", 0.5, 2)
    assert report.agreement[0].annotators == 3  # the model is in no figure of people


def test_a_pilot_under_alpha_two_tenths_is_told_to_rewrite_the_guideline():
    opposed = people(*((str(n), (1, 2), (2, 1)) for n in range(6)))
    skip = verdict("0", "p2", {"skip": "unclear prompt"}, counted=False)
    pilot = analyse(material([*opposed, skip])).pilot
    assert pilot.alpha < 0.2
    assert "rewrite it" in pilot.advice
    assert pilot.skips == {"unclear prompt": 1}
    assert pilot.skip_rate == pytest.approx(1 / 13)
    assert pilot.minutes == pytest.approx(0.5)
    same = people(*((str(n), (1, 2), (1, 2)) for n in range(6)), ("x", (2, 1), (2, 1)))
    assert "well enough" in analyse(material(same)).pilot.advice


def convabuse():
    with gzip.open(SHARED / "convabuse/annotations.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    said = {}
    for row in rows:
        item = "|".join((row["conv_id"], row["prev_agent"], row["prev_user"], row["agent"], row["user"]))
        payload = {"schema": 1, "spam": False, "fails_task": False, "toxicity": (1 - int(row["severity"])) / 4}
        said[item, row["annotator_id"]] = verdict(item, row["annotator_id"], payload, seconds=0, active_ms=None)
    return list(said.values())


@pytest.mark.skipif(not SHARED.exists(), reason="needs the data sets beside the repository")
def test_real_people_severity_has_alpha_65_and_only_annotator_5_is_off():
    said = convabuse()
    case = material(said, [content(item, ("t",)) for item in {one.item_id for one in said}], "labels")
    measures = measures_of(case.human(), case.contents)
    severity = agreement_of(main_measure(measures), said, case.contents, replicates=20)
    assert (severity.name, round(severity.alpha.value, 2)) == ("toxicity", 0.65)
    assert 0.6 < severity.alpha.ci[0] < 0.65 < severity.alpha.ci[1] < 0.7
    lowest, *others = annotator_lines(measures, said, [])
    assert (lowest.annotator, round(lowest.rate, 2)) == ("Annotator5", 0.65)
    assert all(0.81 < line.rate < 0.84 for line in others)
    found = suspects(case)
    assert [(one.annotator, evidence.kind) for one in found for evidence in one.evidence] == [
        ("Annotator5", "agreement")
    ]
    assert not any(one.flagged for one in found)  # one kind alone is no flag
