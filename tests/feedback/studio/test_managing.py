"""Admins and reviewers: projects, campaigns, files in and out, evidence, exclusions, decisions."""

from __future__ import annotations

import gzip
import io
import json
import re
import zipfile

import pytest
from sqlalchemy import select

from accord.feedback.store import NewItem, add_items, add_prompt, adjudications, set_role, verdicts
from accord.feedback.store.queries.quality import dismissed
from accord.feedback.store.tables import Campaign, Event, Exclusion, Item, Response, Slot
from accord.records import Message
from feedback.studio.visitors import Visitor, shown, text_of
from feedback.worlds import ranks


@pytest.fixture
def judged(place):
    """Two items, judged alike by two people and the other way round by a third."""
    place.open(items=4, people=3)
    for who, best in enumerate(("one", "one", "two")):
        for _ in range(4):
            task = place.world.next(who)
            place.world.submit(task, who, ranks(task, best), active_ms=30_000)
    return place


def test_from_nothing_to_an_open_campaign(both):
    both.open(people=0)
    site = both.someone(None, site=True)
    made = site.post("/admin/projects", {"slug": "sums", "consent": "We keep it.", "guideline": "Right first."})
    project = made.url.path.rpartition("/")[2]
    guideline = re.search(r'name="guideline"><option value="([^"]+)"', made.text)[1]
    new = {"name": "first", "task_type": "pairwise", "guideline": guideline, "overlap": "2", "lease_minutes": "10"}
    campaign = site.post(f"/admin/project/{project}/campaigns", new).url.path.rpartition("/")[2]
    rows = [
        {"id": "q1", "prompt": "2+2=", "responses": [{"id": "a", "text": "4"}, {"id": "b", "text": "5"}]},
        {"prompt": "2+3=", "chosen": "5", "rejected": "6"},
        {"prompt": "2+4=", "responses": [{"id": "a", "text": "6"}]},
        {"nothing": 1},
    ]
    bad, good = rows[3:], rows[:2]
    file = "\n".join(json.dumps(row) for row in good + bad)
    told = site.post(f"/admin/campaign/{campaign}/import", files={"file": ("rows.jsonl", file)})
    assert "2 rows are items now" in re.sub(r"\s+", " ", text_of(told))
    assert "row 3: " in text_of(told)
    site.post(f"/admin/campaign/{campaign}/change", {"state": "open", "overlap": "3"})
    found = both.store.read(lambda s: s.get(Campaign, campaign))
    assert (found.state, found.overlap, found.lease_minutes) == ("open", 3, 10)
    slots = both.store.read(lambda s: len(s.scalars(select(Slot).where(Slot.campaign_id == campaign)).all()))
    assert slots == 6


def test_a_row_that_does_not_fit_the_campaign_is_named(place):
    place.open(items=0, people=0, task_type="pairwise")
    admin = place.someone("admin")
    row = json.dumps({"id": "q", "prompt": "?", "responses": [{"id": "a", "text": "1"}]})
    told = admin.post(f"/admin/campaign/{place.world.campaign}/import", files={"file": ("x.jsonl", row)})
    assert told.status_code == 400
    assert "row 1: 1 response; a pairwise task takes two" in text_of(told)


def test_the_page_reads_what_the_command_reads(place):
    place.open(items=0, people=0)
    admin, page = place.someone("admin"), f"/admin/campaign/{place.world.campaign}/import"
    words = "\n\nHuman: {}\n\nAssistant: {}"
    rows = [{"chosen": words.format("2+2?", "4"), "rejected": words.format("2+2?", "5")}]
    told = admin.post(page, files={"file": ("hh.jsonl.gz", gzip.compress(json.dumps(rows[0]).encode()))})
    assert "1 row is an item now" in re.sub(r"\s+", " ", text_of(told))
    assert "Read as records (1)" in re.sub(r"\s+", " ", text_of(told))
    table = "prompt,chosen,rejected\n2+3?,5,6\n"
    told = admin.post(page, files={"file": ("../../pairs.csv", table)})
    assert "1 row is an item now" in re.sub(r"\s+", " ", text_of(told))
    broken = admin.post(page, files={"file": ("t.parquet", b"no parquet")})
    assert broken.status_code == 400
    assert "/tmp" not in broken.text
    texts = place.store.read(lambda s: {one.text for one in s.scalars(select(Response))})
    assert texts == {"4", "5", "6"}


