"""Replies that are watched while they are written, stopped half-way, thumbed and edited; and what is exported of it."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from accord.feedback.store import ExportOptions, export_campaign
from accord.feedback.store.queries.talks import lines_of
from accord.feedback.studio.lockstep import STEP
from accord.protocols import LanguageModel, Reply, Unavailable, Usage
from feedback.studio.browsers import NEEDED, Desk, launched, serving
from feedback.studio.test_lockstep import Paced
from feedback.studio.test_talking import Model, begin
from feedback.studio.visitors import text_of


class Writer(LanguageModel):
    """Says some words one after the other; waits for `go` before those behind a pause."""

    name, usage = "writer@1", Usage()

    def __init__(self, *words: str):
        self.words, self.paused, self.go, self.away = words, threading.Event(), threading.Event(), False

    def stream(self, prompt, sampling):
        if self.away:
            raise Unavailable("no route")
        for number, word in enumerate(self.words, 1):
            if word == "PAUSE":
                self.paused.set()
                assert self.go.wait(20)
                continue
            text = " ".join(one for one in self.words[:number] if one != "PAUSE")
            last = number == len(self.words)
            yield Reply(text=text, finish="stop" if last else "length", prompt_tokens=1, new_tokens=number, seconds=0.1)

    def generate(self, prompts, count, sampling):
        raise AssertionError("the page asked for a stream")

    score = generate


def chat(place, *words):
    place.models["writer@1"] = model = Writer(*words)
    place.open(items=0, people=2, task_type="chat")
    ada = place.person()
    return model, ada, begin(place, ada)


def events(answer) -> list[dict]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    parts = answer.text.strip().split("\n\n")
    return [json.loads(part.rpartition("data: ")[2]) for part in parts]


def kept(place, talk):
    return place.store.read(lines_of, talk.rpartition("/")[2])


def shown(found: list[dict]) -> str:
    text = ""
    for event in found:
        text = event.get("text", text) + event.get("add", "")
    return text


def test_a_reply_is_watched_and_kept(place):
    _, ada, talk = chat(place, "one", "two", "three")
    answer = ada.post(f"{talk}/stream", {"text": "count; I am ada@example.org"})
    assert shown(events(answer)) == "one two three"
    assert events(answer)[-1] == {"error": None}
    user, model = kept(place, talk)
    assert user.text == "count; I am [EMAIL_1]"
    assert (model.text, model.sampling["finish"], model.chosen) == ("one two three", "stop", True)
    assert events(ada.post(f"{talk}/stream")) == [{"error": None}]  # nobody has spoken since
    assert len(kept(place, talk)) == 2


def test_a_reply_that_is_stopped_is_kept_as_far_as_it_came_and_says_so(place):
    model, ada, talk = chat(place, "one", "two", "PAUSE", "three", "four")
    bob_talk = begin(place, place.person(1))
    answers = []
    asking = threading.Thread(target=lambda: answers.append(ada.post(f"{talk}/stream", {"text": "count"})))
    asking.start()
    assert model.paused.wait(20)
    second = place.enter(ada.user_id)
    other = begin(place, second)
    assert "still writing in another conversation" in text_of(second.post(f"{other}/stream", {"text": "x"}))
    place.person(1).post(f"{bob_talk}/stop")  # of another person: nothing ends
    second.post(f"{talk}/stop")
    model.go.set()
    asking.join(timeout=20)
    assert shown(events(answers[0])) == "one two three"
    assert [(line.text, line.sampling.get("finish")) for line in kept(place, talk)[1:]] == [
        ("one two three", "stopped")
    ]
    assert "stopped" in text_of(ada.get(talk))


def test_a_model_that_is_away_says_so_and_what_was_written_waits(place):
    model, ada, talk = chat(place, "one")
    model.away = True
    (last,) = events(ada.post(f"{talk}/stream", {"text": "hello"}))
    assert "what you wrote is kept" in last["error"]
    model.away = False
    assert shown(events(ada.post(f"{talk}/stream"))) == "one"
    assert [line.role for line in kept(place, talk)] == ["user", "assistant"]


def two(place, **words):
    """A talk with two models that say these words, one piece at a time."""
    place.models |= {f"{name}@1": Paced(f"{name}@1", said, 0.002) for name, said in words.items()}
    place.open(items=0, people=1, task_type="chat")
    ada = place.person()
    return ada, begin(place, ada)


NEW, OLD = "new words, as many as it takes to see them come", "old words, and a few of those"


def both_sides(found: list[dict]) -> list[str]:
    return ["".join(event["add"][side] for event in found if "add" in event) for side in (0, 1)]


def test_two_candidates_are_watched_in_step_and_then_picked_from(place):
    ada, talk = two(place, new=NEW, old=OLD)
    assert "data-two" in ada.get(talk).text
    answer = ada.post(f"{talk}/stream", {"text": "hello"})
    assert "new@1" not in answer.text
    found = events(answer)
    assert found[-1] == {"error": None}
    assert sorted(both_sides(found)) == sorted([NEW, OLD])
    assert {len(part) for event in found[:1] for part in event["add"]} == {STEP}
    page = ada.get(talk)
    assert page.text.count("Reply A") == 1
    assert text_of(page).index(both_sides(found)[0]) < text_of(page).index(both_sides(found)[1])
    assert events(ada.post(f"{talk}/stream")) == [{"error": None}]  # they wait to be picked from
    ada.post(f"{talk}/pick", {"verdict": "B"})
    assert [line.text for line in kept(place, talk) if line.chosen] == ["hello", both_sides(found)[1]]
    again = ada.post(f"{talk}/stream", {"text": "and now?"})
    ada.post(f"{talk}/pick", {"verdict": "failed"})
    third = ada.post(f"{talk}/stream")
    assert sorted(both_sides(events(third))) == sorted(both_sides(events(again)))
    assert [line.sampling.get("verdict") for line in kept(place, talk)[4:]] == ["failed", "failed"]


def test_models_that_cannot_be_watched_are_not(place):
    place.models |= {"new@1": Model("new@1"), "old@1": Model("old@1")}
    place.open(items=0, people=1, task_type="chat")
    ada = place.person()
    talk = begin(place, ada)
    assert "data-stream" not in ada.get(talk).text
    assert ada.post(f"{talk}/stream", {"text": "hello"}).status_code == 400


def test_who_stops_two_candidates_keeps_both_as_far_as_they_were_shown(place):
    ada, talk = two(place, new=NEW, old=OLD + ", and then some")
    place.models["new@1"] = slow = Writer("new words, and some", "more", "PAUSE", "of them, and")
    place.models["old@1"].piece = 40  # it has all in store by then, and the slow one's next words make a whole step
    answers = []
    asking = threading.Thread(target=lambda: answers.append(ada.post(f"{talk}/stream", {"text": "hello"})))
    asking.start()
    assert slow.paused.wait(20)
    place.enter(ada.user_id).post(f"{talk}/stop")
    slow.go.set()
    asking.join(timeout=20)
    assert sorted(both_sides(events(answers[0]))) == ["new words, and s", "old words, and a"]
    page = ada.get(talk)
    assert text_of(page).count("stopped") == 2
    ada.post(f"{talk}/pick", {"verdict": "A"})
    assert [line.sampling.get("finish") for line in kept(place, talk)] == [None, "stopped", "stopped"]


def test_of_two_models_one_of_which_is_away_nothing_is_shown(place):
    ada, talk = two(place, new=NEW, old=OLD)
    place.models["old@1"] = away = Writer(OLD)
    away.away = True
    *_, last = events(ada.post(f"{talk}/stream", {"text": "hello"}))
    assert "what you wrote is kept" in last["error"]
    away.away = False
    assert sorted(both_sides(events(ada.post(f"{talk}/stream")))) == sorted([NEW, OLD])


def test_thumbs_and_edits_go_on_and_go_out(place):
    _, ada, talk = chat(place, "fine")
    ada.post(f"{talk}/stream", {"text": "hello"})
    ada.post(f"{talk}/stream", {"text": "again"})
    first, second = (line.turn_id for line in kept(place, talk) if line.role == "assistant")
    ada.post(f"{talk}/thumb", {"turn": first, "thumb": "up"})
    ada.post(f"{talk}/thumb", {"turn": second, "thumb": "up"})
    page = ada.post(f"{talk}/thumb", {"turn": second, "thumb": "down"})
    assert page.text.count('aria-pressed="true"') == 2
    page = ada.post(f"{talk}/edit", {"turn": second, "text": "better words, ask bob@example.org"})
    assert "better words, ask [EMAIL_1]" in page.text
    assert "the model said" in page.text
    assert ada.post(f"{talk}/thumb", {"turn": kept(place, talk)[0].turn_id, "thumb": "up"}).status_code == 404
    assert ada.post(f"{talk}/edit", {"turn": second, "text": " "}).status_code == 400
    ada.post(f"{talk}/finish", {"rating": "4"})
    assert ada.post(f"{talk}/edit", {"turn": second, "text": "later"}).status_code == 400
    (row,) = exported(place)
    assert [one["content"] for one in row["messages"]] == ["hello", "fine", "again", "better words, ask [EMAIL_1]"]
    assert row["meta"]["thumbs"] == [{"message": 1, "thumb": "up"}, {"message": 3, "thumb": "down"}]
    assert row["meta"]["edits"] == [{"message": 3, "original": "fine"}]


def test_picks_between_candidates_go_out_with_both(place):
    place.models |= {"new@1": Model("new@1"), "old@1": Model("old@1")}
    place.open(items=0, people=1, task_type="chat")
    ada = place.person()
    talk = begin(place, ada)
    ada.post(f"{talk}/say", {"text": "hello"})
    ada.post(f"{talk}/pick", {"verdict": "failed"})
    ada.post(f"{talk}/pick", {"verdict": "B"})
    ada.post(f"{talk}/finish", {"rating": "4"})
    (row,) = exported(place)
    failed, picked = row["meta"]["picks"]
    assert (failed["verdict"], picked["verdict"]) == ("failed", "B")
    assert {one["model"] for one in picked["responses"]} == {"new@1", "old@1"}
    assert picked["responses"][1]["text"] == row["messages"][1]["content"]  # B stands second
    assert [one["text"] for one in failed["responses"]] == [one["text"] for one in picked["responses"]]


@NEEDED
def test_words_appear_one_by_one_in_a_browser_and_a_button_stops_them(place):
    model, _, talk = chat(place, "one", "two", "PAUSE", "three", "four")
    with asking(place, talk, until_shown=".line.assistant .writing >> text=one two") as desk:
        page = desk.page
        assert "count, please" in page.inner_text(".line.user")
        page.get_by_role("button", name="Stop").click()
        until(lambda: place.app.state.studio.writings._current[place.world.people[0]][0].stopped)
        model.go.set()
        page.wait_for_selector("text=stopped")
        assert page.input_value("#text") == ""
        assert desk.complaints == []
    assert [line.text for line in kept(place, talk)] == ["count, please", "one two three"]


@NEEDED
def test_two_candidates_come_in_step_in_a_browser_and_a_button_stops_both(place):
    _, talk = two(place, new=NEW, old=OLD)
    place.models["new@1"] = slow = Writer("new words, and some", "more", "PAUSE", "of them, and", "many more")
    place.models["old@1"].text = OLD + ", or more than a few of those, if anybody asks"
    with asking(place, talk, until_shown=".response .writing >> text=new words, and s") as desk:
        page = desk.page
        assert slow.paused.wait(20)
        time.sleep(0.5)
        assert sorted(page.locator(".response .writing").all_inner_texts()) == ["new words, and s", "old words, and a"]
        page.get_by_role("button", name="Stop").click()
        until(lambda: place.app.state.studio.writings._current[place.world.people[0]][0].stopped)
        slow.go.set()
        page.wait_for_selector("#pick")
        assert page.inner_text("#pick").count("stopped") == 2
        page.keyboard.press("x")  # both failed: it asks again by itself, and this time nobody stops it
        slow.go.set()
        page.wait_for_selector("#pick >> text=many more")
        assert page.inner_text("#pick").count("stopped") == 0
        page.keyboard.press("b")
        page.wait_for_selector("#text:focus")
        assert desk.complaints == []
    assert [line.sampling.get("verdict") for line in kept(place, talk)] == [None, "failed", "failed", "B", "B"]


@NEEDED
def test_who_leaves_two_candidates_stops_both_and_finds_them_again(place):
    _, talk = two(place, new=NEW, old=OLD)
    place.models["new@1"] = slow = Writer("new words, and some", "more", "PAUSE", "of them")
    with asking(place, talk, until_shown=".response .writing >> text=new words, and s") as desk:
        page = desk.page
        writing, _ = place.app.state.studio.writings._current[place.world.people[0]]
        page.goto("/account")
        until(lambda: writing.stopped)
        slow.go.set()
        until(lambda: writing.done)
        page.goto(talk)
        assert page.inner_text("#pick").count("stopped") == 2
        assert "new words, and s" in page.inner_text("#pick")


@NEEDED
def test_who_leaves_stops_the_model_and_what_it_said_is_kept(place):
    model, _, talk = chat(place, "one", "two", "PAUSE", "three", "four")
    with asking(place, talk, until_shown=".line.assistant .writing >> text=one two") as desk:
        page = desk.page
        writing, _ = place.app.state.studio.writings._current[place.world.people[0]]
        page.goto("/account")
        until(lambda: writing.stopped)
        model.go.set()
        until(lambda: writing.done)
    assert [line.sampling.get("finish") for line in kept(place, talk)] == [None, "stopped"]


@contextmanager
def asking(place, talk: str, *, until_shown: str):
    """Somebody at a desk who has asked, when the first words of the reply are there."""
    with launched() as browser, serving(place.app) as base:
        desk = Desk(browser, base, place, place.world.people[0])
        desk.page.goto(talk)
        desk.page.fill("#text", "count, please")
        desk.page.keyboard.press("Control+Enter")
        desk.page.wait_for_selector(until_shown)
        yield desk


def until(holds) -> None:
    for _ in range(400):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("it never came to that")


def exported(place) -> list[dict]:
    folder = Path(f"{place.store.engine.url.database}-out")
    options = ExportOptions(form="conversations")
    manifest = export_campaign(place.store, folder, options, campaign_id=place.world.campaign, actor_id=None)
    (name,) = manifest["files"]
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.fixture(autouse=True)
def _all_threads_end(place):
    yield
    assert not place.app.state.studio.writings._current
