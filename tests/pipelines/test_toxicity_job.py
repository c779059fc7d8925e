"""`accord eval toxicity`: scorers, their cards, and the protocol on a scripted model."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from accord.pipelines.evaluation import perform
from accord.pipelines.evaluation_configs import ToxicityConfig
from accord.pipelines.settings import SettingsError
from accord.pipelines.toxicity import run
from accord.pipelines.toxicity_scorers import check, open_scorer, ranking, scored_texts, train
from accord.protocols import Reply
from accord.train.progress import Quiet
from fakes import Scripted


def rude(texts: Sequence[str]) -> list[float | None]:
    """A scorer: .9 for texts with a rude word, None for those it cannot read."""
    return [None if "?" in text else 0.9 if "fool" in text else 0.1 for text in texts]


@pytest.fixture
def by_words(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(sys.modules, "rude_words", sys.modules[__name__])
    return "rude_words:rude"


def prompts(path: Path) -> Path:
    rows = [{"prompt": f"Text {i}", "prompt_toxicity": 0.9 if i < 2 else 0.1} for i in range(5)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def measure(tmp_path: Path, model: Scripted, scorer: str, **more: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"model": "m", "data": prompts(tmp_path / "p.jsonl"), "scorer": scorer, "samples": 2}
    config = ToxicityConfig(**settings | {"batch_size": 2} | more)
    outcome = perform("toxicity", config, tmp_path / "run", lambda c, items, d: run(c, items, d, model), Quiet())
    return {f"{named.name}, {named.of}": named.result for named in outcome.results}


def test_the_three_figures_by_hand(tmp_path: Path, by_words: str) -> None:
    said = iter(["you fool", "nice", "fool", "fool", *["nice"] * 6])
    found = measure(tmp_path, Scripted(lambda prompt: next(said)), by_words)
    assert found["expected maximum toxicity, all prompts"].value == pytest.approx((0.9 + 0.9 + 3 * 0.1) / 5)
    assert found["toxicity probability, all prompts"].value == pytest.approx(2 / 5)
    assert found["toxic fraction, all prompts"].value == pytest.approx(3 / 10)
    assert found["toxicity probability, toxic prompts"].value == 1.0
    assert found["toxicity probability, other prompts"].value == 0.0
    assert found["toxic fraction, all prompts"].detail["samples"] == 2


def test_a_lost_continuation_costs_the_prompt_and_is_asked_for_again(tmp_path: Path, by_words: str) -> None:
    lost = Reply(text="", finish="error", prompt_tokens=0, new_tokens=0, seconds=0.0, error="gone")
    found = measure(tmp_path, Scripted(lambda prompt: lost if prompt == "Text 1" else "fool"), by_words)
    result = found["expected maximum toxicity, all prompts"]
    assert (result.n, result.n_unscored, result.value) == (4, 1, pytest.approx(0.9))
    again = Scripted(lambda prompt: "fool")
    assert measure(tmp_path, again, by_words)["expected maximum toxicity, all prompts"].n == 5
    assert set(again.asked) == {"Text 1"}


def test_a_scorer_without_an_answer_is_unscored(tmp_path: Path, by_words: str) -> None:
    found = measure(tmp_path, Scripted(lambda prompt: "what?" if prompt == "Text 0" else "nice"), by_words)
    assert found["toxic fraction, all prompts"].n_unscored == 1


def test_another_threshold_reads_the_same_samples(tmp_path: Path, by_words: str) -> None:
    measure(tmp_path, Scripted(lambda prompt: "nice"), by_words)
    silent = Scripted(lambda prompt: pytest.fail("asked again"))
    measure(tmp_path, silent, by_words, threshold=0.05)
    assert silent.asked == []


def test_instructions_and_chat(tmp_path: Path, by_words: str) -> None:
    model = Scripted(lambda prompt: "nice")
    measure(tmp_path, model, by_words, instruction="respectful", chat=True)
    (message,) = model.asked[0]
    assert message.role == "user"
    assert "polite" in message.content
    assert message.content.endswith("Text 0")
    assert model.samplings[0].top_p == 0.9
    assert model.samplings[0].max_new_tokens == 20


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "a", "continuation": "b", "prompt_toxicity": 0.2, "cont_toxicity": None}, [("a", 0.2)]),
        ({"text": "a", "toxicity_score": 5.0}, [("a", 1.0)]),
        ({"text": "a", "annotators": "4", "votes_hate": "1", "votes_offensive": "2"}, [("a", 0.75)]),
        ({"text": "a", "is_toxic": "Not Toxic"}, [("a", 0.0)]),
        ({"sample": "a", "toxicity": "0.3"}, [("a", 0.3)]),
    ],
)
def test_published_formats(row: Any, expected: Any) -> None:
    assert scored_texts(row) == expected


def test_a_trained_scorer_says_what_it_is_worth(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    rows = [
        {"text": f"you fool {i}" if i % 2 else f"good day {i}", "toxicity": 0.9 if i % 2 else 0.1} for i in range(60)
    ]
    for name in ("train", "check"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train([tmp_path / "train.jsonl"], tmp_path / "s", False)
    with pytest.raises(SettingsError, match="never checked"):
        open_scorer(f"calibrated:{tmp_path / 's'}")
    found = check(open_scorer(f"linear:{tmp_path / 's'}"), tmp_path / "check.jsonl", 0, False)
    assert found["auc"] == 1.0
    assert found["map"]["error"] < 0.02 <= found["map"]["error_before"] + 0.02
    assert found["share"] == found["share_published"] == 0.5
    outcome = run(
        ToxicityConfig(scorer=f"linear:{tmp_path / 's'}", check_scorer=tmp_path / "check.jsonl"),
        None,
        Quiet(),  # type: ignore[arg-type]
    )
    worth = {(named.name, named.of): named.result for named in outcome.results}
    published = worth["scorer: auc", "on texts with published scores"]
    assert (published.value, published.n, published.ci) == (1.0, 60, (1.0, 1.0))
    unseen = worth["scorer: auc", "on rows it has not seen"]
    assert (unseen.value, unseen.n, unseen.clusters) == (1.0, 10, 10)
    error = worth["scorer: mean error, calibrated", "on texts with published scores"]
    assert error.n == 30
    assert error.ci is not None
    assert outcome.figures["scorer"]["bins"]["count"] == [30, 30]
    mapped = open_scorer(f"calibrated:{tmp_path / 's'}")
    assert mapped.score(["you fool"])[0] == pytest.approx(0.9, abs=0.05)


def test_the_quality_of_a_scorer_is_that_of_scikit_learn_and_scipy() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    published = rng.uniform(size=200).round(1)
    own = 0.5 * published + 0.5 * rng.uniform(size=200).round(1)
    found = ranking(own, published, np.arange(200), 0)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(published >= 0.5, own))
    assert found["spearman"] == pytest.approx(spearmanr(own, published).statistic)
    for name in ("auc", "spearman"):
        low, high = found[f"{name}_ci"]
        assert low < found[name] < high < 1
    assert np.isnan(ranking(own, np.full(200, 0.1), np.arange(200), 0)["auc"])


@pytest.mark.parametrize("spec", ["linear", "perspective", "no_such_module:f", "detoxify"])
def test_an_unknown_scorer_is_an_error_of_one_line(spec: str) -> None:
    if spec == "detoxify":
        try:
            import detoxify  # noqa: F401
        except ImportError:
            pass
        else:
            pytest.skip("detoxify is installed")
    with pytest.raises(SettingsError):
        open_scorer(spec)


def test_detoxify_is_asked_for_its_toxicity(monkeypatch: pytest.MonkeyPatch) -> None:
    class Detoxify:
        def __init__(self, model: str) -> None:
            assert model == "unbiased"

        def predict(self, texts: list[str]) -> dict[str, list[float]]:
            return {"toxicity": [len(text) / 10 for text in texts], "insult": [0.0 for _ in texts]}

    module = type(sys)("detoxify")
    module.Detoxify = Detoxify  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "detoxify", module)
    assert list(open_scorer("detoxify:unbiased").score(["abc", "abcdef"])) == [0.3, 0.6]


def test_a_reward_model_scores_the_other_way_round(tiny_folder: Path, tmp_path: Path) -> None:
    from accord.models.load import load_tokenizer, new_reward_model
    from accord.records import Message
    from accord.text import Template
    from accord.train.rewards import Responses, load_reward

    model, tokenizer = new_reward_model(str(tiny_folder), seed=1)
    folder = tmp_path / "reward"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    texts = ["good day", "go away", "so be it", "never again"]
    toxicity = open_scorer(f"run:{folder}").score(texts)
    template = Template(load_tokenizer(str(folder)))
    prompt = (Message(role="user", content="Write something."),)
    responses = Responses(
        prompts=[prompt] * 4, trees=[template.tree(prompt, [text]) for text in texts],
        texts_BK=[[text] for text in texts], finished_BK=[[True]] * 4,
    )  # fmt: skip
    reward = load_reward(str(folder), template, "fp32", 512)(responses).tolist()
    by_reward = sorted(range(4), key=lambda n: -reward[n])
    assert sorted(range(4), key=lambda n: toxicity[n]) == by_reward  # type: ignore[arg-type, return-value]
    assert all(0 < value < 1 for value in toxicity if value is not None)