def test_an_invitation_is_shown_once_and_works(place):
    place.open(people=0)
    admin = place.someone("admin")
    made = admin.post(f"/admin/people/{place.world.project}/invite", {"role": "reviewer"})
    link = re.search(r'data-copy="http://studio.test(/join/\w+)"', made.text)[1]
    assert link not in admin.get(f"/admin/people/{place.world.project}").text
    joined = Visitor(place.app)
    joined.post(link, {"name": "rita", "password": "a good long password"})
    assert joined.get(f"/review/{place.world.campaign}").status_code == 200


def test_the_dashboard_counts_and_names_the_odd_one_out(judged):
    admin = judged.someone("admin")
    page = admin.get(f"/admin/campaign/{judged.world.campaign}?figures")
    text = re.sub(r"\s+", " ", text_of(page))
    assert "12 of 12" in text
    assert "12 judgments of 4 items by 3 people" in text
    assert "0.5 min" in text
    csv = admin.get(f"/admin/campaign/{judged.world.campaign}/table/annotators.csv")
    assert csv.headers["content-type"].startswith("text/csv")
    assert csv.text.splitlines()[1].split(",")[1].startswith('"0.00 [0.00')  # the lowest first


def test_live_figures_come_without_the_page_around_them(judged):
    part = judged.someone("admin").get(f"/admin/campaign/{judged.world.campaign}/live").text
    assert "<html" not in part
    assert "12" in part


def test_an_exclusion_keeps_its_evidence_and_can_be_taken_back(judged):
    admin, campaign = judged.someone("admin"), judged.world.campaign
    odd = judged.world.people[2]
    assert admin.post(f"/admin/campaign/{campaign}/exclude/{odd}", {"reason": " "}).status_code == 400
    admin.post(f"/admin/campaign/{campaign}/exclude/{odd}", {"reason": "always the second", "replace": "yes"})
    assert len(judged.store.read(verdicts, campaign_id=campaign)) == 8
    row = judged.store.read(lambda s: s.scalar(select(Exclusion)))
    assert row.decided_by == admin.user_id
    assert row.evidence
    slots = judged.store.read(lambda s: list(s.scalars(select(Slot.state).where(Slot.campaign_id == campaign))))
    assert slots.count("open") == 4  # others are asked instead
    assert "No further tasks" in judged.enter(odd).get(judged.task_page).text
    admin.post(f"/admin/campaign/{campaign}/reverse/{row.id}", {"reason": "it was a joke"})
    assert len(judged.store.read(verdicts, campaign_id=campaign)) == 12
    assert "it was a joke" in admin.get(f"/admin/campaign/{campaign}").text


