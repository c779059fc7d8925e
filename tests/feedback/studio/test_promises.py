"""What a project promises about people's words: where it is set, who is told, and that every door keeps it."""

from __future__ import annotations

import json
import re
import time

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from accord.feedback.store import CampaignSettings, verdicts
from accord.feedback.store.tables import Body, Conversation, Project
from feedback.studio.test_api import program
from feedback.studio.test_talking import Model, begin
from feedback.studio.visitors import HOST, assignment, text_of
from feedback.worlds import ranks

DAY = 86_400_000
ATTRIBUTES = {
    "quality": 5, "hallucination": "n/a", "satisfies_constraint": True,
    **dict.fromkeys(("fails_task", "inappropriate", "sexual", "violent", "encourages_harm", "denigrates"), False),
    **dict.fromkeys(("harmful_advice", "opinion", "moral_judgment"), False),
}  # fmt: skip
TEXTS = {"consent": "We keep it.", "guideline": "Right first."}


def test_an_admin_sets_what_goes_with_a_consent_and_people_are_told(place):
    place.open(items=1, people=1)
    admin, bob = place.someone("admin"), place.someone("annotator")
    page = f"/c/{place.world.campaign}/consent"
    assert "your judgments, without words, stay" in text_of(bob.get(page))
    kept = f"/admin/texts/{place.world.project}/kept"
    for wrong in ({"retention_days": "0"}, {"retention_days": "-3"}, {"on_withdrawal": "burn"}):
        assert admin.post(kept, wrong).status_code == 400
    saved = admin.post(kept, {"retention_days": "30", "on_withdrawal": "delete"})
    assert re.search(r'value="delete" selected', saved.text)
    told = text_of(bob.get(page))
    assert "What you wrote and your judgments are passed on no more" in told
    assert "erased after 30 days" in told
    assert admin.post(kept, {"on_withdrawal": "keep_verdicts"}).status_code == 400  # people have agreed to the other
    project = place.store.read(lambda s: s.get(Project, place.world.project))
    assert (project.retention_days, project.on_withdrawal) == (30, "delete")
    assert bob.post(kept, {"on_withdrawal": "delete"}).status_code == 404


def test_a_new_project_has_its_rules_from_the_form_and_from_a_program(place):
    place.open(people=0)
    site = place.someone(None, site=True)
    rules = {"retention_days": 7, "on_withdrawal": "delete"}
    site.post("/admin/projects", {"slug": "form", **TEXTS, **{name: str(value) for name, value in rules.items()}})
    client = program(place, site.user_id, "admin")
    assert client.post("/api/v1/projects", json={"slug": "rest", **TEXTS, **rules}).status_code == 201
    wrong = client.post("/api/v1/projects", json={"slug": "bad", **TEXTS, "on_withdrawal": "burn"})
    assert wrong.json()["errors"][0]["field"] == "body.on_withdrawal"
    found = place.store.read(lambda s: s.scalars(select(Project).where(Project.slug.in_(("form", "rest")))).all())
    assert [(one.retention_days, one.on_withdrawal) for one in found] == [(7, "delete")] * 2


def test_what_is_written_is_screened_at_every_door(place):
    place.models["new@1"] = Model("new@1")
    place.open(items=0, people=2, task_type="redteam")
    ada = place.person()
    talk = begin(place, ada, area="privacy", goal="the address of zq@mail.org")
    ada.post(f"{talk}/say", {"text": "where?"})
    ada.post(f"{talk}/finish", {"success": "4", "tag.privacy": "on", "tried": "I wrote to zq@mail.org"})
    assert place.store.read(lambda s: s.scalar(select(Conversation.goal))) == "privacy: the address of [EMAIL_1]"
    texts = place.store.read(lambda s: s.scalars(select(Body.text)).all())
    assert "I wrote to [EMAIL_1]" in texts
    assert [text for text in texts if "zq@" in text] == []


