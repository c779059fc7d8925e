import json
import math

import pytest

from accord.pipelines.quickstart_results import _stage


def rows(gold):
    each = {"reward_model_score": 1.0, "kl": 0.5, "length": 10, "base_nll": 2.0}
    return [{"prompt_id": n // 2, "gold_reward": value, **each} for n, value in enumerate(gold)]


def test_a_stage_in_the_summary():
    """Two responses to each of three prompts: two wins, a tie, three losses."""
    found = _stage(rows([0.1, 0.5, 0.3, 0.2, 0.4, 0.6]), [0.2, 0.4, 0.3, 0.3, 0.5, 0.1], 0)
    assert (found["gold_reward"], found["n"]) == (pytest.approx(0.35), 6)
    assert found["gold_reward_ci"][0] < 0.35 < found["gold_reward_ci"][1]
    assert found["win_rate_vs_base"] == pytest.approx(2.5 / 6)
    assert found["base_perplexity"] == pytest.approx(math.e**2)


def test_json_gets_null_where_there_is_no_interval():
    """One prompt is no sample of prompts, and a gold reward that nobody gave is no zero."""
    found = _stage(rows([0.1, 0.5]), [0.1, 0.5], 0)
    assert (found["gold_reward_ci"], found["win_rate_vs_base"]) == ([None, None], 0.5)
    lost = _stage(rows([math.nan, math.nan]), [0.1, 0.5], 0)
    assert (lost["gold_reward"], lost["win_rate_vs_base"], lost["n"]) == (None, None, 0)
    json.dumps([found, lost], allow_nan=False)
