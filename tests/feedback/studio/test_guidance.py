"""What helps an annotator: consent in two steps, the guideline behind each label, the keys, the prompt in sight."""

from __future__ import annotations

import re

import pytest

from accord.feedback.store import (
    add_consent_text,
    add_guideline,
    change_campaign,
    confirm_guideline,
    consent_in_force,
    now_ms,
)
from accord.feedback.studio.pages import home
from accord.feedback.studio.rendering import anchors, render_with_anchors
from feedback.studio.browsers import NEEDED, Desk, launched, serving
from feedback.studio.visitors import Place

GUIDE = (
    "# How\n\nBe fair.\n\n"
    + "More words.\n\n" * 60
    + "## Makes things up\n\nLook it up.\n\n### Moral judgment\n\nNone."
)


def follow(place, markdown):
    """The campaign follows a new guideline, which everyone has confirmed."""
    newer = place.store.run(add_guideline, project_id=place.world.project, markdown=markdown)
    place.store.run(change_campaign, campaign_id=place.world.campaign, actor_id=None, guideline_id=newer.id)
    for one in place.world.people:
        place.store.run(confirm_guideline, user_id=one, guideline_id=newer.id)


def agreed(place, visitor):
    return place.store.read(consent_in_force, visitor.user_id, place.world.project)


def test_whoever_talks_to_a_model_reads_first_and_ticks_each_use_after(place):
    place.models["m@1"] = None
    place.open(items=0, people=0, task_type="chat")
    ada = place.someone("annotator", name="ada")
    first = ada.get(f"/c/{place.world.campaign}/chat")
    assert "We keep what you say." in first.text
    assert "checkbox" not in first.text
    address = first.url.path
    assert ada.post(address, {"agree": "yes", "use-train": "yes"}).url.path == address  # unread: nothing is agreed to
    assert agreed(place, ada) is None
    text = re.search(r'name="read" value="([^"]+)"', first.text)[1]
    second = ada.get(f"{address}?read={text}")
    assert re.findall(r'name="(agree|use-\w+)"', second.text) == ["agree", "use-train", "use-publish"]
    assert not re.search(r"checkbox[^>]*checked", second.text)
    place.store.run(add_consent_text, project_id=place.world.project, markdown="We keep more.")
    ada.post(address, {"agree": "yes", "text": text})  # what was read is no longer what is asked
    assert agreed(place, ada) is None
    text = re.search(r'name="read" value="([^"]+)"', ada.get(address).text)[1]
    ada.post(address, {"agree": "yes", "text": text, "use-publish": "yes"})
    assert agreed(place, ada).uses == ["publish"]


def test_nobody_agrees_to_a_text_that_came_while_they_agreed(place, monkeypatch):
    place.open(items=1, people=0)
    ada = place.someone("annotator", name="ada")
    address = ada.get(place.task_page).url.path
    text = re.search(r'name="read" value="([^"]+)"', ada.get(address).text)[1]
    agrees = home.give_consent

    def late(session, **more):  # an admin is faster, between the look at the newest text and the signature
        add_consent_text(session, project_id=place.world.project, markdown="We sell it.")
        return agrees(session, **more)

    monkeypatch.setattr(home, "give_consent", late)
    assert ada.post(address, {"agree": "yes", "text": text}).status_code == 400
    assert agreed(place, ada) is None


def test_headings_of_a_guideline_are_places_and_nothing_else_gets_a_name():
    made = render_with_anchors(
        '## Makes *things* up\n\n## Makes things up\n\n## <b id="x">& "q"\n\n<h2 id="main">no</h2>'
    )
    assert re.findall(r'<\w+[^>]* id="([^"]*)"', made) == ["guide-makes-things-up", "guide-b-id-x-q"]
    assert anchors("# Über Ränge\n\ntext") == {"über-ränge"}


def test_a_label_leads_to_the_heading_of_its_name(place):
    place.open(items=0, people=1, task_type="attributes")
    place.world.add_item("why?", responses=("one",))
    assert "In the guideline" not in place.person().get(place.task_page).text
    follow(place, "## Makes things up\n\nLook it up.\n\n## moral_judgment\n\nNone.")
    page = place.person().get(place.task_page).text
    where = f"/c/{place.world.campaign}/guidelines#guide-"
    assert re.findall(rf'href="{where}([^"]+)"', page) == ["makes-things-up", "moral-judgment"]
    assert 'id="guide-makes-things-up"' in place.person().get(f"/c/{place.world.campaign}/guidelines").text


@pytest.fixture
def desk(sqlite_store):
    place = Place(sqlite_store)
    place.now = now_ms()
    place.open(items=0, people=1, task_type="attributes")
    place.world.add_item("which?", responses=("one " * 900, "two"))
    follow(place, GUIDE)
    with launched() as browser, serving(place.app) as base:
        seated = Desk(browser, base, place, place.world.people[0], viewport={"width": 1280, "height": 800})
        yield seated
        seated.context.close()
    assert seated.complaints == []


@NEEDED
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_guideline_opens_at_a_label_and_the_prompt_stays_in_sight(desk):
    page = desk.open_task()
    page.click('.response >> nth=0 >> [aria-label="What “Makes things up” means"]')
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    heading = page.locator("dialog#guideline #guide-makes-things-up")
    assert heading.evaluate("e => e === document.activeElement")
    assert heading.bounding_box()["y"] < 800
    page.keyboard.press("Escape")
    page.click("[data-help]")
    assert page.is_visible("dialog#keys")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("j")
    for _ in range(50):  # it scrolls smoothly, more slowly where the machine is busy
        before = page.evaluate("scrollY")
        page.wait_for_timeout(300)
        if page.evaluate("scrollY") == before > 300:
            break
    prompt, second = (page.locator(one).bounding_box() for one in ("#part-prompt", "#response-B"))
    assert page.evaluate("scrollY") > 300
    assert 0 <= prompt["y"] < 100  # below the bar
    assert second["y"] >= prompt["y"] + prompt["height"]  # and above what is focused
