import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from accord.evaluate.page.files import read_run
from accord.evaluate.page.metric_names import KNOWN, describe, sort_key
from accord.evaluate.report import write_report
from accord.train.metrics import METRICS, is_known
from evaluate.fake_run import HOSTILE, evaluation_rows, quickstart_run, training_run, write_json, write_rows

VOID = {"meta", "link", "br", "input"}


class Page(HTMLParser):
    """The tags, attributes and texts of a page, as a browser would see them, and whether every tag is closed."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.attributes, self.text, self.scripts, self.open = [], [], "", [], []
        self.feed(source)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif "style" not in self.open:
            self.text += data


def page_of(run: Path, *others: Path) -> tuple[str, Page]:
    source = write_report(run, *others).read_text(encoding="utf-8")
    return source, Page(source)


@pytest.fixture
def quickstart(tmp_path):
    return quickstart_run(tmp_path / "quickstart", prompts=12)


def test_a_quickstart_shows_every_part(quickstart):
    source, page = page_of(quickstart)
    for identity in ("results", "gold", "wins", "frontier", "gold-reward", "length", "samples", "curves", "accuracy",
                     "time", "provenance"):  # fmt: skip
        assert f'id="{identity}"' in source, identity
    for word in (
        "Wins against base",
        "nats per response",
        "accord quickstart --seed 0",
        "torch 2.13.0",
        "SFT",
        "PPO",
        "DPO",
    ):
        assert word in page.text, word
    assert "No " not in page.text.split("Provenance")[-1]  # nothing is missing


def test_the_first_sentence_has_the_figures_of_the_summary(quickstart):
    stages = json.loads((quickstart / "summary.json").read_text())["stages"]
    _, page = page_of(quickstart)
    words = f"{stages['base']['gold_reward']:.2f} for the base model, {stages['sft']['gold_reward']:.2f} after SFT"
    assert words in page.text


def verdict_for(tmp_path, base, dpo):
    stages = {"base": {"gold_reward": 0.1, "gold_reward_ci": base}, "dpo": {"gold_reward": 0.3, "gold_reward_ci": dpo}}
    write_json(tmp_path / "summary.json", {"stages": stages})
    return page_of(tmp_path)[1].text


def test_what_the_intervals_allow_to_say(tmp_path):
    assert "of DPO lies above that of the base model" in verdict_for(tmp_path, [0.0, 0.2], [0.21, 0.4])
    assert "of DPO overlaps that of the base model" in verdict_for(tmp_path, [0.0, 0.2], [0.2, 0.4])
    assert "of DPO lies below that of the base model" in verdict_for(tmp_path, [0.5, 0.6], [0.2, 0.4])
    assert "lies" not in verdict_for(tmp_path, [None, None], [0.2, 0.4])


def test_wins_ties_and_losses_by_hand(tmp_path):
    """DPO wins p1, ties p2, loses p3; p4 has no reward and counts nowhere."""
    gold = {"base": [0.1, 0.2, 0.3, 0.0], "dpo": [0.2, 0.2, 0.1, None]}
    rows = [
        {"stage": stage, "prompt_id": f"p{i}", "prompt": "x", "response": "y", "gold_reward": value}
        for stage, values in gold.items()
        for i, value in enumerate(values)
    ]
    write_rows(tmp_path / "evaluation.jsonl", rows)
    source, page = page_of(tmp_path)
    assert 'aria-describedby="wins-wide-desc"' in source
    assert "DPO: 1 wins, 1 ties, 1 losses." in page.text
    assert "1 of 8 held-out responses (12%) have no gold reward" in page.text


def test_everything_missing_is_said_and_nothing_crashes(tmp_path):
    write_rows(tmp_path / "metrics.jsonl", [{"step": 1, "loss": 2.5}])
    _, page = page_of(tmp_path)
    assert "No manifest.json" in page.text
    assert "No samples.jsonl" in page.text
    assert "No summary.json" not in page.text  # a single training run never has one


def test_damaged_files_are_said_and_the_rest_is_shown(quickstart):
    (quickstart / "summary.json").write_text('{"stages": ')
    (quickstart / "frontier.json").write_text("[1, {}]")
    with (quickstart / "sft/metrics.jsonl").open("a") as file:
        file.write('{"step": 61, "lo')
    source, page = page_of(quickstart)
    assert "summary.json is not valid JSON and was left out." in page.text
    assert "1 of 2 rows of frontier.json could not be read" in page.text
    assert "In sft: 1 of 66 rows of metrics.jsonl could not be read" in page.text
    assert 'id="wins"' in source


ODD = [None, True, "text", [], {}, [1, 2, 3], -1, 0, 1e308, 10**400, math.nan, math.inf, 1e-300, 1e16]


@pytest.mark.parametrize("odd", ODD, ids=lambda value: str(value)[:12])
def test_odd_values_never_crash(tmp_path, odd):
    row = {"gold_reward": odd, "gold_reward_ci": odd, "kl": odd, "win_rate_vs_base": odd, "mean_length": odd, "n": odd}
    accuracy = {"accuracy": odd, "longer_wins_accuracy": odd, "n": odd}
    summary = {"stages": {"base": row, "dpo": row, "odd": odd}, "seconds": {"sft": odd}, "peak_memory_gb": odd,
               "reward_model": accuracy, "model": odd, "seed": odd}  # fmt: skip
    write_json(tmp_path / "summary.json", summary)
    responses = [{"stage": stage, "prompt_id": odd, "prompt": odd, "response": odd, "length": odd} | row
                 for stage in ("base", odd)]  # fmt: skip
    write_rows(tmp_path / "evaluation.jsonl", [*responses, {}])
    write_json(tmp_path / "frontier.json", [row | {"run": odd, "step": odd}, {}])
    write_json(
        tmp_path / "manifest.json", {"versions": odd, "data": [odd, {"rows": odd}], "command": odd, "parameters": odd}
    )
    write_rows(tmp_path / "ppo/metrics.jsonl", [{"step": odd, "loss": odd, "seconds": odd}, {"step": 2, "loss": 1.0}])
    write_rows(tmp_path / "samples.jsonl", [{"prompt": odd, "response": odd, "step": odd, "reward": odd}, {}])
    page_of(tmp_path)


@pytest.mark.parametrize(
    "name", ["summary.json", "manifest.json", "frontier.json", "evaluation.jsonl", "samples.jsonl"]
)
@pytest.mark.parametrize("content", ["", "null", "3", "[]", "\x00\xff", '{"stages": []}', "[" * 5000])
def test_odd_files_never_crash(tmp_path, name, content):
    write_rows(tmp_path / "metrics.jsonl", [{"step": 1, "loss": 2.5}])
    (tmp_path / name).write_text(content, encoding="latin-1")
    (tmp_path / "config.yaml").write_text("a: [")
    page_of(tmp_path)


@pytest.fixture
def hostile(tmp_path):
    """Every text of a run is an attack: prompts, responses, metric and stage names, manifest, settings, folder."""
    run = quickstart_run(tmp_path / "<img src=x onerror=alert(1)>", prompts=3)
    rows = evaluation_rows(3, np.random.default_rng(0))
    attack = {"prompt": HOSTILE, "response": HOSTILE, "prompt_id": HOSTILE}
    write_rows(run / "evaluation.jsonl", [row | attack for row in rows] + [rows[0] | attack | {"stage": HOSTILE}])
    inner = run / HOSTILE.translate({ord(letter): None for letter in "/\0\ud800"})
    write_rows(inner / "metrics.jsonl", [{"step": 1, HOSTILE: 1}])
    write_rows(run / "sft/metrics.jsonl", [{"step": 1, HOSTILE: 1.0, "loss": 2}, {"step": 2, HOSTILE: 2.0, "loss": 1}])
    write_json(run / "manifest.json", {"command": HOSTILE, "model": HOSTILE, HOSTILE: {HOSTILE: HOSTILE}})
    write_json(run / "frontier.json", [{"run": HOSTILE, "kl": 1, "gold_reward": 1, "step": 1}])
    summary = json.loads((run / "summary.json").read_text())
    summary["stages"][HOSTILE] = summary["stages"]["dpo"]
    write_json(run / "summary.json", summary | {"model": HOSTILE, "seconds": {HOSTILE: 3.0}})
    (run / "config.yaml").write_text(json.dumps({"model": HOSTILE}))
    return run


def test_text_of_models_stays_text(hostile):
    clean = page_of(quickstart_run(hostile.parent / "clean", prompts=3))[1]
    source, page = page_of(hostile)
    assert set(page.tags) <= set(clean.tags)
    assert page.tags.count("script") == 2
    assert "<img" not in source
    assert "\ud800" not in source
    assert "onerror" not in {name for _, name, _ in page.attributes}
    assert "<img src=x onerror=" in page.text  # it is shown, as text
    assert "{{7*7}}" in page.text  # and never evaluated


def test_embedded_data_cannot_end_its_script(tmp_path):
    """Run names are the only text of a user in the data of the charts; `<!--<script>` is the classic way out."""
    name = "<!--<script>&'\u2028"
    source, page = page_of(training_run(tmp_path / name), training_run(tmp_path / "other"))
    embedded = source.split('id="chart-data">')[1].split("</script>")[0]
    assert not set(embedded) & set("<>&'\u2028\u2029")
    assert f"{name}, training" in {line["name"] for chart in json.loads(embedded).values() for line in chart["series"]}
    assert len(page.scripts) == 2


def test_the_page_asks_for_nothing_and_allows_nothing(quickstart):
    source, page = page_of(quickstart)
    policy = next(
        value for tag, name, value in page.attributes if tag == "meta" and name == "content" and "src" in value
    )
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "http" not in policy
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name != "style", tag  # the policy would refuse it
        if name in ("src", "href"):
            assert value == "data:," or value.startswith("#"), (tag, value)
    assert "url(" not in source
    assert "@import" not in source


def test_policy_names_the_style_and_the_script(quickstart):
    source, _ = page_of(quickstart)
    for pattern, directive in ((r"<style>(.*?)</style>", "style-src"), (r"<script>(.*?)</script>", "script-src")):
        digest = hashlib.sha256(re.search(pattern, source, re.DOTALL)[1].encode()).digest()
        assert f"{directive} &#39;sha256-{base64.b64encode(digest).decode()}&#39;" in source.replace("&#x27;", "&#39;")


def test_every_drawing_has_words_and_ids_are_unique(quickstart):
    source, page = page_of(quickstart)
    identities = [value for _, name, value in page.attributes if name == "id"]
    assert len(identities) == len(set(identities))
    for _, name, value in page.attributes:
        if name in ("aria-labelledby", "aria-describedby"):
            assert value in identities
    assert page.tags.count("title") - 1 == page.tags.count("desc") == source.count('role="img"')


def test_other_runs_are_drawn_over_the_first(tmp_path):
    first, second = training_run(tmp_path / "first"), training_run(tmp_path / "second", seed=1)
    source, page = page_of(first, second)
    assert not (second / "report.html").exists()
    charts = json.loads(source.split('id="chart-data">')[1].split("</script>")[0])
    names = {series["name"] for chart in charts.values() for series in chart["series"]}
    assert names == {"first, training", "first, held-out", "second, training", "second, held-out"}
    assert "Runs compared" in page.text
    assert "--seed 1" in page.text


def test_what_cannot_be_drawn_beside_a_run_is_said(tmp_path):
    run, other = quickstart_run(tmp_path / "quickstart", prompts=3), training_run(tmp_path / "other")
    assert "other is a run of another kind" in page_of(run, other)[1].text
    many = [training_run(tmp_path / f"many-{seed}", seed=seed) for seed in range(6)]
    assert "Curves are drawn for the first 4 of 5 other runs." in page_of(*many)[1].text
    assert "another kind" not in page_of(run, quickstart_run(tmp_path / "second", prompts=3, seed=1))[1].text


def test_an_older_report_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path):
    run = training_run(tmp_path / "run")
    before = {path.name for path in run.iterdir()}
    (run / "report.html").write_text("old")
    assert write_report(run) == run / "report.html"
    assert (run / "report.html").read_text() != "old"
    assert {path.name for path in run.iterdir()} == before | {"report.html"}


def test_a_failure_leaves_the_older_report(tmp_path, monkeypatch):
    run = training_run(tmp_path / "run")
    (run / "report.html").write_text("old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_report(run)
    assert (run / "report.html").read_text() == "old"
    assert not list(run.glob(".report*"))


def test_folders_without_a_run_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is no folder; expected a run folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds nothing to report; expected one of"):
        write_report(tmp_path)


def test_a_continued_run_counts_each_step_once(tmp_path):
    rows = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 9.0}, {"step": 2, "loss": 2.0}, {"step": 3, "loss": math.nan}]
    write_rows(tmp_path / "metrics.jsonl", rows)
    curve = read_run(tmp_path).curves["loss"]
    assert curve.points == ((1.0, 3.0), (2.0, 2.0))
    assert curve.lost == 1
    assert "Left out: 1 value that" in page_of(tmp_path)[1].text


def test_every_metric_of_a_training_job_has_a_title_and_a_unit():
    names = {name.removeprefix("eval/") for name in METRICS} - {"step", "epoch", "seconds"}
    assert names - KNOWN.keys() == set()
    assert KNOWN.keys() - names == set()
    assert all(name.title and name.unit for name in KNOWN.values())


def test_figures_of_which_a_run_has_several_have_a_title_each():
    assert describe("reward/source/helpful").title == "Reward, source helpful"
    assert describe("reward/source/a/b").unit == "deviations"
    assert sort_key("reward/source/a")[0] == sort_key("reward/source/b")[0] < sort_key("unheard of")[0]
    assert is_known("reward/source/helpful")
    assert not is_known("reward/source/")
    assert not is_known("reward/sources")


def test_a_long_run_stays_small(tmp_path):
    steps = [{"step": i, "loss": math.sin(i) + 5, "grad_norm": math.cos(i)} for i in range(20_000)]
    write_rows(tmp_path / "metrics.jsonl", steps)
    assert write_report(tmp_path).stat().st_size < 120_000


def test_many_prompts_and_long_texts_are_cut_and_said(tmp_path):
    rows = [{"stage": "base", "prompt_id": i, "prompt": f"prompt {i}", "response": "x" * 20_000} for i in range(250)]
    write_rows(tmp_path / "evaluation.jsonl", rows)
    _, page = page_of(tmp_path)
    assert "The first 200 of 250 prompts are here" in page.text
    assert "(20,000 characters in all)" in page.text
    assert "prompt 200" not in page.text


def test_conversations_show_their_turns(tmp_path):
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    write_rows(tmp_path / "samples.jsonl", [{"step": 1, "prompt": prompt, "response": "Because.", "reward": 0.5}])
    _, page = page_of(tmp_path)
    for text in ("system", "Be brief.", "user", "Why?", "Because."):
        assert text in page.text
