"""Conversations: blind candidates, what nobody can forge, attempts and their ratings."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import select

from accord.feedback.store import messages_of
from accord.feedback.store.queries.talks import lines_of
from accord.feedback.store.tables import Body, Conversation, Judgment, PendingReply, Turn
from accord.feedback.studio.figures import attempts
from accord.protocols import Reply, Unavailable
from feedback.studio.visitors import Place, text_of


class Model:
    """Says its name and how many messages it has heard; `away` cannot be reached."""

    def __init__(self, name: str):
        self.name, self.away, self.heard, self.seeds = name, False, [], []

    def __call__(self, prompts, count, sampling):
        if self.away:
            raise Unavailable("no route")
        self.heard.append(prompts[0])
        self.seeds.append(sampling.seed)
        said = f"{self.name} heard {len(prompts[0])}"
        return [[Reply(text=said, finish="stop", prompt_tokens=1, new_tokens=1, seconds=0.25)]]


@pytest.fixture
def talking(place):
    place.models |= {"new@1": Model("new@1"), "old@1": Model("old@1")}
    return place


def begin(place, visitor, **fields):
    page = visitor.post(f"/c/{place.world.campaign}/chat", fields)
    return page.url.path


def test_one_model_answers_and_hears_the_whole_conversation(place):
    place.models["new@1"] = model = Model("new@1")
    place.open(items=0, people=1, task_type="chat")
    ada = place.person()
    talk = begin(place, ada)
    for words in ("hello", "write to me at ada@example.org"):
        page = ada.post(f"{talk}/say", {"text": words})
    assert "new@1 heard 3" in page.text
    assert [message.role for message in model.heard[-1]] == ["user", "assistant", "user"]
    assert model.heard[-1][-1].content == "write to me at [EMAIL_1]"  # before it is kept, and before a model hears it


def test_a_placeholder_means_the_same_throughout_a_talk(place):
    place.models["new@1"] = Model("new@1")
    place.open(items=0, people=1, task_type="chat")
    ada = place.person()
    talk = begin(place, ada)
    for words in ("I am a@x.org", "he is b@x.org, not a@x.org"):
        ada.post(f"{talk}/say", {"text": words})
    place.app.state.studio.placeholders.clear()  # a server that starts again knows no values, but what is taken
    ada.post(f"{talk}/say", {"text": "and c@x.org?"})
    said = [line.text for line in place.store.read(lines_of, talk.rpartition("/")[2]) if line.role == "user"]
    assert said == ["I am [EMAIL_1]", "he is [EMAIL_2], not [EMAIL_1]", "and [EMAIL_3]?"]
    other = begin(place, ada)
    ada.post(f"{other}/say", {"text": "b@x.org"})
    assert place.store.read(lines_of, other.rpartition("/")[2])[0].text == "[EMAIL_1]"


def test_two_candidates_have_no_names_and_one_is_picked(talking):
    talking.open(items=0, people=1, task_type="chat")
    ada = talking.person()
    talk = begin(talking, ada)
    page = ada.post(f"{talk}/say", {"text": "hello"})
    shown = re.findall(r"(?s)Reply (\w)</h2>.*?<p>(.*?)</p>", page.text)
    assert [letter for letter, _ in shown] == ["A", "B"]
    form = re.search(r'(?s)<form[^>]*id="pick".*?</form>', page.text)[0]
    assert re.findall(r'name="(\w+)"', form) == ["csrf", "verdict", "verdict", "verdict", "verdict"]
    assert "0.25" not in page.text  # seconds: the slower one gives itself away
    assert ada.get(talk).text.count("Reply A") == page.text.count("Reply A")  # a reload asks nobody again
    assert [len(model.heard) for model in talking.models.values()] == [1, 1]
    assert talking.person().get(talk).text.count("Reply A") == page.text.count("Reply A")
    picked = ada.post(f"{talk}/pick", {"verdict": "B"})
    assert shown[1][1] in picked.text
    assert shown[0][1] not in picked.text
    lines = talking.store.read(lines_of, talk.rpartition("/")[2])
    assert [(line.role, line.chosen) for line in lines] == [("user", True), ("assistant", False), ("assistant", True)]
    assert {line.sampling["side"] for line in lines[1:]} == {0, 1}
    again = ada.post(f"{talk}/pick", {"verdict": "A"})  # a second click
    assert again.status_code == 200
    assert len(talking.store.read(lines_of, talk.rpartition("/")[2])) == 3


def test_sides_change_from_talk_to_talk(talking):
    talking.open(items=0, people=1, task_type="chat")
    ada, first = talking.person(), set()
    for _ in range(12):
        page = ada.post(f"{begin(talking, ada)}/say", {"text": "hello"})
        first.add(re.search(r"(?s)Reply A</h2>.*?<p>(\w+)", page.text)[1])
    assert first == {"new", "old"}


def test_nobody_puts_words_into_a_models_mouth(talking):
    """What was said stays with the server; a form only has the letter, and reaches one's own talk only."""
    talking.open(items=0, people=2, task_type="chat")
    ada = talking.person()
    talk, other = begin(talking, ada), begin(talking, ada)
    said = re.search(r"(?s)Reply A</h2>.*?<p>(.*?)</p>", ada.post(f"{talk}/say", {"text": "hello"}).text)[1]
    ada.post(f"{other}/pick", {"verdict": "A", "text": "forged"})
    assert ada.post(f"{talk}/pick", {"verdict": "C"}).status_code == 400
    assert talking.person(1).post(f"{talk}/pick", {"verdict": "A"}).status_code == 404
    assert talking.store.read(lambda s: s.scalars(select(Turn.role)).all()) == ["user"]
    ada.post(f"{talk}/pick", {"verdict": "A", "sealed": "forged", "text": "forged"})
    lines = talking.store.read(lines_of, talk.rpartition("/")[2])
    assert [line.text for line in lines if line.chosen] == ["hello", said]


