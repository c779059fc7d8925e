import pytest

from accord.data.self_instruct.filters import bad_instruction, keep_instances
from accord.data.self_instruct.layouts import WITH_INPUT, WITHOUT_INPUT, prompt_of
from accord.data.self_instruct.report import verb_and_noun
from accord.data.self_instruct.seeds import Instance
from accord.overlap import Novelty


@pytest.fixture
def pool():
    made = Novelty(0.7)
    made.add("Name three rivers of Europe and their sources.")
    return made


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Name three rivers", "too short"),
        ("word " * 151, "too long"),
        ("Describe the picture in your own words.", "blocked word"),
        ("Go to the shop and come back.", "blocked word"),
        ("Describe a photograph or a cartograph in words.", ""),
        ("Explain how profiles and mapping differ.", ""),  # no blocked word stands inside another
        ("Write a program that adds numbers.", "asks for a program"),
        ("- list of all the kings", "begins with punctuation"),
        ("\u00c9cris un po\u00e8me sur la mer.", ""),  # any letter may begin
        ("Name three rivers of Europe and sources.", "too close to a known one"),
        ("Name two lakes of Africa and their islands.", ""),
    ],
)
def test_instruction_filters(pool, text, reason):
    found, near = bad_instruction(text, pool)
    assert found == reason
    if reason in ("", "too close to a known one"):
        assert near[0][1] == 0 if near else True


def test_the_order_of_the_filters(pool):
    assert bad_instruction("Picture it", pool)[0] == "too short"
    assert bad_instruction("Write a program that draws a map", pool)[0] == "blocked word"


def test_instance_filters():
    instances = [
        Instance("a", "b"),
        Instance("a", "b"),
        Instance("x", "x"),
        Instance("", ""),
        Instance("c", "d:"),
        Instance("e", "1"),
        Instance("e", "2"),
        Instance("see https://x.org", "f"),
        Instance("", "N/A"),
        Instance("", "one"),
        Instance("", "two"),
        Instance("g", "h"),
    ]
    kept, rejected = keep_instances("Do it.", instances, 3)
    assert kept == [Instance("a", "b"), Instance("", "one"), Instance("", "two")]  # the empty input may have several
    assert [reason for _, reason in rejected] == [
        "repeated",
        "input equals output",
        "empty output",
        "ends with a colon",
        "same input, different outputs",
        "same input, different outputs",
        "needs an address or an attachment",
        "empty output",
        "more than asked for",
    ]
    assert keep_instances("Sum up the attached letter.", [Instance("", "ok")], 5)[0] == []


def test_layouts_are_drawn_and_half_have_single_line_ends():
    assert (len(WITH_INPUT), len(WITHOUT_INPUT)) == (7, 6)
    made = [prompt_of("Add.", Instance("1 2", "3"), 0, n) for n in range(600)]
    assert len(set(made)) == 13  # 7 as they stand, 6 collapsed: two of them are alike then
    assert all("Add." in prompt and "1 2" in prompt for prompt in made)
    assert sum("\n\n" in prompt for prompt in made) / 600 == pytest.approx(0.5, abs=0.06)
    assert prompt_of("Add.", Instance("1 2", "3"), 0, 5) == made[5]


def test_verbs_and_nouns():
    assert verb_and_noun("Write a short poem about rain.") == ("write", "poem")
    assert verb_and_noun("Why?") is None
