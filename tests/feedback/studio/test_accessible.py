"""axe-core finds nothing on any page, in both themes, on a desk and on a phone; no page is wider than its window."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
from sqlalchemy import select

from accord.feedback.store import (
    CampaignSettings,
    NewItem,
    add_campaign,
    add_items,
    add_model,
    add_turn,
    change_campaign,
    now_ms,
    set_role,
    start_conversation,
)
from accord.feedback.store.queries.candidates import Candidate, hold_candidates
from accord.feedback.store.queries.messages import send_note
from accord.feedback.store.tables import Item, ItemResponse
from accord.feedback.studio.explorations import Upload
from feedback.explore.test_explorer import chats
from feedback.studio.browsers import NEEDED, Desk, launched, serving
from feedback.studio.visitors import Place
from feedback.worlds import ranks

pytestmark = [NEEDED, pytest.mark.filterwarnings("ignore::ResourceWarning")]


def another_world(place, name, settings, items):
    """A second campaign of the same people, to add items of another kind to."""
    campaign = place.store.run(
        add_campaign,
        project_id=place.world.project,
        name=name,
        task_type="rank",
        guideline_id=place.world.guideline,
        overlap=1,
        settings=settings,
    )
    place.store.run(change_campaign, campaign_id=campaign.id, actor_id=None, state="open")
    world = replace(place.world, campaign=campaign.id, items=[])
    for text, more in items:
        world.add_item(text, **more)
    return world


def add_test(place):
    """A campaign whose qualification the first person has failed, with every answer explained."""
    known = {"kind": "qualification", "expected": {"one": 1, "two": 2}, "explanation": "One is **shorter**."}
    world = another_world(place, "tested", CampaignSettings(attempts=1), [("which is it?", known)])
    world.submit(world.next(0), 0, ranks(world.next(0), "two"))
    return world.campaign


def add_described(place):
    """A campaign whose responses are described before they are ranked."""
    return another_world(place, "described", CampaignSettings(attributes_first=True), [("and here?", {})]).campaign


@pytest.fixture
def pages(sqlite_store):
    """A place with something on every page, and the addresses of all of them."""
    place = Place(sqlite_store)
    place.now = now_ms()
    place.models["m@1"] = None
    place.open(items=3, people=3)
    place.world.now = place.now
    for who in (1, 2):
        for best in ("one", "two", "one"):
            place.world.submit(place.world.next(who), who, ranks(place.world.next(who), best), active_ms=40_000)

    def more(session):
        set_role(session, user_id=place.world.people[0], project_id=place.world.project, role="admin", actor_id=None)
        item = session.scalars(select(Item)).first()
        both = tuple(session.scalars(select(ItemResponse.response_id).where(ItemResponse.item_id == item.id)))
        made = {}
        for kind, count in (("pairwise", 2), ("attributes", 2), ("labels", 1), ("demonstrate", 0), ("chat", None)):
            campaign = add_campaign(
                session,
                project_id=place.world.project,
                name=kind,
                task_type=kind,
                guideline_id=place.world.guideline,
                overlap=1,
            )
            change_campaign(session, campaign_id=campaign.id, actor_id=None, state="open")
            if count is not None:
                new = NewItem(prompt_id=item.prompt_id, response_ids=both[:count])
                add_items(session, campaign_id=campaign.id, items=[new])
            made[kind] = campaign.id
        asks = {"user_id": place.world.people[0]}
        model = add_model(session, name="m", revision="1")
        talk = start_conversation(session, campaign_id=made["chat"], model_id=model.id, **asks).id
        turn = add_turn(session, conversation_id=talk, role="user", text="Which of the two?", **asks)
        two = [Candidate(model="m", text=text, finish="stopped", seconds=1.0) for text in ("This.", "**That.**")]
        hold_candidates(session, conversation_id=talk, parent_id=turn.id, found=two, **asks)
        return made, item.id, talk

    made, item, talk = place.store.run(more)
    tested, described = add_test(place), add_described(place)
    place.store.run(
        send_note, campaign_id=place.world.campaign, annotator_id=place.world.people[0], actor_id=place.world.people[0],
        text="Please **read** the part on ties.",
    )  # fmt: skip
    campaign, project = place.world.campaign, place.world.project
    rows = "".join(json.dumps({"prompt": one.first}) + "\n" for one in chats(5)).encode()
    exploring = place.app.state.studio.explorations.start(project, [Upload(name="a.jsonl", data=rows)], clusters=3)
    while exploring.running:
        time.sleep(0.1)
    found = [
        "/login",
        "/",
        "/account",
        "/help/keys",
        "/history",
        place.task_page,
        *(f"/c/{one}/task" for one in made.values()),
        f"/talk/{talk}",
        f"/c/{campaign}/guidelines",
        f"/c/{made['demonstrate']}/examples",
        f"/c/{tested}/qualify",
        f"/c/{described}/task",
        "/qualify",
        "/admin/flags",
        f"/c/{campaign}/consent",
        f"/review/{campaign}",
        f"/review/{campaign}/{item}",
        "/admin",
        f"/admin/project/{project}",
        f"/admin/campaign/{campaign}?figures",
        f"/admin/campaign/{campaign}/export",
        f"/admin/people/{project}",
        f"/admin/texts/{project}",
        f"/admin/explore/{project}",
        f"/admin/events/{project}",
        "/nothing-here",
    ]
    return place, found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("theme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)], ids=["light", "dark", "phone"]
)
def test_axe_finds_nothing_and_nothing_is_cut_off(pages, theme, width):
    from axe_playwright_python.sync_playwright import Axe

    place, addresses = pages
    trouble = []
    with launched() as browser, serving(place.app) as base:
        options = {"viewport": {"width": width, "height": 850}, "color_scheme": theme, "reduced_motion": "reduce"}
        # axe itself is put into the page by the test, which the page's own policy would rightly refuse.
        desk = Desk(browser, base, place, place.world.people[0], bypass_csp=True, **options)
        for address in addresses:
            desk.page.goto(address)
            for one in Axe().run(desk.page).response["violations"]:
                trouble.append((address, one["id"], [node["html"][:150] for node in one["nodes"][:2]]))
            wider = desk.page.evaluate("document.documentElement.scrollWidth - innerWidth")
            if wider > 0:
                trouble.append((address, "wider than the window", wider))
        desk.context.close()
    assert not trouble, "\n".join(map(str, trouble))