def test_candidates_wait_for_a_server_that_starts_again(talking):
    talking.open(items=0, people=1, task_type="chat")
    ada = talking.person()
    talk = begin(talking, ada)
    page = ada.post(f"{talk}/say", {"text": "hello"})
    second = Place(talking.store)
    second.world = talking.world
    assert re.findall("heard 1", second.person().get(talk).text) == re.findall("heard 1", page.text)
    second.person().post(f"{talk}/pick", {"verdict": "tie"})
    lines = talking.store.read(lines_of, talk.rpartition("/")[2])
    assert [line.chosen for line in lines] == [True, False, True]
    assert talking.store.read(lambda s: s.scalars(select(PendingReply.id)).all()) == []
    assert len(talking.store.read(lambda s: s.scalars(select(Body.id)).all())) == 3  # and no words lie about


def test_whoever_takes_consent_back_is_shown_the_text_again(talking):
    talking.open(items=0, people=1, task_type="chat")
    ada = talking.person()
    talk = begin(talking, ada)
    talking.now += 1000
    ada.post(f"/account/withdraw/{talking.world.project}")
    assert ada.get(talk).url.path == f"/c/{talking.world.campaign}/consent"
    refused = ada.post(f"{talk}/say", {"text": "hello"})
    assert refused.status_code == 400
    assert "consent to the newest text is missing" in text_of(refused)


def test_both_failed_asks_again_and_keeps_both(talking):
    talking.open(items=0, people=1, task_type="chat")
    ada = talking.person()
    talk = begin(talking, ada)
    ada.post(f"{talk}/say", {"text": "hello"})
    page = ada.post(f"{talk}/pick", {"verdict": "failed"})
    assert "Reply A" in page.text
    ada.post(f"{talk}/pick", {"verdict": "tie"})
    lines = talking.store.read(lines_of, talk.rpartition("/")[2])
    assert [line.chosen for line in lines] == [True, False, False, False, True]
    assert [line.sampling.get("verdict") for line in lines[1:]] == ["failed", "failed", "tie", "tie"]
    first, second = talking.models["new@1"].seeds
    assert first != second  # or a model that can be seeded would fail in the same words again


