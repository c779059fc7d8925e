"""Every method `accord train` offers: its formula, source, when to choose it, and the settings only some methods read.

`docs/methods.md`, the defaults in `--help` and the checks of the configurations are made from this table. No torch here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["METHODS", "Method", "defaults_of", "method"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method of a training job.

    Attributes:
        job: as in `accord train JOB`.
        name: as the setting that chooses it has it (`--loss`, `--algorithm`).
        title: what it is called in the field.
        formula: the loss, minimised, per what it is averaged over.
        paper: authors, year, arXiv number, equation.
        when: when to choose it, and what to watch.
        note: what a run prints at its start where readings of the method differ; empty where they do not.
        reads: settings that not every method of the job reads, with their defaults here.
        function: the loss in `accord.losses`, for the documentation.
        data: what its rows are.
    """

    job: str
    name: str
    title: str
    formula: str
    paper: str
    when: str
    function: str
    data: str
    note: str = ""
    reads: Mapping[str, Any] = field(default_factory=dict)


def method(job: str, name: str) -> Method:
    """The method of that name."""
    return next(entry for entry in METHODS if (entry.job, entry.name) == (job, name))


def defaults_of(job: str, setting: str) -> dict[str, Any]:
    """Default of a setting by method, for those that read it; empty if it is no setting of a method."""
    return {entry.name: entry.reads[setting] for entry in METHODS if entry.job == job and setting in entry.reads}


PAIRS = "comparisons or rankings"
_TIES = {"learn_ties": False, "pair_weight": "pairs"}
_EPOCHS = {"ppo_epochs": 2, "minibatches": 2, "stop_kl": None}
_VALUE = {"critic": "shared", "value_learning_rate": None, "gamma": 1.0}
_CRITIC_LOSS = {"value_coefficient": 0.1, "value_clip": None}
_KL = {"kl_beta": 0.02, "kl_target": None, "kl_place": "reward", "kl_estimator": "k1"}
_GRADIENT = {"entropy_coefficient": 0.0, "ptx_data": None, **_KL}
_PPO = {"average": "token", "whiten_advantages": True, "lam": 0.95, **_EPOCHS, **_VALUE, **_CRITIC_LOSS, **_GRADIENT}
_CLIP = {"clip": 0.2, "clip_high": None, "dual_clip": None}