def test_evidence_can_be_let_be_and_its_annotator_be_paused(place):
    place.open(items=13, people=2)
    for _ in range(12):
        place.world.submit(place.world.next(), active_ms=30_000)  # within one minute
    admin, ada = place.someone("admin"), place.world.people[0]
    campaign = f"/admin/campaign/{place.world.campaign}"
    assert "No evidence against anybody" not in admin.get(f"{campaign}?figures").text
    assert admin.post(f"{campaign}/pause/{place.world.people[1]}").status_code == 404  # there is nothing on them
    for _ in range(2):
        admin.post(f"{campaign}/pause/{ada}")
    assert "A short break" in place.person().get(place.task_page).text
    assert "person 0" in text_of(admin.get(campaign))
    admin.post(f"{campaign}/resume/{ada}")
    assert "question" in place.person().get(place.task_page).text
    admin.post(f"{campaign}/dismiss/{ada}")
    assert "No evidence against anybody" in admin.get(f"{campaign}?figures").text
    kinds = place.store.read(dismissed, campaign_id=place.world.campaign)
    assert kinds == {ada: frozenset({"burst"})}
    place.store.run(
        lambda s: s.execute(  # as if somebody had looked at something else
            Event.__table__.insert().values(
                id="x", created_at=1, kind="evidence dismissed", subject="other:campaign", detail={"kinds": ["gold"]}
            )
        )
    )
    assert place.store.read(dismissed, campaign_id=place.world.campaign) == kinds


def test_an_export_is_the_same_bytes_each_time(judged):
    admin = judged.someone("admin")
    path, options = f"/admin/campaign/{judged.world.campaign}/export", {"form": "comparisons", "unit": "annotator"}
    assert 'name="form"' in admin.get(path).text
    first, second = admin.post(path, options), admin.post(path, options)
    assert first.content == second.content
    archive = zipfile.ZipFile(io.BytesIO(first.content))
    rows = [json.loads(line) for line in archive.read("train.jsonl").splitlines()]
    assert sorted({row["chosen"] for row in rows}) == ["one", "two"]
    assert len(rows) == 12
    assert json.loads(archive.read("manifest.json"))["files"]["train.jsonl"]["rows"] == 12
    assert admin.get(path).text.count("comparisons</td>") == 2  # noted in the log
    assert admin.post(path, {"form": "spreadsheet"}).status_code == 400


def test_a_reviewer_decides_and_the_decision_wins(judged):
    rita, campaign = judged.someone("reviewer"), judged.world.campaign
    item = judged.world.items[0]
    queue = rita.get(f"/review/{campaign}")
    assert item in queue.text
    assert "person 2" not in queue.text
    case = rita.get(f"/review/{campaign}/{item}")
    assert "person" not in re.sub("(?i)<[^>]*>|Person", "", case.text)
    fields = dict.fromkeys(re.findall(r'name="(rank\.[^"]+)" value="1"', case.text), "1")
    assert rita.post(f"/review/{campaign}/{item}/adjudicate", fields).status_code == 400  # no reason
    done = rita.post(f"/review/{campaign}/{item}/adjudicate", {**fields, "why": "both are right"})
    assert "on record" in done.text
    assert set(judged.store.read(adjudications, campaign_id=campaign)[item]["ranks"].values()) == {1}


def test_a_reviewer_sees_what_was_marked(place):
    place.open(items=0, people=1)
    place.world.add_item("which?", responses=("The moon 😀 is <b>cheese</b>.", "No."))
    task = place.world.next(0)
    first, second = sorted(task.responses, key=lambda one: one.text == "No.")
    at = first.text.index("is <b>")
    spans = [{"response": first.id, "start": at, "end": len(first.text) - 1, "tag": "made up"}]
    place.world.submit(task, 0, {"ranks": {first.id: 2, second.id: 1}, "spans": spans})
    page = place.someone("reviewer").get(f"/review/{place.world.campaign}/{task.item_id}").text
    letter = re.search(r'id="title-(\w)">[^<]*</h2>\s*</header><div class="text"[^>]*><p>The moon', page)[1]
    told = re.search(r'<li>(\w) <q dir="auto">(.*?)</q> <span class="badge *">(.*?)</span>', page)
    assert told.groups() == (letter, "is &lt;b&gt;cheese&lt;/b&gt;", "made up")


