"""Charts of the dashboard: marks stand where the figures beside them say, on the scale they name."""

from __future__ import annotations

import re

from feedback.worlds import ranks

WEEK = 7 * 86_400_000


def marks(page: str, identity: str) -> list[tuple[str, str, str]]:
    """(label, drawing, figure) of a chart's rows."""
    (chart,) = re.findall(rf'(?s)id="chart-{identity}".*?</dl>', page)
    return re.findall(r'(?s)<dt>(.*?)</dt><dd>(.*?)</dd><dd class="said">(.*?)</dd>', chart)


def test_marks_stand_where_the_figures_say(place):
    world = place.open(items=6, people=3, overlap=2)
    for n in range(6):
        world.add_item(f"more {n}", responses=("short", "a much longer one"))
    for _ in range(2):
        world.now += WEEK
        for who in range(3):
            for _ in range(4 - who):
                task = world.next(who)
                best = max((shown.text for shown in task.responses), key=len) if who else task.responses[0].text
                world.submit(task, who, ranks(task, best), active_ms=20_000)
    page = place.someone("admin").get(f"/admin/campaign/{world.campaign}?figures").text

    people = marks(page, "people")
    assert [said for _, _, said in people] == ["8", "6", "4"]
    assert [float(re.search(r'width="([\d.]+)" height="8"', drawn)[1]) for _, drawn, _ in people] == [100, 75, 50]

    for _, drawn, said in marks(page, "bias"):
        value = float(said.split()[0])
        assert abs(float(re.search(r'class="point" x1="([\d.]+)"', drawn)[1]) - 100 * value) <= 0.51
        assert 'x1="50.0" y1="0"' in drawn
    assert [label for label, _, _ in marks(page, "bias")][:2] == ["shown first", "longer"]

    weeks = marks(page, "time")
    assert [label for label, _, _ in weeks] == sorted(label for label, _, _ in weeks)
    for _, drawn, said in weeks:
        value = float(said.split()[0].replace("\N{MINUS SIGN}", "-"))
        assert abs(float(re.search(r'class="point" x1="([\d.]+)"', drawn)[1]) - 50 * (value + 1)) <= 0.51
    assert "style=" not in page  # the policy of the pages would drop it


def test_nothing_is_drawn_of_nothing(place):
    place.open(items=1, people=1)
    page = place.someone("admin").get(f"/admin/campaign/{place.world.campaign}?figures").text
    assert "chart-" not in page