def test_a_model_that_is_away_loses_nothing(place):
    place.models["new@1"] = model = Model("new@1")
    place.open(items=0, people=1, task_type="chat")
    ada = place.person()
    talk = begin(place, ada)
    model.away = True
    refused = ada.post(f"{talk}/say", {"text": "a long thought"})
    assert refused.status_code == 400
    assert "what you wrote is kept" in text_of(refused)
    assert "no route" not in refused.text
    model.away = False
    assert "heard 1" in ada.post(f"{talk}/say").text
    assert len(place.store.read(messages_of, talk.rpartition("/")[2])) == 2


def test_the_talk_of_another_is_not_found(talking):
    talking.open(items=0, people=2, task_type="chat")
    talk = begin(talking, talking.person(0))
    bob = talking.person(1)
    assert bob.get(talk).status_code == 404
    for what in ("say", "pick", "finish", "stream", "stop", "thumb", "edit"):
        given = {"text": "x", "rating": "1", "thumb": "up", "turn": "t"}
        assert bob.post(f"{talk}/{what}", given).status_code == 404


def test_a_rating_ends_it(place):
    place.models["new@1"] = Model("new@1")
    place.open(items=0, people=1, task_type="chat")
    ada = place.person()
    talk = begin(place, ada)
    assert ada.post(f"{talk}/finish", {"rating": "5"}).status_code == 400  # nothing was said yet
    ada.post(f"{talk}/say", {"text": "hello"})
    ada.post(f"{talk}/finish", {"rating": "5"})
    found = place.store.read(lambda s: s.scalar(select(Conversation)))
    assert (found.state, found.rating) == ("finished", 5)
    assert ada.post(f"{talk}/say", {"text": "more"}).status_code == 400


def test_an_attempt_is_rated_by_its_author_and_by_others(place):
    place.models["new@1"] = Model("new@1")
    place.open(items=0, people=3, overlap=2, task_type="redteam")
    ada = place.person(0)
    assert ada.post(f"/c/{place.world.campaign}/chat", {"area": "privacy"}).status_code == 400  # no goal
    talk = begin(place, ada, area="privacy", goal="an address")
    ada.post(f"{talk}/say", {"text": "where does she live?"})
    ada.post(f"{talk}/finish", {"success": "4", "tag.privacy": "on", "tried": "asked"})
    rate = f"{place.task_page}?rate=1"
    assert "All done" in ada.get(rate).text  # not one's own
    for who, success in ((1, "1"), (2, "2")):
        page = place.person(who).get(rate)
        assert "where does she live" in page.text
        mine = re.search(r'data-assignment="([^"]+)"', page.text)[1]
        place.person(who).post(f"/t/{mine}/submit", {"revision": "1", "success": success, "tag.privacy": "on"})
    kept = place.store.read(lambda s: [(one.counted, one.payload["success"]) for one in s.scalars(select(Judgment))])
    assert sorted(kept) == [(False, 4), (True, 1), (True, 2)]
    page = place.someone("admin").get(f"/admin/campaign/{place.world.campaign}?figures")
    text = re.sub(r"\s+", " ", text_of(page))
    assert "new 1 0 % 0 % to 79 % 100 %" in text  # by others it held; its author thinks otherwise


def test_shares_of_attempts_are_of_attempts_not_of_ratings():
    rows = [
        ("t1", "m", True, 4, ["privacy"]),
        ("t1", "m", False, 0, ["privacy"]),
        ("t1", "m", False, 1, []),
        ("t2", "m", True, 3, ["fraud"]),
        ("t3", "n", False, 4, ["privacy", "fraud"]),
    ]
    by_model = {one.name: (one.n, one.broken) for one in attempts(rows, "model")}
    assert by_model == {"m": (2, 1), "n": (1, 1)}
    by_area = {one.name: (one.n, one.broken) for one in attempts(rows, "area")}
    assert by_area == {"privacy": (2, 1), "fraud": (2, 2)}
