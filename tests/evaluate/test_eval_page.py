"""Evaluations in the report: every kind is drawn, runs stand side by side, text of models stays text."""

import re

import pytest

from accord.evaluate.page.distributions import histogram_figures, win_figure
from accord.evaluate.page.eval_charts import charts_of
from accord.evaluate.page.evaluations import evaluation_sections, headlines
from accord.evaluate.page.files import read_run
from accord.evaluate.page.parts import stage_name
from accord.evaluate.page.samples import compare_stages
from accord.evaluate.page.svg import stage_styles
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
LENGTHS = [result("length", 3, "ppo step 2"), result("proxy reward", 1, "ppo step 2", ci=[0, 2])]
TOXIC = [result("expected maximum toxicity", 0.2, of) for of in ("all prompts", "toxic prompts")]
SCORER = {"bins": {"score": [0.1, 0.6], "published": [0.2, 0.7]}, "map": {"x": [0, None, 1], "y": [0.1, 0.3, 0.9]}}
TAX = [result(name, 0.5, of) for of in ("task rte", "task cb") for name in ("after less before", "before", "after")]
KINDS = {
    "reward": (REWARD, ["calibration", "best-of-n", "scores"]),
    "frontier": (FRONTIER, ["frontier", "overoptimisation"]),
    "winrate": (evaluation("winrate", [result("win rate", 0.6)], WINS), ["wins"]),
    "preferences": (evaluation("preferences", RATINGS, {}), ["ratings"]),
    "hacking": (evaluation("hacking", LENGTHS, {"suspects": [SUSPECT]}, ["ppo: too long"]), ["length"]),
    "truthfulness": (evaluation("truthfulness", [result("MC1", 0.3), result("MC2", 0.4)], {}), ["shares"]),
    "toxicity": (evaluation("toxicity", TOXIC, {"scorer": SCORER}), ["shares", "scorer"]),
    "tasks": (evaluation("tasks", TAX, {}), ["shares", "tax"]),
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
    assert [label for label, _ in table.rows] == [("run", "n 40"), ("other", "n 40")]
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


def shown_kinds(run):
    page_of(run)
    return {section.identity.removeprefix("eval-") for section in evaluation_sections([read_run(run)])}


@pytest.mark.parametrize(
    "value", [None, 5, "text", [], {"points": 3}, {"wins": [None, {"wins": "x"}]}, {"calibration": [1]}]
)
def test_odd_figures_never_crash(run, value):
    for kind, (content, _) in KINDS.items():
        write_json(run / f"eval/{kind}.json", {**content, "figures": value, "notes": None})
    assert shown_kinds(run) == set(KINDS)
    for kind, (content, _) in KINDS.items():
        write_json(run / f"eval/{kind}.json", {**content, "results": [value, {"name": value, "ci": value}]})
    assert shown_kinds(run) == set(KINDS)


def test_changes_of_several_runs_say_whose_they_are(run, tmp_path):
    other = training_run(tmp_path / "other")
    for one in (run, other):
        write_json(one / "eval/tasks.json", evaluation("tasks", [result("after less before", 0.1, "copa")], {}))
    (section,) = evaluation_sections([read_run(run), read_run(other)])
    drawings = "".join(str(figure.drawing) for figure in section.figures)
    assert "run: copa" in drawings
    assert "other: copa" in drawings


def test_a_file_that_is_no_evaluation_is_said(run):
    (run / "eval").mkdir()
    (run / "eval/broken.json").write_text("{", encoding="utf8")
    write_json(run / "eval/list.json", [1])
    text = page_of(run)[1].text
    assert "broken.json is not valid JSON" in text
    assert "list.json is not a JSON object" in text


def test_on_a_page_of_several_runs_it_says_whose_an_evaluation_is(run, tmp_path):
    other = training_run(tmp_path / "other")
    write_json(other / "eval/toxicity.json", KINDS["toxicity"][0])
    write_json(run / "eval/frontier.json", FRONTIER)
    runs = [read_run(run), read_run(other)]
    intros = {section.identity: section.intro for section in evaluation_sections(runs)}
    assert intros["eval-toxicity"].endswith("Only other has this evaluation.")
    assert intros["eval-frontier"].endswith("This evaluation lies in run.")
    assert "has this" not in evaluation_sections(runs[1:])[0].intro


def test_rows_say_of_how_many_observations_they_are(run):
    results = [result("m", 0.1, "a"), result("m", 0.2, "b") | {"n": 7}, result("k", 0.3, "b")]
    write_json(run / "eval/tasks.json", evaluation("tasks", results, {}))
    ((table,),) = (section.tables for section in evaluation_sections([read_run(run)]))
    assert [label for label, _ in table.rows] == [("a", "n 40"), ("b", "n 7 to 40")]


def test_a_run_looks_the_same_in_every_figure(run):
    """Responses of base, dpo and two others: wins, spread, samples, reward against KL, proxy and gold."""
    rows = [
        {"stage": stage, "prompt_id": 0, "prompt": "p", "response": "r", "gold_reward": k, "length": 3}
        for k, stage in enumerate(("reference", "ppo-0.1", "ppo-0.2", "dpo"))
    ]
    write_rows(run / "eval/frontier.responses.jsonl", rows)
    (run / "evaluation.jsonl").unlink(missing_ok=True)
    points = [POINT | {"run": name} for name in ("reference", "ppo-0.1", "ppo-0.2", "dpo")]
    curves = [{"run": name, "kl": [1.0], "gold": [1], "proxy": [2]} for name in ("ppo-0.1", "ppo-0.2", "dpo")]
    figures = {"points": points, "overoptimisation": {"start": {"gold": 0, "proxy": 0}, "curves": curves}}
    write_json(run / "eval/frontier.json", evaluation("frontier", [result("area", 0.2)], figures))
    found = read_run(run)
    looks = stage_styles(["reference", "ppo-0.1", "ppo-0.2", "dpo"])
    assert len(set(looks.values())) == 4
    answers = compare_stages(found.evaluation).shown[0].answers
    assert {a.label: a.style for a in answers} == {stage_name(name): look for name, look in looks.items()}
    drawn = win_figure(found.evaluation)
    assert drawn.title == "Wins against the reference"
    for figure in charts_of("frontier", "f", [("run", *found.evaluations)]):
        for name in ("ppo-0.1", "ppo-0.2", "dpo"):
            worn = re.findall(rf'<g class="([\w-]+)"><text[^>]*>{name}', figure.drawing)
            assert set(worn) == {looks[name].css}, (figure.title, name)
    for figure in (drawn, *histogram_figures(found.evaluation)):
        assert "c-sft" not in figure.drawing  # nobody is left to wear it
    assert stage_styles(["dpo", "ppo-0.1", "base", "ppo-0.2"])["ppo-0.2"] == looks["ppo-0.2"]


def test_two_runs_of_one_name_are_told_apart(tmp_path):
    for seed in ("seed-0", "seed-1"):
        training_run(tmp_path / seed / "ppo")
    text = page_of(tmp_path / "seed-0/ppo", tmp_path / "seed-1/ppo")[1].text
    assert "seed-0/ppo" in text
    assert "seed-1/ppo" in text
