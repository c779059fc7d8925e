"""The way of an annotator by plain forms: consent, guideline, tasks of each kind, drafts, skips, revisions."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import select

from accord.feedback.store import (
    CampaignSettings,
    add_consent_text,
    add_guideline,
    change_campaign,
    sweep,
    verdicts,
)
from accord.feedback.store.tables import Item, Judgment, Slot
from feedback.studio.visitors import assignment, shown, text_of
from feedback.worlds import MINUTE


def judgments(place):
    query = select(Judgment).order_by(Judgment.submitted_at, Judgment.revision)
    return place.store.read(lambda s: list(s.scalars(query)))


def ranking(page, *order: str):
    ids = shown(page)
    return {f"rank.{ids[letter]}": str(place) for place, letter in enumerate(order, 1)}


def send(visitor, page, fields, what="submit", revision="1"):
    return visitor.post(f"/t/{assignment(page)}/{what}", {"revision": revision, **fields})


def test_from_the_first_page_to_the_last_task(both):
    both.open(items=2, people=0, overlap=1)
    ada = both.someone("annotator", name="ada")
    assert "Begin" in ada.get("/").text
    consent = ada.get(both.task_page)
    assert consent.url.path.endswith("/consent")
    assert not re.search(r"checkbox[^>]*checked", consent.text)  # nothing is agreed to by default
    assert ada.post(consent.url.path).status_code == 400
    guideline = ada.post(consent.url.path, {"agree": "yes", "use-train": "yes"})
    assert guideline.url.path.endswith("/guidelines")
    task = ada.post(guideline.url.path, {"guideline": both.world.guideline})
    for _ in range(2):
        assert task.url.path == both.task_page
        task = send(ada, task, ranking(task, "B", "A"))
    assert "All done" in task.text
    counted = both.store.read(verdicts, campaign_id=both.world.campaign)
    assert len(counted) == 2
    for verdict in counted:  # B is the second one shown
        assert verdict.ranks == {verdict.display_order[1]: 1, verdict.display_order[0]: 2}


def test_a_task_is_the_same_on_reload_and_another_order_for_others(place):
    place.open(items=12, people=2, overlap=2)
    ada, bob = place.person(0), place.person(1)
    orders = {}
    for who in (ada, bob):
        orders[who] = []
        for _ in range(12):
            page = who.get(place.task_page)
            assert shown(page) == shown(who.get(place.task_page))
            texts = re.findall(r'class="text clamp"[^>]*><p>(\w+)', page.text)
            orders[who].append(tuple(texts))
            send(who, page, ranking(page, "A", "B"))
    assert orders[ada] != orders[bob]


def test_the_page_does_not_tell_models_lengths_or_others(place):
    place.open(items=1, people=2)
    place.world.add_item("known question", kind="gold", expected={"one": 1, "two": 2})
    page = place.person().get(place.task_page).text
    for secret in ("gold", "person 1", "expected", "tokens", "characters", place.world.items[0]):
        assert secret not in page


@pytest.mark.parametrize(
    ("task_type", "responses", "fields", "kept"),
    [
        ("pairwise", ("one", "two"), {"choice": "{A}", "strength": "2"}, {"choice": "{A}", "strength": 2}),
        ("winrate", ("one", "two"), {"choice": "failed"}, {"choice": None, "both_failed": True}),
        ("labels", ("one",), {"spam": "no", "fails_task": "yes", "quality": "3"}, {"spam": False, "quality": 0.5}),
        ("demonstrate", (), {"text": "Because **yeast** makes gas."}, {}),
        (
            "attributes",
            ("one",),
            {"{A}.quality": "7", "{A}.hallucination": "no", "{A}.satisfies_constraint": "n/a", "{A}.opinion": "on"},
            {},
        ),
    ],
)
def test_each_kind_of_task_is_kept(place, task_type, responses, fields, kept):
    place.open(items=0, people=1, task_type=task_type)
    place.world.add_item("why?", responses=responses)
    ada = place.person()
    page = ada.get(place.task_page)
    ids = shown(page)

    def named(value):
        return value.replace("{A}", ids.get("A", "")) if isinstance(value, str) else value

    done = send(ada, page, {named(name): named(value) for name, value in fields.items()})
    assert "All done" in done.text
    (judgment,) = judgments(place)
    for name, value in kept.items():
        assert judgment.payload[name] == named(value)
    if task_type == "attributes":
        said = judgment.payload["responses"][ids["A"]]
        assert (said["quality"], said["hallucination"], said["satisfies_constraint"]) == (7, False, "n/a")
        assert (said["opinion"], said["violent"]) == (True, False)
    if task_type == "demonstrate":
        assert place.store.read(verdicts, campaign_id=place.world.campaign)[0].words == "Because **yeast** makes gas."


def test_an_incomplete_answer_comes_back_filled_in_and_nothing_is_kept(place):
    place.open(people=1)
    ada = place.person()
    page = ada.get(place.task_page)
    refused = send(ada, page, {**ranking(page, "B"), "reason": "not yet sure"})
    assert refused.status_code == 400
    assert "missing for A" in text_of(refused)
    assert "not yet sure" in refused.text
    assert re.search(rf'name="rank.{shown(page)["B"]}" value="1" checked', refused.text)
    assert judgments(place) == []


def test_clicking_twice_counts_once(both):
    both.open(people=1)
    ada = both.person()
    page = ada.get(both.task_page)
    first, second = (send(ada, page, ranking(page, *order)) for order in ("AB", "BA"))
    assert "Submitted" in first.text
    assert "nothing changed" in second.text
    (judgment,) = judgments(both)
    assert judgment.payload["ranks"] == {shown(page)["A"]: 1, shown(page)["B"]: 2}


def test_a_draft_survives_and_a_second_tab_is_told(both):
    both.open(people=1)
    ada = both.person()
    page = ada.get(both.task_page)
    address = f"/t/{assignment(page)}/draft"
    assert ada.post(address, {**ranking(page, "A"), "version": "0"}).json() == {"version": 1}
    again = ada.get(both.task_page)
    assert 'data-version="1"' in again.text
    assert re.search(rf'name="rank.{shown(page)["A"]}" value="1" checked', again.text)
    conflict = ada.post(address, {**ranking(page, "B"), "version": "0"})
    assert conflict.status_code == 409
    assert conflict.json() == {"version": 1, "fields": ranking(page, "A")}
    assert ada.post(address, {**ranking(page, "B"), "version": "1"}).json() == {"version": 2}


def test_a_draft_renews_the_lease(place):
    place.open(people=1)
    ada = place.person()
    page = ada.get(place.task_page)
    place.now += 29 * MINUTE
    ada.post(f"/t/{assignment(page)}/draft", {**ranking(page, "A"), "version": "0"})
    place.now += 29 * MINUTE
    assert place.store.run(sweep, now=place.now) == 0
    place.now += 2 * MINUTE
    assert place.store.run(sweep, now=place.now) == 1


def test_an_answer_after_the_lease_counts_while_there_is_room_and_is_kept_when_there_is_none(place):
    place.open(items=1, people=2, overlap=1)
    ada, bob = place.person(0), place.person(1)
    page = ada.get(place.task_page)
    place.now += 31 * MINUTE
    place.store.run(sweep, now=place.now)
    taken = bob.get(place.task_page)
    send(bob, taken, ranking(taken, "A", "B"))
    late = send(ada, page, ranking(page, "B", "A"))
    assert "does not count" in late.text
    assert [one.counted for one in judgments(place)] == [True, False]


def test_a_clock_that_is_turned_back_harms_nothing(place):
    place.open(items=2, people=1)
    ada = place.person()
    page = ada.get(place.task_page)
    place.now -= 3_600_000
    place.store.run(sweep, now=place.now)
    assert shown(ada.get(place.task_page)) == shown(page)
    assert "Submitted" in send(ada, page, ranking(page, "A", "B")).text


def test_a_skip_has_a_reason_and_is_not_asked_again(place):
    place.open(items=1, people=1)
    ada = place.person()
    page = ada.get(place.task_page)
    assert send(ada, page, {"skip": "because"}, "skip").status_code == 400
    assert send(ada, page, {"skip": "other"}, "skip").status_code == 400  # which other?
    done = send(ada, page, {"skip": "other", "skip_text": "too long for my screen"}, "skip")
    assert "All done" in done.text
    assert judgments(place)[0].payload["skip"] == "other"


def test_personal_data_hides_the_item_from_everyone(place):
    place.open(items=1, people=2)
    page = place.person(0).get(place.task_page)
    send(place.person(0), page, {"skip": "personal data"}, "skip")
    assert "All done" in place.person(1).get(place.task_page).text


def test_an_answer_can_be_revised_for_a_day(place):
    place.open(items=1, people=1)
    ada = place.person()
    page = ada.get(place.task_page)
    send(ada, page, {**ranking(page, "A", "B"), "reason": "first thought"})
    again = ada.get(f"/t/{assignment(page)}")
    assert re.search(rf'name="rank.{shown(page)["A"]}" value="1" checked', again.text)
    assert "first thought" in again.text
    revised = send(ada, again, ranking(again, "B", "A"), revision="2")
    assert revised.url.path == "/history"
    assert "B &gt; A" in revised.text
    assert [one.revision for one in judgments(place)] == [1, 2]
    place.now += 25 * 3_600_000
    ada = place.person()
    late = send(ada, ada.get(f"/t/{assignment(page)}"), ranking(page, "A", "B"), revision="3")
    assert late.status_code == 400
    assert "older than 24 h" in text_of(late)


def test_a_new_guideline_is_shown_with_what_changed_before_the_next_task(place):
    place.open(people=1)
    ada = place.person()
    ada.get(place.task_page)
    newer = place.store.run(add_guideline, project_id=place.world.project, markdown="Be fair.\n\nBe quick.")
    place.store.run(change_campaign, campaign_id=place.world.campaign, actor_id=None, guideline_id=newer.id)
    page = ada.get(place.task_page)
    assert page.url.path.endswith("/guidelines")
    assert re.search(r'class="plus">\+ Be quick\.', page.text)
    stale = ada.post(page.url.path, {"guideline": place.world.guideline})
    assert stale.url.path.endswith("/guidelines")  # an older page confirms nothing
    assert ada.post(page.url.path, {"guideline": newer.id}).url.path == place.task_page


def test_a_new_consent_text_is_asked_for_and_withdrawal_ends_the_work(place):
    place.open(people=1)
    ada = place.person()
    place.store.run(add_consent_text, project_id=place.world.project, markdown="More is kept.")
    page = ada.get(place.task_page)
    assert page.url.path.endswith("/consent")
    assert ada.post(page.url.path, {"agree": "yes"}).url.path == place.task_page
    ada.post(f"/account/withdraw/{place.world.project}")
    assert ada.get(place.task_page).url.path.endswith("/consent")


def test_the_qualification_comes_first_and_two_failures_end_it(place):
    place.open(items=1, people=2, settings=CampaignSettings(attempts=2))
    place.world.add_item("test question", kind="qualification", expected={"one": 1, "two": 2})
    for who, right, end in ((0, True, "question 0"), (1, False, "The test was not passed")):
        visitor = place.person(who)
        for _ in range(1 if right else 2):
            page = visitor.get(place.task_page)
            assert "test question" in page.text
            texts = dict(re.findall(r'data-response="([^"]+)".*?class="text clamp"[^>]*><p>(\w+)', page.text, re.S))
            best = "one" if right else "two"
            fields = {f"rank.{one}": "1" if text == best else "2" for one, text in texts.items()}
            revision = re.search(r'name="revision" value="(\d)"', page.text)[1]
            send(visitor, page, fields, revision=revision)
        assert end in visitor.get(place.task_page).text


def test_a_gold_item_is_explained_where_the_campaign_teaches(place):
    place.open(items=0, people=1, settings=CampaignSettings(gold_every=1, teach=True))
    place.world.add_item("known", kind="gold", expected={"one": 1, "two": 2}, explanation="One comes before **two**.")
    ada = place.person()
    page = ada.get(place.task_page)
    told = send(ada, page, ranking(page, "A", "B"))
    assert "comes before <strong>two</strong>" in told.text


def test_two_failed_checks_pause_until_somebody_looks(place):
    place.open(items=1, people=1, settings=CampaignSettings(attention_every=1, attention_failures=2))
    for number in range(2):
        place.world.add_item(f"say one first {number}", kind="attention", expected={"one": 1, "two": 2})
    ada = place.person()
    for _ in range(2):
        page = ada.get(place.task_page)
        texts = dict(re.findall(r'data-response="([^"]+)".*?class="text clamp"[^>]*><p>(\w+)', page.text, re.S))
        send(ada, page, {f"rank.{one}": "1" if text == "two" else "2" for one, text in texts.items()})
    assert "A short break" in ada.get(place.task_page).text
    admin = place.someone("admin")
    admin.post(f"/admin/campaign/{place.world.campaign}/resume/{ada.user_id}")
    assert "question 0" in ada.get(place.task_page).text


def test_every_slot_is_served_once(both):
    both.open(items=3, people=4, overlap=2)
    for who in range(4):
        visitor = both.person(who)
        while "data-assignment" in (page := visitor.get(both.task_page)).text:
            send(visitor, page, ranking(page, "A", "B"))
    states = both.store.read(lambda s: list(s.scalars(select(Slot.state))))
    assert states == ["done"] * 6
    assert both.store.read(lambda s: set(s.scalars(select(Item.state)))) == {"done"}
    assert len(judgments(both)) == 6
