"""Examples beside a demonstration; describing before ranking; passages marked in a response."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import select

from accord.feedback.store import CampaignSettings, add_review, now_ms, verdicts, withdraw_consent
from accord.feedback.store.tables import Campaign, Judgment
from feedback.studio.browsers import NEEDED, Desk, launched, serving
from feedback.studio.visitors import Place, assignment, shown, text_of
from feedback.worlds import MINUTE


def write(place, who, text):
    visitor = place.person(who)
    page = visitor.get(place.task_page)
    visitor.post(f"/t/{assignment(page)}/submit", {"revision": "1", "text": text})


def accept(place, words, decision="accept"):
    reviewer = place.enter(place.reviewer)
    verdict = next(one for one in place.store.read(verdicts, campaign_id=place.world.campaign) if one.words == words)
    place.store.run(
        add_review, reviewer_id=reviewer.user_id, decision=decision, reason="ok", judgment_id=verdict.judgment_id
    )


def test_examples_are_the_campaigns_and_those_a_reviewer_accepts_of_other_prompts(both):
    settings = CampaignSettings(examples=("A **given** one.",))
    both.open(items=3, people=2, overlap=1, task_type="demonstrate", settings=settings)
    both.reviewer = both.someone("reviewer").user_id
    address = f"/c/{both.world.campaign}/examples"
    for who, words in ((0, "first words"), (1, "second words"), (0, "third words")):
        write(both, who, words)
    assert "given" in text_of(both.person().get(address))
    assert "<h1>Examples" in both.person().get(address).text  # a page of its own without scripts
    assert "words" not in both.person().get(address).text  # nobody has accepted any
    accept(both, "first words")
    accept(both, "second words")
    accept(both, "third words", "reject")
    assert re.findall(r"(\w+) words", both.person().get(address).text) == ["second", "first"]
    accept(both, "second words", "reject")
    both.store.run(withdraw_consent, user_id=both.world.people[0], project_id=both.world.project, now=both.now)
    assert re.findall(r"(\w+) words", both.person(1).get(address).text) == []


def test_an_example_that_was_written_anew_waits_for_a_reviewer_again(place):
    place.open(items=2, people=1, task_type="demonstrate")
    place.reviewer = place.someone("reviewer").user_id
    ada = place.person()
    mine = assignment(ada.get(place.task_page))
    examples = f"/c/{place.world.campaign}/examples"
    ada.post(f"/t/{mine}/submit", {"revision": "1", "text": "first words"})
    accept(place, "first words")
    assert "first words" in ada.get(examples).text
    ada.post(f"/t/{mine}/submit", {"revision": "2", "text": "second words"})
    assert re.findall(r"(first|second) words", ada.get(examples).text) == []
    accept(place, "second words")
    assert re.findall(r"(\w+) words", ada.get(examples).text) == ["second"]


def test_examples_never_show_others_words_on_a_prompt_one_may_still_write_for(both):
    """Whatever the address says: with or without the task at hand, or with one of another campaign."""
    both.open(items=2, people=3, overlap=2, task_type="demonstrate")
    both.reviewer = both.someone("reviewer").user_id
    examples = f"/c/{both.world.campaign}/examples"
    write(both, 0, "first words")
    accept(both, "first words")
    assert "first words" in both.person(0).get(examples).text  # one's own
    assert "first words" not in both.person(1).get(examples).text  # who is asked the same next
    task = assignment(both.person(1).get(both.task_page))
    for address in (examples, f"{examples}?task={task}"):
        assert "first words" not in both.person(1).get(address).text
    write(both, 1, "other words")  # and with them the item is done
    assert "first words" not in both.person(1).get(examples).text  # who may still revise
    assert "first words" in both.person(2).get(examples).text
    both.now += 25 * 60 * MINUTE
    assert "first words" in both.person(1).get(examples).text
    assert both.person(1).get(f"{examples}?task={both.world.items[0]}").status_code == 404


def test_an_admin_sets_the_forms(place):
    place.open(items=0, people=0)
    admin = place.someone("admin")
    made = {"name": "n", "task_type": "rank", "guideline": place.world.guideline, "overlap": "1", "lease_minutes": "30"}
    made |= {"examples": "One\n\nmore\n---\nTwo\n", "span_tags": "wrong, very good ,", "attributes_first": "yes"}
    assert (
        admin.post(f"/admin/project/{place.world.project}/campaigns", made | {"hourly_rate": "12.5"}).status_code == 200
    )
    kept = place.store.read(lambda s: s.scalar(select(Campaign.settings).where(Campaign.name == "n")))
    settings = CampaignSettings.model_validate(kept)
    assert settings.examples == ("One\n\nmore", "Two")
    assert settings.span_tags == ("wrong", "very good")
    assert (settings.attributes_first, settings.hourly_rate) == (True, 12.5)


def test_a_ranking_that_asks_for_descriptions_wants_them_all_and_keeps_them(place):
    place.open(items=0, people=1, settings=CampaignSettings(attributes_first=True))
    place.world.add_item("which?")
    ada = place.person()
    page = ada.get(place.task_page)
    ids = shown(page)
    ranks = {f"rank.{ids['A']}": "1", f"rank.{ids['B']}": "2"}
    said = {"quality": "6", "hallucination": "no", "satisfies_constraint": "n/a"}
    first = {f"{ids['A']}.{name}": value for name, value in said.items()}
    refused = ada.post(f"/t/{assignment(page)}/submit", {"revision": "1", **ranks, **first})
    assert "the quality is missing for B" in text_of(refused)
    second = {f"{ids['B']}.{name}": value for name, value in {**said, "quality": "2", "violent": "on"}.items()}
    ada.post(f"/t/{assignment(page)}/submit", {"revision": "1", **ranks, **first, **second})
    (kept,) = place.store.read(lambda s: list(s.scalars(select(Judgment.payload))))
    assert kept["ranks"] == {ids["A"]: 1, ids["B"]: 2}
    assert {one: kept["attributes"][ids[one]]["quality"] for one in "AB"} == {"A": 6, "B": 2}
    assert kept["attributes"][ids["B"]]["violent"] is True
    again = ada.get(f"/t/{assignment(page)}").text
    assert re.search(rf'name="{ids["B"]}.quality" value="2" data-scale="q" checked', again)


@pytest.mark.parametrize(
    "span",
    ["x:0:1:wrong", "{A}:0:99:wrong", "{A}:1:1:wrong", "{A}:0:1: ", "{A}:-1:1:wrong", "{A}", "{A}:0:1:ask zq@mail.org"],
)
def test_a_mark_has_to_lie_within_a_response(place, span):
    place.open(items=1, people=1)
    ada = place.person()
    page = ada.get(place.task_page)
    ids = shown(page)
    fields = {f"rank.{ids['A']}": "1", f"rank.{ids['B']}": "2", "span.0": span.replace("{A}", ids["A"])}
    assert ada.post(f"/t/{assignment(page)}/submit", {"revision": "1", **fields}).status_code == 400


@pytest.fixture
def sat(sqlite_store):
    """(place, desk) of a campaign that is set by `place.begin`."""
    place = Place(sqlite_store)
    place.now = now_ms()
    with launched() as browser, serving(place.app) as base:

        def sit_down():
            place.desk = Desk(browser, base, place, place.world.people[0])
            return place.desk

        place.sit_down = sit_down
        yield place
        place.desk.context.close()
    assert place.desk.complaints == []


@NEEDED
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_passages_are_marked_by_keyboard_in_characters_of_the_text(sat):
    text = "Line 😀 one\r\nline **two**"
    sat.open(items=0, people=1)
    sat.world.add_item("which?", responses=(text, "other"))
    desk = sat.sit_down()
    page = desk.open_task()
    letter = next(one for words, one in desk.letters().items() if words.startswith("Line"))
    for _ in range("AB".index(letter) + 1):
        page.keyboard.press("j")
    page.keyboard.press("m")
    assert page.evaluate("document.activeElement.id") == "mark-text"
    for key in ("Control+Home", "ArrowDown", "Home", *["ArrowRight"] * 7, *["Shift+ArrowRight"] * 3):
        page.keyboard.press(key)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the second tag
    assert page.inner_text("[data-marked]") == "Marked: made up"
    page.keyboard.press("Escape")
    page.wait_for_selector("#saved:has-text('Draft saved')")
    page.reload()
    assert page.inner_text(f"#response-{letter} .marks li q") in ("two", "“two”")
    page.keyboard.press("j")
    page.keyboard.press("1")
    page.keyboard.press("j")
    page.keyboard.press("2")
    page.keyboard.press("Control+Enter")
    desk.submitted()
    (verdict,) = sat.store.read(verdicts, campaign_id=sat.world.campaign)
    (span,) = verdict.payload["spans"]
    assert text[span["start"] : span["end"]] == "two"
    assert span["tag"] == "made up"


@NEEDED
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_responses_are_described_and_then_ranked_by_keyboard(sat):
    sat.open(items=0, people=1, settings=CampaignSettings(attributes_first=True))
    sat.world.add_item("which?")
    desk = sat.sit_down()
    page = desk.open_task()
    assert not page.is_visible("#strip")
    page.keyboard.press("Control+Enter")
    assert "Still to be described: A, B." in page.inner_text("#trouble")
    for keys in ("jq7hc", "jq2hhcf"):
        for key in keys:
            page.keyboard.press(key)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#strip >> visible=true")
    assert not page.is_visible(".describe")
    for key in "j1j2":  # the digits place now
        page.keyboard.press(key)
    page.keyboard.press("Control+Enter")
    desk.submitted()
    (verdict,) = sat.store.read(verdicts, campaign_id=sat.world.campaign)
    assert sorted(verdict.ranks.values()) == [1, 2]
    assert [verdict.payload["attributes"][one]["quality"] for one in verdict.display_order] == [7, 2]


@NEEDED
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_examples_open_beside_the_task_by_keyboard(sat):
    sat.open(items=1, people=1, task_type="demonstrate", settings=CampaignSettings(examples=("A **given** one.",)))
    page = sat.sit_down().open_task()
    page.keyboard.press("x")
    page.wait_for_selector("dialog#examples[open] strong:text-is('given')")
    assert page.get_by_role("dialog").inner_text().count("given") == 1