def test_a_decided_item_becomes_gold(judged):
    admin, campaign, item = judged.someone("admin"), judged.world.campaign, judged.world.items[0]
    case = admin.get(f"/review/{campaign}/{item}")
    names = sorted(set(re.findall(r'name="(rank\.[^"]+)" value="1"', case.text)))
    assert admin.post(f"/review/{campaign}/{item}/gold").status_code == 400
    fields = {names[0]: "1", names[1]: "2", "why": "clear"}
    admin.post(f"/review/{campaign}/{item}/adjudicate", fields)
    admin.post(f"/review/{campaign}/{item}/gold", {"explanation": "see the guideline"})
    gold = judged.store.read(lambda s: s.scalar(select(Item).where(Item.kind == "gold")))
    assert gold.expected == {"ranks": {names[0][5:]: 1, names[1][5:]: 2}}


def test_nobody_reviews_their_own_judgment(judged):
    admin, campaign = judged.someone("admin"), judged.world.campaign
    found = judged.store.read(verdicts, campaign_id=campaign)[0].judgment_id
    ok = admin.post(f"/review/{campaign}/judgment/{found}", {"decision": "accept", "reason": "good"})
    assert ok.status_code == 200
    mine = judged.world.people[0]
    judged.store.run(set_role, user_id=mine, project_id=judged.world.project, role="reviewer", actor_id=None)
    refused = judged.enter(mine).post(f"/review/{campaign}/judgment/{found}", {"decision": "accept"})
    assert refused.status_code == 400


def test_words_of_a_qualification_wait_for_a_grade(place):
    place.open(items=0, people=1, task_type="demonstrate")

    def add(session):
        prompt = add_prompt(
            session,
            project_id=place.world.project,
            messages=(Message(role="user", content="show us"),),
            source="test",
        )
        new = NewItem(prompt_id=prompt.id, kind="qualification", expected={"graded": True})
        add_items(session, campaign_id=place.world.campaign, items=[new])

    place.store.run(add)
    ada, rita = place.person(), place.someone("reviewer")
    page = ada.get(place.task_page)
    assignment = re.search(r'data-assignment="([^"]+)"', page.text)[1]
    ada.post(f"/t/{assignment}/submit", {"revision": "1", "text": "Like this."})
    assert "Waiting for a grade" in ada.get(place.task_page).text
    queue = rita.get(f"/review/{place.world.campaign}")
    assert "Like this." in queue.text
    judgment = re.search(r"/judgment/([^\"]+)\"", queue.text)[1]
    rita.post(f"/review/{place.world.campaign}/judgment/{judgment}", {"decision": "accept", "back": "queue"})
    assert "All done" in ada.get(place.task_page).text


def test_two_models_meet_blind_and_the_admin_sees_who_won(place):
    place.open(items=0, people=3, task_type="winrate")
    admin, campaign = place.someone("admin"), place.world.campaign
    rows = [
        {
            "id": f"q{n}",
            "prompt": f"question {n}",
            "responses": [{"id": "a", "text": "good", "model": "new@1"}, {"id": "b", "text": "bad", "model": "old@1"}],
        }
        for n in range(4)
    ]
    file = "\n".join(map(json.dumps, rows))
    admin.post(f"/admin/campaign/{campaign}/import", files={"file": ("x.jsonl", file)})
    for who in range(3):
        visitor = place.person(who)
        while "data-assignment" in (page := visitor.get(place.task_page)).text:
            assert "new@1" not in page.text
            texts = dict(re.findall(r'data-response="([^"]+)".*?class="text clamp"[^>]*><p>(\w+)', page.text, re.S))
            (best,) = (one for one, text in texts.items() if text == "good")
            assert best in shown(page).values()
            assignment = re.search(r'data-assignment="([^"]+)"', page.text)[1]
            choice = "tie" if who == 2 else best
            visitor.post(f"/t/{assignment}/submit", {"revision": "1", "choice": choice})
    text = re.sub(r"\s+", " ", text_of(admin.get(f"/admin/campaign/{campaign}?figures")))
    assert "new@1 old@1 83 %" in text  # 8 wins and 4 ties of 12
