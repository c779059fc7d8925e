"""The test before the first task: how it ended, and every answer beside the known one once nothing is left to try."""

from __future__ import annotations

import re

from sqlalchemy import select

from accord.feedback.store import CampaignSettings, NewItem, add_items, add_prompt, add_review, sweep
from accord.feedback.store.queries.screening import screenings_of
from accord.feedback.store.tables import Judgment, Qualification
from accord.records import Message
from feedback.studio.visitors import assignment, text_of


def answer(visitor, page, best):
    texts = dict(re.findall(r'data-response="([^"]+)".*?class="text clamp"[^>]*><p>(\w+)', page.text, re.S))
    fields = {f"rank.{one}": "1" if text == best else "2" for one, text in texts.items()}
    revision = re.search(r'name="revision" value="(\d)"', page.text)[1]
    return visitor.post(f"/t/{assignment(page)}/submit", {"revision": revision, **fields})


def letters(page):
    """Text -> letter, as the test's page shows the responses."""
    return {text: letter for letter, text in re.findall(r"<h3>Response (\w)</h3>.*?<p>(\w+)</p>", page.text, re.S)}


def test_answers_are_explained_when_no_attempt_is_left_and_not_before(both):
    both.open(items=1, people=2, settings=CampaignSettings(attempts=2))
    both.world.add_item(
        "test question", kind="qualification", expected={"one": 1, "two": 2}, explanation="One is **shorter**."
    )
    ada = both.person()
    assert ada.get(f"/c/{both.world.campaign}/qualify").status_code == 200
    told = answer(ada, ada.get(both.task_page), "two")
    assert told.url.path == f"/c/{both.world.campaign}/qualify"
    assert "Not passed yet" in told.text
    assert "0 % were right" in text_of(told)
    assert "shorter" not in told.text  # the second attempt asks the same
    told = answer(ada, ada.get(both.task_page), "two")
    one, two = (letters(told)[text] for text in ("one", "two"))
    assert re.findall(r"<td>(.*?)</td>", told.text) == ["", f"{two} &gt; {one}", f"{one} &gt; {two}"]
    assert "One is <strong>shorter</strong>." in told.text
    assert "not passed" in ada.get("/qualify").text
    assert "Your test" in ada.get("/").text
    bob = both.person(1)
    assert "shorter" not in bob.get(f"/c/{both.world.campaign}/qualify").text
    assert "Passed" in answer(bob, bob.get(both.task_page), "one").text


def test_what_was_explained_cannot_be_answered_again(both):
    """By way of the history, within the hours in which a judgment may be revised."""
    both.open(items=1, people=1, settings=CampaignSettings(attempts=2))
    both.world.add_item("test question", kind="qualification", expected={"one": 1, "two": 2})
    ada = both.person()
    first = ada.get(both.task_page)
    answer(ada, first, "two")
    second = ada.get(both.task_page)
    both.now += 40 * 60_000
    both.store.run(sweep, now=both.now)
    assert answer(ada, second, "two").status_code == 200  # a second attempt, later than its lease
    refused = answer(ada, ada.get(f"/t/{assignment(first)}"), "one")
    assert refused.status_code == 400
    assert "an answer of a test stands" in text_of(refused)
    assert "The test was not passed" in ada.get(both.task_page).text
    rows = both.store.read(lambda s: list(s.execute(select(Qualification.attempt, Qualification.passed))))
    assert sorted(map(tuple, rows)) == [(1, False), (2, False)]


def test_an_answer_is_not_revised_before_the_test_is_over(place):
    place.open(items=1, people=1, settings=CampaignSettings(attempts=2))
    for number in (1, 2):
        place.world.add_item(f"test {number}", kind="qualification", expected={"one": 1, "two": 2})
    ada = place.person()
    first = ada.get(place.task_page)
    answer(ada, first, "two")
    assert answer(ada, ada.get(f"/t/{assignment(first)}"), "one").status_code == 400
    answer(ada, ada.get(place.task_page), "one")
    second = ada.get(place.task_page)  # asks the first again: one of two was wrong
    assert assignment(second) == assignment(first)
    answer(ada, second, "one")
    assert "Passed" in answer(ada, ada.get(place.task_page), "one").text


def test_a_list_of_tests_holds_no_answers(place):
    place.open(items=1, people=1, settings=CampaignSettings(attempts=1))
    place.world.add_item("test question", kind="qualification", expected={"one": 1, "two": 2})
    ada = place.person()
    answer(ada, ada.get(place.task_page), "two")
    ((_, screening),) = place.store.read(screenings_of, user_id=ada.user_id)
    assert (screening.attempts, screening.answers) == (((0.0, False),), ())


def test_words_are_explained_as_a_reviewer_graded_them(place):
    place.open(items=1, people=1, task_type="demonstrate", settings=CampaignSettings(attempts=1))

    def add(session):
        prompt = add_prompt(
            session, project_id=place.world.project, messages=(Message(role="user", content="why?"),), source="test"
        )
        new = NewItem(prompt_id=prompt.id, kind="qualification", expected={"text": "Yeast makes gas."})
        add_items(session, campaign_id=place.world.campaign, items=[new])

    place.store.run(add)
    ada = place.person()
    page = ada.get(place.task_page)
    waiting = ada.post(f"/t/{assignment(page)}/submit", {"revision": "1", "text": "Because it is hot."})
    assert "Waiting for a grade" in waiting.text
    test = f"/c/{place.world.campaign}/qualify"
    assert "A reviewer reads your answers" in ada.get(test).text
    assert "Yeast" not in ada.get(test).text
    reviewer = place.someone("reviewer")
    judgment = place.store.read(lambda s: s.scalar(select(Judgment.id)))
    place.store.run(
        add_review, reviewer_id=reviewer.user_id, decision="reject", reason="Hot air is not it.", judgment_id=judgment
    )
    graded = text_of(ada.get(test))
    for words in ("Not passed", "wrong", "Because it is hot.", "Yeast makes gas.", "Hot air is not it."):
        assert words in graded