METHODS: tuple[Method, ...] = (
    Method(
        job="sft",
        name="sft",
        title="Supervised fine-tuning",
        formula="-sum over trained tokens of log pi(y_t | x, y_<t) / trained tokens of the step",
        paper="Ouyang et al. 2022 (arXiv:2203.02155), step 1",
        when="First, always: every method below starts from a model that answers at all. Every assistant turn of a "
        "conversation is trained on, its end token included. Packs hold several rows and no row sees another. "
        "Nothing is added to the embeddings (no NEFTune), so the loss is the likelihood of the data.",
        function="likelihood.nll",
        data="demonstrations",
    ),
    # -- reward models -------------------------------------------------------------------------------------------------
    Method(
        job="reward",
        name="bradley-terry",
        title="Bradley-Terry, pairwise and K-wise",
        formula="mean over the pairs of a prompt of -t log sigma(z) - (1 - t) log sigma(-z),  z = r_better - r_worse - "
        "margin,  t = P(better) smoothed",
        paper="Bradley & Terry 1952; K-wise: Ouyang et al. 2022 (arXiv:2203.02155) eq. 1; margin: Touvron et al. 2023 "
        "(arXiv:2307.09288) eq. 2; soft targets: Bai et al. 2022 (arXiv:2212.08073)",
        when="The default. Rows with `probability` (annotator shares, AI feedback) are soft targets, rows with `margin` "
        "ask for a gap. All K(K-1)/2 pairs of a ranking share one forward pass and one weight; `--pair-weight choose` "
        "is InstructGPT's 1/C(K, 2), which differs where responses tie or failed. `--label-smoothing` where annotators "
        "slip, `--centering` where scores are to be compared across prompts.",
        function="reward.bradley_terry",
        data=PAIRS,
        reads={"label_smoothing": 0.0, "pair_weight": "pairs"},
    ),
    Method(
        job="reward",
        name="rao-kupper",
        title="Rao-Kupper, ties by a threshold",
        formula="-log P(outcome),  P(first) = sigma(gap - eta),  P(second) = sigma(-gap - eta),  P(tie) = the rest",
        paper="Rao & Kupper 1967; in preference learning: Chen et al. 2024 (arXiv:2409.17431)",
        when="Rankings in which annotators may tie, and do. A tie says that two scores are near, which Bradley-Terry "
        "leaves unsaid. `--threshold` is the gap at which a tie becomes unlikely; `--learn-ties` fits it.",
        function="reward.rao_kupper",
        data="rankings (a tie is a pair of equal ranks)",
        reads={"threshold": math.log(3), **_TIES},
    ),
    Method(
        job="reward",
        name="davidson",
        title="Davidson, ties by a third option",
        formula="-log softmax(gap/2, log nu, -gap/2) at (first, tie, second)",
        paper="Davidson 1970; in preference learning: Chen et al. 2024 (arXiv:2409.17431)",
        when="As Rao-Kupper; the share of ties falls off more slowly with the gap. Try both and keep the one with the "
        "lower held-out loss.",
        function="reward.davidson",
        data="rankings (a tie is a pair of equal ranks)",
        reads={"log_nu": math.log(2), **_TIES},
    ),
    Method(
        job="reward",
        name="plackett-luce",
        title="Plackett-Luce, whole rankings",
        formula="sum over places k of logsumexp(r_k and all that is worse) - r_k",
        paper="Plackett 1975; Luce 1959",
        when="Rankings of four or more that were made as a whole, best first: the likelihood of the order rather than "
        "of its pairs. With two responses it is Bradley-Terry. Tied responses leave each other's sum.",
        function="reward.plackett_luce",
        data=PAIRS,
    ),
    # -- direct preference ---------------------------------------------------------------------------------------------
    Method(
        job="dpo",
        name="dpo",
        title="Direct preference optimisation",
        formula="-t log sigma(beta gap) - (1 - t) log sigma(-beta gap),  gap = log-ratio of better - log-ratio of worse",
        paper="Rafailov et al. 2023 (arXiv:2305.18290) eq. 7",
        when="The default for comparisons. Rows with `probability` are soft targets. Watch the length of responses and "
        "the log-probability of the chosen ones: both may drift while the margin grows.",
        function="preference.dpo",
        data=PAIRS,
        reads={"beta": 0.1},
    ),
    Method(
        job="dpo",
        name="cdpo",
        title="Conservative DPO",
        formula="dpo with t = 1 - label_smoothing",
        paper="Mitchell 2023, A note on DPO with noisy preferences, eq. 3",
        when="Some labels are wrong and you know about how many. The margin of a pair stops growing where the model is "
        "as sure as the labels are.",
        function="preference.dpo",
        data=PAIRS,
        reads={"beta": 0.1, "label_smoothing": 0.1},
    ),
    Method(
        job="dpo",
        name="robust",
        title="Robust DPO",
        formula="[(1 - e)(-log sigma(z)) - e (-log sigma(-z))] / (1 - 2e),  z = beta gap,  e = label_smoothing",
        paper="Chowdhury et al. 2024 (arXiv:2403.00409)",
        when="As cDPO, but unbiased: in expectation over flips at rate e it is the loss of clean labels. It may be "
        "negative and has no lower bound, so keep the learning rate low.",
        function="preference.robust_dpo",
        data=PAIRS,
        reads={"beta": 0.1, "label_smoothing": 0.1},
    ),
    Method(
        job="dpo",
        name="ipo",
        title="Identity preference optimisation",
        formula="(gap - 1 / (2 beta))^2",
        paper="Azar et al. 2023 (arXiv:2310.12036) eq. 17; beta is the paper's tau",
        when="DPO overfits: labels are deterministic and margins run away. The target gap is finite. `--reduction mean` "
        "takes the mean log-ratio per token, as TRL does and the authors recommend; beta is then per token and larger.",
        function="preference.ipo",
        data=PAIRS,
        reads={"beta": 0.1, "reduction": "sum"},
        note="log-ratios are summed over tokens with --reduction sum (eq. 17) and averaged with mean (TRL); accuracy and margin are of the sums in both cases",
    ),
    Method(
        job="dpo",
        name="hinge",
        title="Hinge on the log-ratio",
        formula="max(0, 1 - beta gap)",
        paper="Liu et al. 2023, RSO (arXiv:2309.06657), after SLiC",
        when="Pairs that are won by enough should stop pulling altogether.",
        function="preference.hinge",
        data=PAIRS,
        reads={"beta": 0.1},
    ),
    Method(
        job="dpo",
        name="slic",
        title="SLiC-HF, sequence likelihood calibration",
        formula="max(0, delta - log pi(y_better) + log pi(y_worse)) - regularisation * log pi(y_better)",
        paper="Zhao et al. 2023 (arXiv:2305.10425)",
        when="No reference model is wanted: likelihoods themselves are calibrated, and the likelihood of the preferred "
        "response, here the target, keeps the language. Sums over tokens, so long responses weigh more.",
        function="preference.slic",
        data=PAIRS,
        reads={"delta": 1.0, "regularisation": 1.0},
        note="the regularising target is the preferred response of each pair",
    ),
    Method(
        job="dpo",
        name="dpo-length",
        title="Length-regularised DPO (R-DPO)",
        formula="-log sigma(beta gap + alpha (|y_better| - |y_worse|))",
        paper="Park et al. 2024 (arXiv:2403.19159) eq. 9",
        when="DPO makes responses longer because the preferred ones are. Raise alpha until held-out win rate stops "
        "rising with length. Equal lengths or alpha 0 are DPO. `--form printed` has the minus sign found in print, "
        "which rewards length; it is there to compare.",
        function="preference.dpo_length",
        data=PAIRS,
        reads={"beta": 0.1, "alpha": 0.01, "form": "derived"},
        note="--form derived adds alpha x (length of better - length of worse) to the margin, so that what length "
        "explains need not be learned; --form printed subtracts it",
    ),
    Method(
        job="dpo",
        name="simpo",
        title="SimPO",
        formula="-log sigma(beta (mean log pi(y_better) - mean log pi(y_worse)) - gamma)",
        paper="Meng et al. 2024 (arXiv:2405.14734) eq. 6",
        when="No reference pass, and a score that is what greedy decoding maximises. Nothing holds the policy at its "
        "start: low learning rate, one epoch, and a look at the samples.",
        function="preference.simpo",
        data=PAIRS,
        reads={"beta": 2.0, "gamma": 1.0},
        note="gamma is absolute, as in TRL; the authors' configurations give gamma / beta",
    ),
    Method(
        job="dpo",
        name="orpo",
        title="ORPO, odds ratio",
        formula="-mean log pi(y_better) + coefficient * -log sigma(log odds_better - log odds_worse)",
        paper="Hong et al. 2024 (arXiv:2403.07691) eqs. 4-7",
        when="One stage instead of SFT and DPO: start from a base model, with an SFT learning rate. No reference.",
        function="preference.orpo",
        data=PAIRS,
        reads={"coefficient": 0.1},
        note="the likelihood is of the response only; the authors' code counts the prompt as well",
    ),
    Method(
        job="dpo",
        name="kto",
        title="KTO, unpaired thumbs up and down",
        formula="w_up (1 - sigma(beta (r - z0))) or w_down (1 - sigma(beta (z0 - r))),  r = log-ratio,  z0 = max(0, mean "
        "log-ratio of mismatched prompt and response over the step)",
        paper="Ethayarajh et al. 2024 (arXiv:2402.01306) eq. 8",
        when="Feedback is a thumb on single responses. Comparisons and rankings work too: what wins more pairs of its "
        "prompt than it loses counts as up, the opposite as down. With unequal counts choose weights so that up x "
        "weight : down x weight lies between 1 and 4/3. Each step needs a second prompt, so keep batches at 8 or more.",
        function="preference.kto",
        data="feedback (`label` true or false), comparisons or rankings",
        reads={"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0},
    ),
    # -- listwise ------------------------------------------------------------------------------------------------------
    Method(
        job="dpo",
        name="info-nce",
        title="InfoNCE, the best against the rest",
        formula="logsumexp(s_1 and all that is worse) - s_1,  s = beta * log-ratio",
        paper="van den Oord et al. 2018 (arXiv:1807.03748); for preferences Chen et al. 2024 (arXiv:2402.05369)",
        when="Only the winner of several responses is known, or only its place is trusted.",
        function="listwise.info_nce",
        data="rankings (or comparisons)",
        reads={"beta": 0.1},
    ),
    Method(
        job="dpo",
        name="plackett-luce",
        title="Plackett-Luce DPO",
        formula="sum over places k of logsumexp(s_k and all that is worse) - s_k,  s = beta * log-ratio",
        paper="Rafailov et al. 2023 (arXiv:2305.18290) appendix A.3",
        when="Whole rankings. With two responses it is DPO; all n - 1 terms are summed, so K = 4 pulls about as hard as "
        "three pairs.",
        function="listwise.plackett_luce_dpo",
        data="rankings (or comparisons)",
        reads={"beta": 0.1},
    ),
    Method(
        job="dpo",
        name="pro",
        title="PRO, preference ranking optimisation",
        formula="sum over places k of logsumexp(p_k and all that is worse) - p_k + sft_weight * -p_best,  p = mean log pi",
        paper="Song et al. 2023 (arXiv:2306.17492)",
        when="Rankings without a reference model, SFT included. `--temperatures` sharpens each place by the gaps of the "
        "rows' `scores`, as in the paper.",
        function="listwise.pro",
        data="rankings (or comparisons)",
        reads={"sft_weight": 0.05, "temperatures": False},
        note="the authors' code sums over tokens and weighs the likelihood by 0.05 (K - 1)^2",
    ),
    # -- policy --------------------------------------------------------------------------------------------------------
    Method(
        job="ppo",
        name="ppo-clip",
        title="PPO with a clipped surrogate",
        formula="-min(rho A, clip(rho, 1 - clip, 1 + clip_high) A) + c1 * 1/2 (V - G)^2 - c2 * entropy,  rho = pi / pi_old",
        paper="Schulman et al. 2017 (arXiv:1707.06347) eqs. 7, 9; for language Ouyang et al. 2022 (arXiv:2203.02155)",
        when="The default against a reward model. Watch kl/reference beside reward/mean: reward that is bought with KL "
        "faster and faster is over-optimisation. `--kl-target` holds the KL, `--ptx-data` holds other abilities.",
        function="policy.ppo_clip",
        data="prompts",
        reads={**_CLIP, **_PPO},
    ),
    Method(
        job="ppo",
        name="ppo-penalty",
        title="PPO with a KL penalty",
        formula="-(rho A - penalty * KL(pi_old || pi)) + c1 * 1/2 (V - G)^2 - c2 * entropy",
        paper="Schulman et al. 2017 (arXiv:1707.06347) eq. 8 and the rule below it",
        when="Steps should be bounded softly, by their KL and not by a clipped ratio. With `--penalty-target` the weight "
        "is halved or doubled after each rollout to hold KL(old || new) there.",
        function="policy.ppo_penalty",
        data="prompts",
        reads={"penalty": 1.0, "penalty_target": None, **_PPO},
        note="KL(old || new) per token is estimated by k3 on the sampled tokens",
    ),
    Method(
        job="ppo",
        name="trpo",
        title="TRPO, trust region by natural gradient",
        formula="minimise mean -rho A subject to mean KL(pi_old || pi) <= max_kl: step along F^-1 g, then a line search",
        paper="Schulman et al. 2015 (arXiv:1502.05477), appendix C",
        when="Every accepted step has to keep its bound, on LoRA adapters or on a small model: one step per rollout, "
        "with ten products of the Fisher matrix. The value function is fitted apart, `--value-updates` steps per rollout.",
        function="policy.surrogate",
        data="prompts",
        reads={
            "max_kl": 0.01,
            "cg_iterations": 10,
            "damping": 0.1,
            "backtracks": 10,
            "fisher_share": 1.0,
            "value_updates": 5,
            "whiten_advantages": True,
            "lam": 0.95,
            **_VALUE,
            **_KL,
        },
        note="the policy's step is set by max_kl; learning_rate, times 50 for a value head, is that of the value function",
    ),
    Method(
        job="ppo",
        name="reinforce",
        title="REINFORCE with a baseline",
        formula="-(G_t - b) log pi(y_t | x, y_<t)",
        paper="Williams 1992",
        when="The simplest thing that can work, and the yardstick: one step per rollout, no ratio, no clip. The baseline "
        "is a value function, the rollout's mean return, or nothing.",
        function="policy.reinforce",
        data="prompts",
        reads={
            "baseline": "value",
            "whiten_advantages": False,
            "average": "token",
            "value_coefficient": _CRITIC_LOSS["value_coefficient"],  # no clip: one step moves no value beyond one
            **_VALUE,
            **_GRADIENT,
        },
    ),
    Method(
        job="ppo",
        name="rloo",
        title="RLOO, REINFORCE leave-one-out",
        formula="-(R_k - mean of the other R) log pi(y_k | x),  R = score - kl_beta * KL of the whole response",
        paper="Ahmadian et al. 2024 (arXiv:2402.14740)",
        when="No value function: the other samples of the prompt are the baseline. One step per rollout; needs K >= 2, "
        "4 is common.",
        function="policy.rloo",
        data="prompts",
        reads=_GRADIENT,
    ),
    Method(
        job="ppo",
        name="grpo",
        title="GRPO, group-relative advantages",
        formula="-min(rho A, clip(rho) A) + kl_beta * k3(pi, pi_ref),  A = (score - mean) / deviation of the prompt's K",
        paper="Shao et al. 2024 (arXiv:2402.03300) eq. 3; Dr. GRPO: Liu et al. 2025 (arXiv:2503.20783)",
        when="Verifiable rewards and many samples per prompt. `--average sequence` is as published; Dr. GRPO is "
        "`--average constant --no-scale-advantages`. Prompts whose samples all score alike teach nothing.",
        function="policy.grpo",
        data="prompts",
        reads={
            **_CLIP,
            **_EPOCHS,
            **_GRADIENT,
            "average": "sequence",
            "scale_advantages": True,
            "kl_beta": 0.04,
            "kl_place": "loss",
            "kl_estimator": "k3",
        },
    ),
)
"""In the order of `docs/methods.md`."""
