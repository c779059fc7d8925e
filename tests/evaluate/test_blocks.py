from accord.evaluate.blocks import blocks, interval_in_words, number_in_words


def row(name, of="", value=0.5, **more):
    return {"name": name, "of": of, "unit": "share", "value": value, "n": 4, **more}


def test_subjects_that_share_their_measures_are_one_table():
    rows = [row("reward", "reference"), *(row(name, f"step {n}") for n in (1, 2) for name in ("reward", "KL"))]
    (table,) = blocks(rows)
    assert list(table.measures) == ["reward", "KL"]  # in the order of those who have them all
    assert [label for label, _ in table.rows] == ["reference", "step 1", "step 2"]
    assert "KL" not in table.rows[0][1]


def test_a_single_subject_and_the_whole_are_a_list_that_stays_together():
    rows = [row("accuracy"), row("longer"), row("ece", "calibration"), row("brier", "calibration")]
    (plain,) = blocks(rows)
    assert not plain.measures
    assert [label for label, _ in plain.rows] == ["accuracy", "longer", "calibration: ece", "calibration: brier"]


def test_subjects_of_other_measures_begin_another_table():
    rows = [row("rating", "a"), row("rating", "b"), row("ece", "x"), row("ece", "y")]
    assert [list(block.measures) for block in blocks(rows)] == [["rating"], ["ece"]]


def test_numbers_in_words():
    assert [number_in_words(x) for x in (0.51234, -12.345, 123.45, 0.0, 2e-7)] == [
        "0.512", "\u221212.35", "123.5", "0.000", "2.0e\u221207",
    ]  # fmt: skip
    assert [number_in_words(x) for x in (0, -3, 12345)] == ["0", "\u22123", "12,345"]
    assert {number_in_words(x) for x in (None, True, "1", float("nan"), float("inf"))} == {"\u2013"}
    assert interval_in_words(row("a", ci=[0.1, 0.9])) == "0.100 to 0.900"
    assert interval_in_words(row("a", ci=[None, None])) == interval_in_words(row("a")) == ""
