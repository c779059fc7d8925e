"""The map in a real browser: drawn, filtered, selected with a lasso, made a campaign; and nothing complains."""

from __future__ import annotations

import json
import re

import pytest
from sqlalchemy import func, select

from accord.feedback.explore import explore, write_exploration
from accord.feedback.store.tables import Item
from feedback.explore.test_explorer import HOSTILE, chats, log
from feedback.studio.browsers import NEEDED, Desk, launched, serving

pytestmark = NEEDED


@pytest.fixture(scope="module")
def browser():
    with launched() as found:
        yield found


def count(page):
    return int(re.match(r"([\d,]+) of", page.inner_text("#atlas-count"))[1].replace(",", ""))


def drawn(page):
    """Pixels of the map that are not empty."""
    return page.evaluate(
        "() => { const c = document.getElementById('atlas-canvas'), pen = c.getContext('2d');"
        " return pen.getImageData(0, 0, c.width, c.height).data.filter((v, n) => n % 4 === 3 && v).length }"
    )


def settle(page):
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def lasso(page):
    """Around the left half of the map."""
    page.click("#atlas-lasso")
    box = page.locator("#atlas-canvas").bounding_box()
    corners = [(0.02, 0.12), (0.5, 0.12), (0.5, 0.98), (0.02, 0.98), (0.02, 0.14)]
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=4)
    page.mouse.up()


def test_the_file_opens_offline_and_filters(browser, tmp_path):
    found = explore([*chats(), log(HOSTILE, "h")], clusters=3)
    path = write_exploration(found, tmp_path)["explore.html"]
    complaints, requests = [], []
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    settle(page)
    assert count(page) == 61
    assert drawn(page) > 500
    page.fill("[name=words]", "bread")
    with_bread = sum("bread" in one.first for one in chats())
    assert count(page) == page.locator("#sample-table tbody tr").count() == with_bread
    page.click("text=Clear")
    page.wait_for_function("document.getElementById('atlas-count').textContent.startsWith('61 of')")
    page.locator("#cluster-table .pick").first.click()
    assert count(page) == found.clusters[0].size
    page.click("text=Clear")
    lasso(page)
    assert 5 < count(page) < 56
    with page.expect_download() as download:
        page.click("#atlas-save")
    rows = [json.loads(line) for line in download.value.path().read_text(encoding="utf8").splitlines()]
    assert len(rows) == count(page)
    page.focus("#atlas-canvas")
    before = page.evaluate("document.getElementById('atlas-canvas').toDataURL()")
    page.keyboard.press("+")
    page.keyboard.press("ArrowLeft")
    settle(page)
    assert page.evaluate("document.getElementById('atlas-canvas').toDataURL()") != before
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "blob:"))] == []
    page.close()


def test_from_an_upload_to_a_campaign_of_a_selection(browser, place):
    world = place.open(items=0, people=0)
    admin = place.someone("admin")
    with serving(place.app) as base:
        desk = Desk(browser, base, place, admin.user_id)
        page = desk.page
        page.goto(f"/admin/explore/{world.project}")
        rows = "\n".join(json.dumps({"id": one.id, "prompt": one.first}) for one in chats())
        page.set_input_files("[name=files]", {"name": "chats.jsonl", "mimeType": "text/plain", "buffer": rows.encode()})
        page.click("text=Explore >> nth=-1")
        page.wait_for_selector("#atlas-canvas", timeout=60_000)
        settle(page)
        assert drawn(page) > 500
        lasso(page)
        chosen = count(page)
        assert 5 < chosen < 55
        page.fill("[name=name]", "left half")
        page.fill("[name=items]", "50")
        page.click("text=Make the campaign")
        page.wait_for_url("**/admin/campaign/**")
        campaign = page.url.partition("/campaign/")[2].partition("?")[0]
        items = place.store.read(lambda s: s.scalar(select(func.count()).where(Item.campaign_id == campaign)))
        assert items == min(chosen, 50)
        assert desk.complaints == []
