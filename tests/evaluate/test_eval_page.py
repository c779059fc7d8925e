"""Evaluations in the report: every kind is drawn, runs stand side by side, text of models stays text."""

import pytest

from accord.evaluate.page.evaluations import evaluation_sections, headlines
from accord.evaluate.page.files import read_run
from evaluate.fake_run import HOSTILE, training_run, write_json, write_rows
from evaluate.test_report import page_of


def result(name, value, of="", ci=None, **more):
    return {"name": name, "of": of, "unit": "share", "value": value, "n": 40, "ci": ci, "level": 0.95, **more}


def evaluation(kind, results, figures, notes=()):
    return {"evaluation": kind, "name": kind, "notes": list(notes), "results": results, "figures": figures}


REWARD = evaluation(
    "reward",
    [result("accuracy", 0.64, ci=[0.58, 0.7]), result("the longer wins", 0.56)],
    {
        "calibration": {"confidence": [0.55, None, 0.9], "outcome": [0.5, None, 0.7], "count": [10, 0, 30]},
        "best_of_n": [
            {"n": n, "score": {"value": n / 4, "ci": None}, "gold": {"value": n / 9, "ci": [0, 1]}} for n in (1, 4)
        ],
        "scores": {"score": [0.1, 0.4, None, 2.0]},
    },
)  # fmt: skip
POINT = {"run": "ppo", "method": "ppo-clip", "step": 2, "kl": 1.0, "reward": 0.4, "ci": [0.3, 0.5]}
FRONTIER = evaluation(
    "frontier",
    [
        result("area", 0.2, "ppo-clip"),
        result("gold reward", 0.1, "reference"),
        result("gold reward", 0.4, "ppo step 2"),
    ],
    {
        "reward": "gold",
        "points": [{**POINT, "run": "reference", "kl": 0, "reward": 0.1}, POINT, {**POINT, "step": 4, "kl": 3.0}],
        "hulls": {"ppo-clip": {"kl": [0, 1.0], "reward": [0.1, 0.4]}},
        "best_of_n": [{"n": 1, "kl": 0, "reward": 0.1, "ci": None}, {"n": 4, "kl": 0.64, "reward": 0.3, "ci": None}],
        "overoptimisation": {
            "start": {"gold": 0.1, "proxy": 0},
            "curves": [{"run": "ppo", "kl": [1.0, 3.0], "gold": [0.4, 0.2], "proxy": [1, 2]}],
        },
    },
)
WINS = {"wins": [{"name": "dpo", "wins": 5, "ties": 1, "losses": 2}]}
SUSPECT = {"checkpoint": "ppo", "prompt": "p", "response": HOSTILE, "proxy": 2.0, "gold": None, "gap": 1.0}
RATINGS = [result("rating", 1000, "a"), result("rating", 1100, "b", ci=[1050, 1150])]
LENGTHS = [result("length", 3, "ppo step 2")]
KINDS = {
    "reward": (REWARD, ["calibration", "best-of-n", "scores"]),
    "frontier": (FRONTIER, ["frontier", "overoptimisation"]),
    "winrate": (evaluation("winrate", [result("win rate", 0.6)], WINS), ["wins"]),
    "preferences": (evaluation("preferences", RATINGS, {}), ["ratings"]),
    "hacking": (evaluation("hacking", LENGTHS, {"suspects": [SUSPECT]}, ["ppo: too long"]), []),
    "truthfulness": (evaluation("truthfulness", [result("MC1", 0.3)], {}), []),
}


@pytest.fixture
def run(tmp_path):
    return training_run(tmp_path / "run")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_section_and_its_charts(run, kind):
    content, charts = KINDS[kind]
    write_json(run / f"eval/{kind}.json", content)
    source, page = page_of(run)
    assert f'id="eval-{kind}"' in source
    ids = {value for _, name, value in page.attributes if name == "id"}
    assert {f"eval-{kind}-{chart}" for chart in charts} <= ids
    assert "<img" not in source


def test_the_first_result_is_a_sentence_and_hacking_says_what_it_warns_of(run):
    for kind in ("reward", "hacking"):
        write_json(run / f"eval/{kind}.json", KINDS[kind][0])
    assert headlines(read_run(run)) == [
        "hacking: ppo: too long",
        "reward: accuracy 0.640 (95% interval 0.580 to 0.700), n 40.",
    ]


def test_runs_stand_side_by_side(run, tmp_path):
    other = tmp_path / "other"
    write_json(run / "eval/reward.json", REWARD)
    write_json(other / "eval/reward.json", {**REWARD, "results": [result("accuracy", 0.7, n_unscored=3)]})
    (section,) = evaluation_sections([read_run(run), read_run(other)])
    (table,) = section.tables
    assert [label for label, _ in table.rows] == [("run", ""), ("other", "")]
    assert [name for name, _ in table.header] == ["accuracy", "the longer wins"]
    assert [cells[0].value for _, cells in table.rows] == ["0.640", "0.700"]
    assert table.rows[1][1][0].lost == "3 unscored"
    assert "other" in page_of(run, other)[1].text


def test_many_measures_of_few_subjects_are_turned(run):
    results = [result(f"m{k}", k / 10, of) for of in ("a", "b") for k in range(8)]
    write_json(run / "eval/hacking.json", evaluation("hacking", results, {}))
    (section,) = evaluation_sections([read_run(run)])
    (table,) = section.tables
    assert [name for name, _ in table.header] == ["a", "b"]
    assert table.rows[3][0] == ("m3", "share")
    assert [cell.value for cell in table.rows[3][1]] == ["0.300", "0.300"]


def test_responses_that_an_evaluation_sampled_are_browsed(run):
    rows = [
        {"stage": stage, "prompt_id": p, "prompt": "question", "response": f"{stage} answers", "gold_reward": p}
        | ({"cut": True} if p == 1 else {})
        for p in range(3)
        for stage in ("base", "ppo")
    ]
    write_json(run / "eval/frontier.json", FRONTIER)
    write_rows(run / "eval/frontier.responses.jsonl", rows)
    source, page = page_of(run)
    assert source.count('class="sample"') == 3
    assert source.count('data-cut="yes"') == 1
    assert ("input", "name", "search") in page.attributes
    assert "ppo answers" in page.text


@pytest.mark.parametrize(
    "value", [None, 5, "text", [], {"points": 3}, {"wins": [None, {"wins": "x"}]}, {"calibration": [1]}]
)
def test_odd_figures_never_crash(run, value):
    for kind, (content, _) in KINDS.items():
        write_json(run / f"eval/{kind}.json", {**content, "figures": value, "notes": None})
    page_of(run)
    for kind, (content, _) in KINDS.items():
        write_json(run / f"eval/{kind}.json", {**content, "results": [value, {"name": value, "ci": value}]})
    page_of(run)


def test_a_file_that_is_no_evaluation_is_said(run):
    (run / "eval").mkdir()
    (run / "eval/broken.json").write_text("{", encoding="utf8")
    write_json(run / "eval/list.json", [1])
    text = page_of(run)[1].text
    assert "broken.json is not valid JSON" in text
    assert "list.json is not a JSON object" in text
