"""One answer per item, and the page that shows it all."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from accord.feedback.analysis import analyse, consensus
from accord.feedback.analysis.consensus import disputed
from accord.feedback.analysis.page import render_page, write_page
from feedback.analysis.verdicts import content, material, verdict


def test_ranked_pairs_votes_and_entropy_of_a_two_to_one_vote():
    said = [verdict("a", who, ranks=ranks) for who, ranks in (("p", (1, 2)), ("q", (1, 2)), ("r", (2, 1)))]
    (found,) = consensus(material(said))
    assert found.value == {"ranks": {"a.0": 1, "a.1": 2}}
    assert found.votes == {"a.0 over a.1": pytest.approx(2 / 3)}
    assert found.disagreement == pytest.approx(0.6365, abs=1e-4)  # -(2/3 ln 2/3 + 1/3 ln 1/3)
    assert found.method == "ranked pairs"


def test_a_response_all_failed_has_failed_in_the_consensus():
    said = [verdict("a", who, ranks=(1, None)) for who in "pq"]
    assert consensus(material(said))[0].value == {"ranks": {"a.0": 1, "a.1": None}}


def test_a_reviewer_wins_and_the_item_needs_no_review_any_more():
    said = [verdict("a", "p", ranks=(1, 2)), verdict("a", "q", ranks=(2, 1))]
    (open_one,) = consensus(material(said))
    assert disputed([open_one]) == [open_one]
    decided = material(said, adjudicated={"a": {"ranks": {"a.0": 2, "a.1": 1}}})
    (found,) = consensus(decided)
    assert (found.method, found.value) == ("review", {"ranks": {"a.0": 2, "a.1": 1}})
    assert disputed([found]) == []


def test_flags_by_majority_and_scales_by_median():
    def labels(spam, quality):
        return {"schema": 1, "spam": spam, "fails_task": False, "quality": quality}

    said = [
        verdict("a", who, labels(*one))
        for who, one in zip("pqr", [(True, 0.0), (True, 0.5), (False, 1.0)], strict=True)
    ]
    (found,) = consensus(material(said, [content("a", ("t",))], "labels"))
    assert found.value == {"spam": 1, "fails_task": 0, "quality": 0.5}
    assert found.method == "vote and median"
    tied = [verdict("a", who, labels(spam, 0.5)) for who, spam in (("p", True), ("q", False))]
    assert consensus(material(tied, [content("a", ("t",))], "labels"))[0].value["spam"] == -1


def test_dawid_skene_stands_beside_the_vote_where_there_are_enough_items():
    said = [
        verdict(f"i{n}", who, {"schema": 1, "spam": n % 2 == 0 if who != "r" else True, "fails_task": False})
        for n in range(60)
        for who in "pqr"
    ]
    contents = [content(f"i{n}", ("t",)) for n in range(60)]
    found = {one.item_id: one.skilled for one in consensus(material(said, contents, "labels"))}
    assert found["i0"]["spam"] > 0.99
    assert found["i1"]["spam"] < 0.01
    few = [one for one in said if int(one.item_id[1:]) < 49]
    assert all(not one.skilled for one in consensus(material(few, contents, "labels")))


HOSTILE = "<script>alert(1)</script>"


def test_the_page_stands_alone_and_escapes_what_people_and_models_said(tmp_path):
    said = [verdict(HOSTILE, who, ranks=ranks) for who, ranks in ((HOSTILE, (1, 2)), ("q", (2, 1)))]
    report = analyse(material(said))
    page = render_page(report)
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)") >= 2
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert "http" not in page.replace("http-equiv", "")
    paths = write_page(report, tmp_path / "out")
    assert set(paths) == {"agreement.html", "agreement.json", "consensus.jsonl"}
    figures = json.loads(paths["agreement.json"].read_text())
    assert figures["agreement"][0]["agreement"]["value"] == 0.0
    assert json.loads(paths["consensus.jsonl"].read_text())["item"] == HOSTILE


def test_an_empty_campaign_has_a_report_that_says_so():
    report = analyse(material([]))
    assert report.counts["judgments"] == 0
    assert "No evidence against anybody" in render_page(report)


def test_forgotten_items_and_skips_break_nothing():
    said = [
        verdict("a", "p", ranks=(1, 2)),
        verdict("gone", "p", ranks=(1, 2)),
        verdict("a", "q", {"skip": "language"}),
    ]
    report = analyse(material([*said[:2], replace(said[2], counted=False)], [content("a")]))
    assert report.counts["skipped"] == 1
    assert [one.item for one in report.consensus] == ["a"]
