"""The studio in a real browser: each kind of task by keyboard only and by mouse, two tabs, lost connections."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import select

from accord.feedback.analysis.material import gather
from accord.feedback.analysis.rogue import suspects
from accord.feedback.store import now_ms, verdicts
from accord.feedback.store.tables import Draft, Judgment
from accord.protocols import Reply
from feedback.studio.browsers import NEEDED, Desk, launched, serving
from feedback.studio.visitors import Place

pytestmark = [NEEDED, pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture(scope="module")
def browser():
    with launched() as started:
        yield started


@pytest.fixture
def studio(sqlite_store, browser):
    """(place, desk): a studio that is served, and how someone sits down at it."""
    place = Place(sqlite_store)
    place.now = now_ms()
    desks = []
    with serving(place.app) as base:

        def sit_down(who: int | str = 0, **options) -> Desk:
            user = place.world.people[who] if isinstance(who, int) else who
            desks.append(Desk(browser, base, place, user, **options))
            return desks[-1]

        yield place, sit_down
        for desk in desks:
            desk.context.close()
    assert [one for desk in desks for one in desk.complaints] == []


def said(place):
    return place.store.read(verdicts, campaign_id=place.world.campaign)


def opened(studio, responses=("one", "two"), **world):
    place, sit_down = studio
    place.open(items=0, people=2, **world)
    place.world.add_item("which?", responses=responses)
    return place, sit_down


def texts(place, verdict):
    """Ranks by the text of the response."""
    from accord.feedback.store import contents

    content = place.store.read(contents, campaign_id=place.world.campaign)[verdict.item_id]
    return {content.responses[one]: rank for one, rank in verdict.ranks.items()}


def test_ranking_by_keyboard_only(studio):
    place, sit_down = opened(studio, responses=("one", "two", "three", "nonsense"))
    desk = sit_down()
    page = desk.open_task()
    letters = desk.letters()
    order = list(letters)
    page.keyboard.press("Control+Enter")  # nothing is placed, so nothing is sent
    assert "Still to be placed: A, B, C, D." in page.inner_text("#trouble")
    at = -1
    for text, key, heard in (
        ("two", "2", "rank 2 of 4"),
        ("nonsense", "f", "failed"),
        ("three", "1", "rank 1 of 4"),
        ("three", "2", f"rank 2 of 4, tied with {letters['two']}"),
        ("one", "1", "rank 1 of 4"),
    ):
        step = "j" if order.index(text) > at else "ArrowUp"
        for _ in range(abs(order.index(text) - at)):
            page.keyboard.press(step)
        at = order.index(text)
        page.keyboard.press(key)
        assert page.inner_text("#live") == f"Response {letters[text]}, {heard}"
    page.keyboard.press("u")
    page.keyboard.press("Control+Enter")
    assert f"Still to be placed: {letters['one']}." in page.inner_text("#trouble")
    page.keyboard.press("1")
    assert not page.is_visible("#trouble")
    page.keyboard.press("r")
    page.keyboard.type("three says the same as two")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Enter")
    desk.submitted()
    (verdict,) = said(place)
    assert texts(place, verdict) == {"one": 1, "two": 2, "three": 2, "nonsense": None}
    assert verdict.words == "three says the same as two"
    assert verdict.active_ms > 0


def test_ranking_by_mouse(studio):
    place, sit_down = opened(studio, responses=("one", "two", "three"))
    desk = sit_down()
    page = desk.open_task()
    letters = desk.letters()

    def drag(text, where):
        chip = page.locator(f'.chip:has(.chip-name:text-is("{letters[text]}")) .chip-name')
        chip.drag_to(page.locator(f'.chips[data-place="{where}"]'))

    drag("one", "1")
    drag("two", "1")
    drag("three", "F")
    assert page.inner_text("#live") == f"Response {letters['three']}, failed"
    page.click(f'[aria-label="Response {letters["two"]} down"]')
    assert page.inner_text("#live") == f"Response {letters['two']}, rank 2 of 3"
    page.click("#submit")
    desk.submitted()
    assert texts(place, said(place)[0]) == {"one": 1, "two": 2, "three": None}


@pytest.mark.parametrize(
    ("key", "choice"), [("a", "A"), ("b", "B"), ("t", None), ("0", None), ("x", None)], ids=lambda value: str(value)
)
def test_pairs_by_keyboard_only(studio, key, choice):
    place, sit_down = opened(studio, task_type="pairwise")
    desk = sit_down()
    page = desk.open_task()
    letters = {letter: text for text, letter in desk.letters().items()}
    page.keyboard.press(key)
    page.keyboard.press("Control+Enter")
    desk.submitted()
    (verdict,) = said(place)
    if choice:
        other = {"A": "B", "B": "A"}[choice]
        assert texts(place, verdict) == {letters[choice]: 1, letters[other]: 2}
    else:
        assert set(texts(place, verdict).values()) == ({None} if key == "x" else {1})


def test_pairs_by_mouse(studio):
    place, sit_down = opened(studio, task_type="pairwise")
    desk = sit_down()
    page = desk.open_task()
    letters = {letter: text for text, letter in desk.letters().items()}
    assert page.is_disabled('input[name=strength][value="3"]')  # of what?
    page.click("text=B is better")
    page.click('input[name=strength][value="3"]')
    page.click("#submit")
    desk.submitted()
    assert texts(place, said(place)[0])[letters["B"]] == 1
    assert said(place)[0].payload["strength"] == 3


def test_describing_by_keyboard_only(studio):
    place, sit_down = opened(studio, task_type="attributes")
    desk = sit_down()
    page = desk.open_task()
    for keys in ("jq7hhcv", "jq2hcccf"):  # h, c: yes, no, does not apply in turn
        for key in keys:
            page.keyboard.press(key)
    page.keyboard.press("Control+Enter")
    desk.submitted()
    (verdict,) = said(place)
    first, second = (verdict.payload["responses"][one] for one in verdict.display_order)
    assert (first["quality"], first["hallucination"], first["satisfies_constraint"]) == (7, False, True)
    assert (first["violent"], first["fails_task"]) == (True, False)
    assert (second["quality"], second["hallucination"], second["satisfies_constraint"]) == (2, True, "n/a")
    assert (second["violent"], second["fails_task"]) == (False, True)


def test_describing_by_mouse(studio):
    place, sit_down = opened(studio, responses=("one",), task_type="attributes")
    desk = sit_down()
    page = desk.open_task()
    page.check('input[name$=".quality"][value="5"]')
    page.check('input[name$=".hallucination"][value="no"]')
    page.check('input[name$=".satisfies_constraint"][value="n/a"]')
    page.click("text=Moral judgment")
    page.click('[aria-label="What “Moral judgment” means"]')
    assert page.is_visible("text=eating meat is wrong")
    page.click("#submit")
    desk.submitted()
    (one,) = said(place)[0].payload["responses"].values()
    assert (one["quality"], one["moral_judgment"], one["opinion"]) == (5, True, False)


def test_labels_by_keyboard_only(studio):
    place, sit_down = opened(studio, responses=("one",), task_type="labels")
    desk = sit_down()
    page = desk.open_task()
    for key in "ppfiq4t1":  # spam: yes, then no; fails: yes; personal data; quality 4; rudeness 1
        page.keyboard.press(key)
    page.keyboard.press("Control+Enter")
    desk.submitted()
    payload = said(place)[0].payload
    assert (payload["spam"], payload["fails_task"], payload["pii"]) == (False, True, True)
    assert (payload["quality"], payload["toxicity"], payload["humor"]) == (0.75, 0, None)


def test_writing_with_a_preview(studio):
    place, sit_down = opened(studio, responses=(), task_type="demonstrate")
    desk = sit_down()
    page = desk.open_task()
    page.keyboard.press("r")
    page.keyboard.type("It is **8**. <b>no</b>")
    page.click("summary:has-text('Preview')")
    page.click("text=Show it as others will see it")
    page.wait_for_selector("#preview strong:text-is('8')")
    assert page.query_selector("#preview b") is None
    page.keyboard.press("Control+Enter")
    desk.submitted()
    assert said(place)[0].words == "It is **8**. <b>no</b>"


def test_a_large_paste_is_noted_and_not_blocked(studio):
    place, sit_down = opened(studio, responses=(), task_type="demonstrate")
    desk = sit_down()
    page = desk.open_task()
    paste = """length => {
        const data = new DataTransfer();
        data.setData("text/plain", "x".repeat(length));
        const event = new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
        return document.getElementById("text").dispatchEvent(event);
    }"""
    assert [page.evaluate(paste, length) for length in (200, 201, 300)] == [True] * 3  # nobody stopped it
    page.fill("#text", "an answer")
    page.keyboard.press("Control+Enter")
    desk.submitted()
    (one,) = suspects(place.store.read(gather, campaign_id=place.world.campaign))
    assert [(sign.kind, sign.found) for sign in one.evidence] == [("pasted", "501 characters pasted into 1 of 1 texts")]
    assert not one.flagged


def test_keys_can_be_switched_off_and_never_act_in_text(studio):
    _, sit_down = opened(studio)
    desk = sit_down()
    page = desk.open_task()
    page.keyboard.press("r")
    page.keyboard.type("s g 1 f")
    assert page.query_selector("dialog[open]") is None
    assert page.input_value("[name=reason]") == "s g 1 f"
    page.keyboard.press("Escape")
    page.keyboard.press("s")
    assert page.is_visible("dialog#skip")
    page.goto("/account")
    page.select_option("[name=keys]", "off")
    page.click("text=Save")
    page = desk.open_task()
    page.keyboard.press("s")
    assert not page.is_visible("dialog#skip")


def test_skipping_by_keyboard_only(studio):
    place, sit_down = opened(studio)
    desk = sit_down()
    page = desk.open_task()
    page.keyboard.press("s")
    page.keyboard.press("Tab") if not page.evaluate("document.activeElement.name === 'skip'") else None
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    page.wait_for_url("**done=skipped**")
    assert place.store.read(lambda s: s.scalar(select(Judgment))).payload["skip"] == "unclear prompt"


def test_two_tabs_choose_which_version_goes_on(studio):
    place, sit_down = opened(studio, task_type="pairwise")
    desk = sit_down()
    first = desk.open_task()
    second = desk.tab()
    second.goto(place.task_page)
    first.keyboard.press("a")
    first.wait_for_selector("#saved:has-text('Draft saved')")
    second.keyboard.press("b")
    second.wait_for_selector("dialog#conflict[open]")
    assert "choice: A" in second.inner_text("dialog#conflict")
    second.click("text=The one in this tab")
    second.wait_for_selector("#saved:has-text('Draft saved')")
    (draft,) = place.store.read(lambda s: list(s.scalars(select(Draft))))
    letters = {
        letter: one for one, letter in re.findall(r'data-response="([^"]+)" data-letter="(\w)"', second.content())
    }
    assert draft.payload["fields"] == {"choice": letters["B"]}
    assert draft.version == 2
    desk.complaints.clear()  # the browser notes the 409


def test_submitting_in_two_tabs_and_going_back_counts_once(studio):
    place, sit_down = opened(studio, task_type="pairwise")
    desk = sit_down()
    first = desk.open_task()
    second = desk.tab()
    second.goto(place.task_page)
    for tab in (first, second):
        tab.keyboard.press("a")
        tab.evaluate("for (let n = 0; n < 3; n++) document.getElementById('task').requestSubmit()")
        tab.wait_for_url("**done=**")
    first.go_back()
    first.wait_for_load_state()
    judgments = place.store.read(lambda s: list(s.scalars(select(Judgment))))
    assert len(judgments) == 1


def test_nothing_typed_is_lost_without_a_connection(studio):
    _, sit_down = opened(studio)
    desk = sit_down()
    page = desk.open_task()
    desk.context.set_offline(True)
    page.keyboard.press("r")
    page.keyboard.type("typed in a tunnel")
    page.wait_for_selector("#saved:has-text('No connection')")
    desk.context.set_offline(False)
    page.wait_for_selector("#saved:has-text('Draft saved')")
    page.reload()
    assert page.input_value("[name=reason]") == "typed in a tunnel"
    desk.complaints.clear()  # the browser notes failed requests


def test_a_model_is_talked_to_and_rated(sqlite_store, browser):
    def model(name):
        class Model:
            def __call__(self, prompts, count, sampling):
                said = f"{name} heard {prompts[0][-1].content}"
                return [[Reply(text=said, finish="stop", prompt_tokens=1, new_tokens=1, seconds=0.1)] for _ in prompts]

        Model.name = name
        return Model()

    place = Place(sqlite_store)
    place.now = now_ms()
    place.models |= {"new@1": model("new@1"), "old@1": model("old@1")}
    place.open(items=0, people=1, task_type="chat")
    with serving(place.app) as base:
        desk = Desk(browser, base, place, place.world.people[0])
        page = desk.open_task()
        page.click("text=Begin")
        page.wait_for_selector("#text:focus")
        page.keyboard.type("hello")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#pick")
        picked = page.inner_text("[aria-labelledby=reply-B] .text")
        page.keyboard.press("b")
        page.wait_for_selector("#say")
        assert page.inner_text(".line.assistant .text") == picked
        page.click("summary:has-text('Rate')")
        page.check('input[name=rating][value="4"]')
        page.click("button:text-is('Finish')")
        page.wait_for_url("**done=finished**")
        assert "rated 4 of 5" in page.inner_text("main")
        assert desk.complaints == []
        desk.context.close()