def test_a_program_s_words_are_screened_like_a_page_s(place):
    place.open(items=0, people=1, task_type="demonstrate")
    place.world.add_item("write a line", responses=())
    client = program(place, place.world.people[0], "annotate")
    task = client.post(f"/api/v1/campaigns/{place.world.campaign}/next").json()
    sent = {"payload": {"text": "Ask zq@mail.org."}}
    assert client.post(f"/api/v1/assignments/{task['assignment']}/submit", json=sent).status_code == 200
    assert place.store.read(verdicts, campaign_id=place.world.campaign)[0].words == "Ask [EMAIL_1]."


def test_the_reason_of_a_skip_is_screened_too(place):
    place.open(items=1, people=1)
    ada = place.person()
    page = ada.get(place.task_page)
    ada.post(f"/t/{assignment(page)}/skip", {"revision": "1", "skip": "other", "skip_text": "I know zq@mail.org"})
    assert place.store.read(lambda s: s.scalars(select(Body.text)).all()) == ["I know [EMAIL_1]"]


@pytest.mark.parametrize(
    ("task_type", "said", "wrong"),
    [
        ("rank", {"spans": [{"response": "A", "start": 0, "end": 1, "tag": "ask zq@mail.org"}]}, "wrong, made up"),
        ("rank", {"attributes": {"A": ATTRIBUTES, "B": ATTRIBUTES}}, "does not ask for attributes"),
        ("redteam", {"harm_tags": ["ask zq@mail.org"]}, "violence, self-harm"),
    ],
)
def test_what_is_no_words_holds_no_words(place, task_type, said, wrong):
    """Marks and tags stay in the judgment for good, whatever is forgotten: they are of a list, for programs too."""
    place.open(items=1, people=1, task_type=task_type)
    client = program(place, place.world.people[0], "annotate")
    task = client.post(f"/api/v1/campaigns/{place.world.campaign}/next").json()
    ids = {letter: one["id"] for letter, one in zip("AB", task["responses"], strict=True)}
    ranked = {"ranks": {ids["A"]: 1, ids["B"]: 2}}
    payload = {"conversation_id": "t", "success": 1} if task_type == "redteam" else ranked
    text = json.dumps({**payload, **said})
    for letter, one in ids.items():
        text = text.replace(f'"{letter}"', f'"{one}"')
    answer = client.post(f"/api/v1/assignments/{task['assignment']}/submit", json={"payload": json.loads(text)})
    assert answer.status_code == 400
    assert wrong in answer.json()["detail"]


def test_a_ranking_that_asks_for_attributes_needs_them_from_programs_too(place):
    place.open(items=1, people=1, settings=CampaignSettings(attributes_first=True))
    client = program(place, place.world.people[0], "annotate")
    task = client.post(f"/api/v1/campaigns/{place.world.campaign}/next").json()
    payload = {"ranks": {one["id"]: 1 for one in task["responses"]}}
    assert (task["attributes"], task["span_tags"]) == (True, ["wrong", "made up", "unclear", "good"])  # it is told
    address = f"/api/v1/assignments/{task['assignment']}/submit"
    assert "asks for `attributes`" in client.post(address, json={"payload": payload}).json()["detail"]
    payload["attributes"] = {one["id"]: ATTRIBUTES for one in task["responses"]}
    assert client.post(address, json={"payload": payload}).status_code == 200


def test_a_server_that_starts_erases_what_is_kept_too_long(place):
    place.open(items=1, people=1, retention_days=30)
    task = place.world.next()
    place.world.submit(task, payload={**ranks(task), "reason": "zq-words"})
    made = place.store.read(lambda s: s.scalars(select(Body)).one()).created_at
    for place.now, left in ((made + 30 * DAY, "zq-words"), (made + 31 * DAY, None)):
        with TestClient(place.app, base_url=HOST):
            for _ in range(100):
                found = place.store.read(lambda s: s.scalars(select(Body.text)).one())
                if found == left:
                    break
                time.sleep(0.02)
        assert found == left


def test_the_size_of_text_is_one_click_away(place):
    place.open(people=1)
    ada = place.person()
    page = ada.get("/")
    for size in ("large", "largest", "normal"):
        assert f'name="size" value="{size}"' in page.text
        page = ada.post("/preferences", {"size": size, "back": "/"})
        assert f'data-size="{size}"' in page.text
