"""Chat logs in the studio: uploaded, explored in the background, seen by admins only, made a campaign."""

from __future__ import annotations

import json
import re
import time

import pytest
from sqlalchemy import select

from accord.feedback.store.tables import Campaign, Event, Item, Prompt
from feedback.explore.test_explorer import HOSTILE, chats
from feedback.studio.visitors import text_of


def logs(*more):
    rows = [{"id": one.id, "prompt": one.first} for one in chats(8)]
    rows += [{"id": f"more{n}", "prompt": text} for n, text in enumerate(more)]
    return "\n".join(json.dumps(row) for row in rows)


def finished(admin, page):
    for _ in range(300):
        shown = admin.get(page)
        if "/progress" not in shown.text:
            return shown
        time.sleep(0.1)
    raise AssertionError("the exploration did not end")


@pytest.fixture
def explored(place):
    """An admin, the page, and what it shows of three topics, a hostile prompt and an address."""
    world = place.open(items=0, people=1)
    admin, page = place.someone("admin"), f"/admin/explore/{world.project}"
    file = logs(HOSTILE, "write to ada@example.org about the lease") + '\n{"nothing": 1}'
    admin.post(f"{page}/import", {"clusters": "3"}, files={"files": ("chats.jsonl", file)})
    return admin, page, finished(admin, page)


def test_a_map_with_what_was_left_out_and_no_personal_data(explored):
    _, _, shown = explored
    said = re.sub(r"\s+", " ", text_of(shown))
    assert "26 of 26 conversations in 3 clusters" in said
    assert "Personal data replaced: 1 EMAIL" in said
    assert "row 27: found the fields ['nothing']" in said
    assert "ada@example.org" not in shown.text
    assert "[EMAIL_1]" in shown.text


def test_no_prompt_leaves_its_block_of_data(explored):
    _, _, shown = explored
    assert "<script>alert(1)" not in shown.text
    assert "<img" not in shown.text
    data = json.loads(re.search(r'id="explore-data">(.*?)</script>', shown.text, re.S)[1])
    assert HOSTILE in [point[10] for point in data["points"]]
    assert len(data["points"]) == 26


def test_a_selection_becomes_a_draft_of_its_prompts(explored, place):
    admin, page, shown = explored
    data = json.loads(re.search(r'id="explore-data">(.*?)</script>', shown.text, re.S)[1])
    law = [point[9] for point in data["points"] if point[9].startswith("law")]
    guideline = re.search(r'name="guideline"><option value="([^"]+)"', shown.text)[1]
    form = {
        "name": "law",
        "task_type": "demonstrate",
        "guideline": guideline,
        "items": "3",
        "selection": json.dumps(law),
    }
    made = admin.post(f"{page}/campaign", form)
    campaign = made.url.path.rpartition("/")[2]
    found = place.store.read(lambda s: s.get(Campaign, campaign))
    assert (found.name, found.state, found.task_type) == ("law", "draft", "demonstrate")
    query = select(Prompt.source_ref, Prompt.group).join(Item, Item.prompt_id == Prompt.id)
    rows = place.store.read(lambda s: s.execute(query.where(Item.campaign_id == campaign)).all())
    assert len(rows) == 3
    assert {name for name, _ in rows} <= set(law)
    assert len({group for _, group in rows}) == 1  # the name of their cluster
    again = admin.post(f"{page}/campaign", form)
    assert again.status_code == 400
    assert "there is a campaign 'law' already" in text_of(again)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"selection": "[]"}, "the selection is empty"),
        ({"selection": "{"}, "the selection cannot be read"),
        ({"items": "0"}, "expected a whole number from 1 to"),
        ({"task_type": "pairwise"}, "expected one of demonstrate"),
        ({"name": " "}, "the campaign has no name"),
    ],
)
def test_a_form_that_does_not_fit_is_refused_and_makes_nothing(explored, place, change, says):
    admin, page, shown = explored
    guideline = re.search(r'name="guideline"><option value="([^"]+)"', shown.text)[1]
    form = {"name": "n", "task_type": "demonstrate", "guideline": guideline, "items": "5", "selection": "", **change}
    told = admin.post(f"{page}/campaign", form)
    assert told.status_code == 400
    assert says in text_of(told)
    assert place.store.read(lambda s: s.scalars(select(Campaign.name)).all()) == ["c"]


def test_files_that_are_none_are_refused_or_told_of(place):
    world = place.open(items=0, people=0)
    admin, page = place.someone("admin"), f"/admin/explore/{world.project}"
    assert "no file of chat logs was sent" in text_of(admin.post(f"{page}/import", {"clusters": ""}))
    admin.post(f"{page}/import", files={"files": ("chats.exe", b"x")})
    assert "chats.exe: cannot read a file of this name" in text_of(finished(admin, page))
    admin.post(f"{page}/import", files={"files": ("chats.jsonl", logs()[:200])})
    assert "conversations are left of" in text_of(finished(admin, page))


def test_dropped_logs_are_gone(explored):
    admin, page, _ = explored
    assert "explore-data" not in admin.post(f"{page}/drop").text


def test_only_admins_of_the_project_see_logs_and_none_are_written_to_the_store(explored, place):
    _, page, _ = explored
    for other in (place.person(0), place.someone("reviewer")):
        assert other.get(page).status_code == 404
        assert other.get(f"{page}/progress").status_code == 404
        assert other.post(f"{page}/campaign", {"name": "x"}).status_code == 404
        assert other.post(f"{page}/import", files={"files": ("a.jsonl", "{}")}).status_code == 404
        assert other.post(f"{page}/drop").status_code == 404
    assert place.store.read(lambda s: s.scalars(select(Prompt.id)).all()) == []
    events = place.store.read(lambda s: s.scalars(select(Event.detail).where(Event.kind == "explored")).all())
    assert events == [{"files": 1}]


def test_a_forged_upload_is_refused(place):
    world = place.open(items=0, people=0)
    admin = place.someone("admin")
    path = f"/admin/explore/{world.project}/import"
    assert admin.post(path, csrf="forged", files={"files": ("a.jsonl", logs())}).status_code == 403
    assert place.app.state.studio.explorations.of(world.project) is None


def test_a_second_set_stands_on_the_same_map(place):
    world = place.open(items=0, people=0)
    admin, page = place.someone("admin"), f"/admin/explore/{world.project}"
    files = [("files", ("a.jsonl", logs())), ("compare", ("b.jsonl", logs("and a few words more")))]
    admin.post(f"{page}/import", files=files)
    assert "the spreads differ by 0.0" in re.sub(r"\s+", " ", text_of(finished(admin, page)))


def test_script_and_styles_of_the_map_are_those_of_the_file(explored):
    admin, _, shown = explored
    assert re.search(r'src="/static/explore\.js\?', shown.text)
    assert "atlas-canvas" in admin.get("/static/explore.js").text
    assert ".atlas" in admin.get("/static/explore.css").text
