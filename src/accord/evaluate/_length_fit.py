"""The two-parameter logistic fit behind the length-controlled win rate, for all bootstrap replicates at once.

Suffixes: N pairs, R replicates (weights of the same pairs).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from accord.evaluate._arrays import Floats


class LengthFit(NamedTuple):
    """Of each replicate: sigma(theta), theta and phi."""

    rate_R: Floats
    theta_R: Floats
    phi_R: Floats


def fit_lengths(longer_N: Floats, outcome_N: Floats, weight_RN: Floats, ridge: tuple[float, float]) -> LengthFit:
    """Fit every row of weights; where the differences do not vary, the weighted mean outcome and phi 0."""
    from scipy.special import expit, logit

    total_R = weight_RN.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_R = weight_RN @ longer_N / total_R
        square_R = (weight_RN * (longer_N - mean_R[:, None]) ** 2).sum(axis=1)
        deviation_R = np.sqrt(square_R / (total_R - 1))
        plain_R = weight_RN @ outcome_N / total_R
    # Differences that are equal have a deviation of rounding error, which would be blown up to x = +-1.
    varies_R = (total_R > 1) & (deviation_R > 1e-12 * np.abs(longer_N).max(initial=0.0))
    theta_R, phi_R = logit(plain_R), np.where(np.isnan(plain_R), plain_R, 0.0)
    rate_R = plain_R.copy()
    if varies_R.any():
        x_RN = np.tanh(longer_N / deviation_R[varies_R, None])
        theta_R[varies_R], phi_R[varies_R] = _newton(x_RN, outcome_N, weight_RN[varies_R], ridge)
        rate_R[varies_R] = expit(theta_R[varies_R])
    return LengthFit(rate_R, theta_R, phi_R)


def _newton(x_RN: Floats, y_N: Floats, weight_RN: Floats, ridge: tuple[float, float]) -> tuple[Floats, Floats]:
    """Minimise the penalised loss, which is convex, by Newton steps that are halved while they make it larger."""
    from scipy.special import expit

    def loss(theta_R: Floats, phi_R: Floats) -> Floats:
        z_RN = theta_R[:, None] + phi_R[:, None] * x_RN
        fit_R = (weight_RN * (np.logaddexp(0, z_RN) - y_N * z_RN)).sum(axis=1)
        return np.asarray(fit_R + (ridge[0] * theta_R**2 + ridge[1] * phi_R**2) / 2, dtype=np.float64)

    theta_R, phi_R = np.zeros((2, len(x_RN)))
    now_R = loss(theta_R, phi_R)
    for _ in range(100):
        p_RN = expit(theta_R[:, None] + phi_R[:, None] * x_RN)
        slope_RN, bend_RN = weight_RN * (p_RN - y_N), weight_RN * p_RN * (1 - p_RN)
        a_R, b_R = slope_RN.sum(axis=1) + ridge[0] * theta_R, (slope_RN * x_RN).sum(axis=1) + ridge[1] * phi_R
        aa_R, bb_R = bend_RN.sum(axis=1) + ridge[0], (bend_RN * x_RN**2).sum(axis=1) + ridge[1]
        ab_R = (bend_RN * x_RN).sum(axis=1)
        # Without a ridge the fit may have no minimum; a floor keeps the steps finite and the loop ends at its limit.
        scale_R = np.maximum(aa_R * bb_R - ab_R**2, 1e-300)
        step_2R = np.stack([bb_R * a_R - ab_R * b_R, aa_R * b_R - ab_R * a_R]) / scale_R
        for _ in range(40):
            then_R = loss(theta_R - step_2R[0], phi_R - step_2R[1])
            worse_R = ~(then_R <= now_R + 1e-13 * np.abs(now_R))
            if not worse_R.any():
                break
            step_2R[:, worse_R] /= 2
        theta_R, phi_R, now_R = theta_R - step_2R[0], phi_R - step_2R[1], then_R
        if (np.abs(step_2R) <= 1e-12 * (1 + np.maximum(np.abs(theta_R), np.abs(phi_R)))).all():
            break
    return theta_R, phi_R
