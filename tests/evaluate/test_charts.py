import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.evaluate.page.curves_xy import Axes, Line, xy_chart
from accord.evaluate.page.lines import Series, line_chart, running_mean, thinned
from accord.evaluate.page.plots import Dot, Histogram, histograms, intervals
from accord.evaluate.page.results import duration
from accord.evaluate.page.svg import Scale, fixed, format_number, padded, stage_style, tag, ticks

MINUS = "\u2212"


def test_tags_escape_text_and_attributes():
    assert (
        tag("text", "<b>&", data_tip='"x"', class_="a")
        == '<text data-tip="&#34;x&#34;" class="a">&lt;b&gt;&amp;</text>'
    )


def test_scale_by_hand():
    assert Scale(0, 10, 100, 200)(5) == 150.0
    assert Scale(0, 10, 200, 100)(2.5) == 175.0  # y grows downwards


def test_ticks_by_hand():
    assert ticks(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(-0.55, 0.55, 2) == [-0.5, 0, 0.5]
    assert ticks(3, 3) == [3]


@given(st.floats(-1e9, 1e9), st.floats(1e-9, 1e9), st.integers(2, 12))
def test_ticks_are_few_rising_and_inside(low, width, count):
    low, high = padded([low, low + width])
    values = ticks(low, high, count)
    assert values == sorted(set(values))
    assert len(values) <= 2.5 * count + 1
    margin = 1e-6 * max(abs(low), abs(high), high - low)
    assert all(low - margin <= value <= high + margin for value in values)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "\u2013"),
        (0.0, "0"),
        (2e-5, "2e\u22125"),
        (-0.5, f"{MINUS}0.5"),
        (12345.6, "12,346"),
        (0.123456, "0.123"),
    ],
)
def test_numbers_as_people_write_them(value, words):
    assert format_number(value) == words


def test_fixed_decimals():
    assert [fixed(value) for value in (-0.126, 12.34, 1234.5)] == [f"{MINUS}0.13", "12.3", "1,234"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(2.34, "2.3 s"), (41, "41 s"), (59.7, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_an_interval_is_drawn_where_it_lies():
    """Value 0.5 in the middle of 0..1: the marker stands in the middle of its line."""
    drawing = intervals("x", "t", "u", [Dot(name="a", style=stage_style("base"), value=0.5, ci=(0.0, 1.0))], 520)
    line = re.search(r'<line x1="([\d.]+)" x2="([\d.]+)"[^>]*class="whisker"', drawing)
    centre = float(re.search(r'<circle cx="([\d.]+)"', drawing)[1])
    assert centre == pytest.approx((float(line[1]) + float(line[2])) / 2, abs=0.11)
    assert float(line[1]) < float(line[2])


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_a_histogram_counts_every_value_once(values):
    drawing = histograms("x", "t", "u", [Histogram(name="a", style=stage_style("base"), values=values)], 520)
    assert sum(int(count) for count in re.findall(r"a: (\d+) of", drawing)) == len(values)


def test_thinning_keeps_spikes_and_ends_in_order():
    points = [(float(i), 100.0 if i == 777 else 0.0) for i in range(5000)]
    kept = thinned(points)
    assert len(kept) <= 240
    assert (777.0, 100.0) in kept
    assert kept == sorted(kept)


def test_running_mean_of_a_constant_and_of_a_line():
    assert [value for _, value in running_mean([(i, 3.0) for i in range(50)])] == [3.0] * 50
    assert running_mean([(i, float(i)) for i in range(50)])[25] == (25, 25.0)


def test_a_smooth_schedule_is_drawn_once():
    schedule = Series(name="training", points=[(i, i / 100) for i in range(100)], css="c-sft")
    noise = Series(name="training", points=[(i, i % 2) for i in range(100)], css="c-sft")
    assert not line_chart("a", "t", "u", [schedule]).smoothed
    assert line_chart("a", "t", "u", [noise]).smoothed


def test_one_point_is_a_chart():
    assert "<circle" in line_chart("a", "t", "u", [Series(name="n", points=[(1, 2.0)], css="c-sft")]).svg


def test_tiny_figures_are_not_zero_with_a_sign():
    assert fixed(-0.0021) == "\u22120.0021"
    assert fixed(0.0) == "0.00"
    assert fixed(-0.006) == "\u22120.01"


def test_names_of_lines_lie_on_no_point_of_another_line():
    """Two lines that end beside each other: a name above one would cover the end of the other."""
    look = stage_style("ppo")
    lines = [
        Line(name="longer name", style=look, points=[(0.0, 0.0, None, ""), (1.0, 1.0, None, "")]),
        Line(name="b", style=look, points=[(0.0, 0.0, None, ""), (0.9, 1.06, None, "b end")]),
    ]
    drawing = xy_chart("x", "t", Axes(x="x", y="y"), lines, 520)
    (name,) = re.findall(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*>longer name', drawing)
    (point,) = re.findall(r'<polygon points="([\d.]+),([\d.]+)[^"]*"[^>]*data-tip="b end"', drawing) or [(0, 0)]
    right, baseline = map(float, name)
    left = right - 8 * len("longer name")
    assert not (left < float(point[0]) < right and baseline - 16 < float(point[1]) < baseline + 6)
