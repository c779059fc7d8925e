"""Figures on real annotations, where these lie beside this clone; some of their licences forbid a copy here."""

import csv
import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest

from accord.evaluate.agreement import (
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    leave_one_out_agreement,
    preference_agreement,
)
from accord.evaluate.annotators import low_agreement
from accord.evaluate.winrate import length_controlled_win_rate

DATA = Path(__file__).parents[3] / "shared" / "data"
NAMES = {  # of the models in the rows, on the leaderboard
    "alpaca-7b": "Alpaca 7B",
    "alpaca-farm-ppo-human": "Alpaca Farm PPO Human 7B",
    "alpaca-farm-ppo-sim-gpt4-20k": "Alpaca Farm PPO Sim (GPT-4) 7B",
    "claude": "Claude",
    "claude-2": "Claude 2",
    "falcon-40b-instruct": "Falcon 40B Instruct",
    "falcon-7b-instruct": "Falcon 7B Instruct",
    "gemma-2b-it": "Gemma Instruct (2B)",
    "gpt-3.5-turbo-0301": "GPT 3.5 Turbo (03/01)",
    "gpt-3.5-turbo-1106": "GPT 3.5 Turbo (11/06)",
    "gpt35_turbo_instruct": "GPT-3.5",
    "gpt4_1106_preview": "GPT-4 Preview (11/06)",
    "minichat-3b": "MiniChat 3B",
    "oasst-rlhf-llama-33b": "LLaMA 33B OASST RLHF",
    "oasst-sft-pythia-12b": "Pythia 12B OASST SFT",
    "phi-2": "Phi 2",
    "phi-2-sft": "Phi-2 SFT",
    "pythia-12b-mix-sft": "Pythia 12B SFT",
    "text_davinci_001": "Davinci001",
    "vicuna-13b": "Vicuna 13B",
    "vicuna-7b": "Vicuna 7B",
    "wizardlm-13b": "WizardLM 13B",
}
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the real annotations are not beside this clone")


def rows(name):
    path = DATA / name
    with gzip.open(path, "rt", encoding="utf8") if path.suffix == ".gz" else path.open(encoding="utf8") as file:
        lines = csv.DictReader(file) if ".csv" in path.name else map(json.loads, file)
        yield from lines


def matrix(unit, annotator, label):
    """(A, N), and the names of the annotators; of several labels of one annotator for one unit the last."""
    units, annotators = ({name: n for n, name in enumerate(sorted(set(names)))} for names in (unit, annotator))
    found = np.full((len(annotators), len(units)), np.nan)
    for one, who, what in zip(unit, annotator, label, strict=True):
        found[annotators[who], units[one]] = what
    return found, list(annotators)


def test_pandalm_three_people_on_pairs():
    verdicts = np.array(
        [[float(row[f"annotator{n}"]) for n in (1, 2, 3)] for row in rows("pandalm_testset/testset.jsonl")]
    )
    kappas = [cohen_kappa(verdicts[:, a], verdicts[:, b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert kappas == pytest.approx([0.84, 0.88, 0.86], abs=0.01)
    preferences = np.select([verdicts.T == 1, verdicts.T == 2], [1.0, -1.0], 0.0)
    assert preference_agreement(preferences).agreement == pytest.approx(0.944, abs=0.001)


def test_convabuse_one_of_eight_disagrees():
    found = list(rows("convabuse/annotations.jsonl.gz"))
    unit = [tuple(row[key] for key in ("conv_id", "prev_agent", "prev_user", "agent", "user")) for row in found]
    severity, names = matrix(unit, [row["annotator_id"] for row in found], [row["severity"] for row in found])
    alphas = [krippendorff_alpha(severity, level) for level in ("nominal", "ordinal", "interval")]
    assert alphas == pytest.approx([0.43, 0.65, 0.73], abs=0.01)
    agreement = leave_one_out_agreement(severity)
    assert [name for name, flag in zip(names, low_agreement(*agreement), strict=True) if flag] == ["Annotator5"]


def test_hatecheck_ten_people_five_each():
    counts = {}
    for row in rows("hatecheck/annotations.csv.gz"):
        counts.setdefault(row["case_id"], [0, 0])[row["label"] == "hateful"] += 1
    assert fleiss_kappa([count for count in counts.values() if sum(count) == 5]) == pytest.approx(0.926, abs=0.002)


def test_alpaca_eval_length_control_is_near_the_published_rates():
    """On average of 22 models 1.1 points from the published controlled rates, where the raw ones are 4.1 from them."""
    published = {
        row["name"]: float(row["length_controlled_winrate"]) / 100
        for row in rows("alpaca_eval/leaderboard_v2_weighted_alpaca_eval_gpt4_turbo.csv")
    }
    games = {name: [] for name in NAMES}
    for row in rows("alpaca_eval/preferences.jsonl.gz"):
        if row["annotator"] == "weighted_alpaca_eval_gpt4_turbo" and row["generator_2"] in NAMES:
            outcome = row["preference"] - 1 if row["preference"] else math.nan
            games[row["generator_2"]].append((outcome, row["len_2"], row["len_1"]))
    truth = np.array([published[shown] for shown in NAMES.values()])
    fits = [length_controlled_win_rate(*zip(*game, strict=True), replicates=0) for game in games.values()]
    raw, controlled = np.array([[fit.raw.value, fit.controlled.value] for fit in fits]).T
    assert np.abs(raw - truth).mean() == pytest.approx(0.041, abs=0.001)
    assert np.abs(controlled - truth).mean() == pytest.approx(0.011, abs=0.001)
