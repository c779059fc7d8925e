"""The curve of gold reward against KL while a proxy is optimised (Gao et al. 2022, arXiv:2210.10760)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from accord.evaluate._arrays import NAN, floats, one_of, same_length

__all__ = ["Overoptimisation", "fit_overoptimisation"]


class Overoptimisation(NamedTuple):
    """A fitted curve.

    Attributes:
        alpha: reward units per sqrt(nat), the slope at the start.
        beta: how fast the gain turns.
        peak_kl: nats, where gold reward is highest; NaN where it never turns.
        r_squared: about the mean; NaN where the gains do not vary.
        n: checkpoints.
    """

    alpha: float
    beta: float
    peak_kl: float
    r_squared: float
    n: int


def fit_overoptimisation(
    kl_M: ArrayLike, reward_gain_M: ArrayLike, form: Literal["best_of_n", "rl"] = "best_of_n"
) -> Overoptimisation:
    """Fit gold reward against d = sqrt(KL), by least squares without intercept.

        best_of_n: gain = d (alpha - beta d),      peak at d = alpha / (2 beta)
        rl:        gain = d (alpha - beta ln d),   peak at d = exp(alpha / beta - 1);   0 at d = 0

    Args:
        kl_M: (M,) nats from the initial policy, >= 0; a NaN in either drops the checkpoint.
        reward_gain_M: (M,) gold reward less that of the initial policy.
        form: which of the two published forms.

    Returns: an `Overoptimisation`. beta <= 0 has no peak (NaN); alpha <= 0 with best_of_n peaks at 0.

    Raises:
        ValueError: lengths differ, fewer than 3 checkpoints, a negative KL, or an unknown form.
    """
    one_of("form", form, ("best_of_n", "rl"))
    kl, gain = floats("kl_M", kl_M), floats("reward_gain_M", reward_gain_M)
    same_length(kl_M=kl, reward_gain_M=gain)
    kept = ~(np.isnan(kl) | np.isnan(gain))
    kl, gain = kl[kept], gain[kept]
    if len(kl) < 3:
        raise ValueError(f"{len(kl)} checkpoints with a KL and a reward; expected 3 or more to fit two numbers")
    if (kl < 0).any():
        raise ValueError(
            f"`kl_M` holds {kl.min():g}; expected KLs of at least 0; take estimates below as 0 or drop them"
        )
    d = np.sqrt(kl)
    bend = d**2 if form == "best_of_n" else d * np.log(np.where(d > 0, d, 1.0))
    (alpha, beta), _, rank, _ = np.linalg.lstsq(np.stack([d, -bend], axis=1), gain, rcond=None)
    if rank < 2:  # checkpoints at one KL say nothing about a curve
        return Overoptimisation(NAN, NAN, NAN, NAN, len(kl))
    spread = float(((gain - gain.mean()) ** 2).sum())
    residual = float(((gain - (alpha * d - beta * bend)) ** 2).sum())
    r_squared = 1 - residual / spread if np.ptp(gain) else NAN
    # Of a straight line the fit leaves a bend of rounding error, which would peak at 1e32 nats.
    bent = beta * np.abs(bend).max() > 1e-10 * np.abs(gain).max()
    peak_kl = _peak(float(alpha), float(beta), form) if bent else NAN
    return Overoptimisation(float(alpha), float(beta), peak_kl, r_squared, len(kl))


def _peak(alpha: float, beta: float, form: str) -> float:
    """KL at the top of a curve that bends down: beta above 0."""
    if form == "best_of_n":
        return (alpha / (2 * beta)) ** 2 if alpha > 0 else 0.0
    with np.errstate(over="ignore"):  # a curve that hardly bends peaks at infinity
        return float(np.exp(2 * (alpha / beta - 1)))
