"""The natural-gradient step of TRPO (Schulman et al. 2015, arXiv:1502.05477), public in `accord.losses.policy`.

Minimise the surrogate subject to mean KL(old || policy) <= delta. With g the negated gradient of the loss: x =
`conjugate_gradient`(F, g), step = `trpo_step`(x, F x), then `line_search`. One step per rollout.

Dimensions: D all parameters flattened, in the order given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from accord.losses._tensors import aligned, raised


def fisher_vector_product(
    mean_kl: Tensor, parameters: Sequence[Tensor], vector_D: Tensor, *, damping: float = 0.1
) -> Tensor:
    """Second derivative of the KL times a vector, without the matrix, TRPO (arXiv:1502.05477) appendix C.

        F v + damping * v,   F v = gradient of (gradient(mean_kl) . v)

    Args:
        mean_kl: scalar, nats, mean of `kl.exact(old_logits, logits)` over response tokens, with its graph, which is
            retained for the next call (a gradient of the loss taken before must retain what they share).
        parameters: tensors the graph leads to; their order is the order of D. Unused ones give 0.
        vector_D: (D,).
        damping: >= 0, keeps the system solvable where the KL is flat.

    Returns: (D,) without gradient. The zero vector gives 0.
    """
    slopes = torch.autograd.grad(mean_kl, parameters, create_graph=True, materialize_grads=True)
    pieces = torch.split(vector_D.detach(), [parameter.numel() for parameter in parameters])
    projection = torch.stack(
        [(slope.flatten() * piece).sum() for slope, piece in zip(slopes, pieces, strict=True)]
    ).sum()
    if not projection.requires_grad:  # the KL is linear in, or independent of, all parameters: F is 0
        return damping * vector_D.detach()
    curvatures = torch.autograd.grad(projection, parameters, retain_graph=True, materialize_grads=True)
    return torch.cat([curvature.flatten() for curvature in curvatures]) + damping * vector_D.detach()


def conjugate_gradient(
    matvec: Callable[[Tensor], Tensor], b_D: Tensor, *, iterations: int = 10, tolerance: float = 1e-10
) -> Tensor:
    """Solve F x = b for a symmetric positive F known by its products (Hestenes & Stiefel 1952).

        x = 0, r = p = b;  stop if r.r < tolerance;  a = r.r / p.Fp;  x += a p;  r' = r - a Fp;  p = r' + r'.r'/r.r p

    Args:
        matvec: v (D,) -> F v (D,), usually `fisher_vector_product`.
        b_D: (D,) right-hand side.
        iterations: at most so many products.
        tolerance: on the squared residual, tested before each product; each test waits for the device.

    Returns: (D,) without gradient. b = 0 gives 0.
    """
    residual_D = direction_D = raised(b_D.detach())
    solution_D = torch.zeros_like(residual_D)
    squared = residual_D.dot(residual_D)
    for _ in range(iterations):
        if squared < tolerance or squared == 0:
            break
        product_D = matvec(direction_D).detach()
        step = squared / direction_D.dot(product_D)
        solution_D = solution_D + step * direction_D
        residual_D = residual_D - step * product_D
        previous, squared = squared, residual_D.dot(residual_D)
        direction_D = residual_D + squared / previous * direction_D
    return solution_D


@torch.no_grad()
def trpo_step(direction_D: Tensor, fisher_direction_D: Tensor, *, max_kl: float = 0.01) -> Tensor:
    """The direction scaled to the edge of the trust region, TRPO (arXiv:1502.05477) appendix C.

        sqrt(2 max_kl / (x . F x)) x

    Args:
        direction_D: (D,) x, from `conjugate_gradient`.
        fisher_direction_D: (D,) F x.
        max_kl: >= 0, nats per token.

    Returns: (D,). Zeros where the curvature x . F x is not above 0.

    Raises:
        ValueError: shapes differ, or max_kl < 0.
    """
    if not max_kl >= 0:
        raise ValueError(f"max_kl is {max_kl}; a trust region has a bound of at least 0 nats")
    direction_D, fisher_direction_D = aligned(direction_D, fisher_direction_D)
    curvature = direction_D.dot(fisher_direction_D)
    return torch.where(curvature > 0, (2 * max_kl / curvature).sqrt() * direction_D, 0)


class LineSearch(NamedTuple):
    """Where a line search ended. (start, False, 0, 0, 0) if no step was good enough.

    Attributes:
        parameters_D: (D,) the accepted parameters, or the start.
        accepted: whether a step was taken.
        fraction: of the full step, 0 to 1.
        improvement: decrease of the loss.
        kl: nats per token, mean KL of the accepted parameters.
    """

    parameters_D: Tensor
    accepted: bool
    fraction: float
    improvement: float
    kl: float


def line_search(
    evaluate: Callable[[Tensor], tuple[float, float]],
    start_D: Tensor,
    step_D: Tensor,
    *,
    expected_improvement: float,
    max_kl: float = 0.01,
    backtracks: int = 10,
    shrink: float = 0.5,
    accept_ratio: float = 0.1,
) -> LineSearch:
    """Shrink a step until it keeps its promise, TRPO (arXiv:1502.05477) appendix C.

        the first f = shrink^i, i = 0 .. backtracks-1, at which   kl <= max_kl,   improvement > 0
        and   improvement >= accept_ratio * f * expected_improvement

    Args:
        evaluate: parameters (D,) -> (decrease of the loss, mean KL); nan is refused.
        start_D: (D,) present parameters.
        step_D: (D,) full step, from `trpo_step`.
        expected_improvement: gradient . step, what the full step promises to first order.
        max_kl: nats per token, not stretched.
        backtracks: at most so many trials.
        shrink: factor between trials, below 1.
        accept_ratio: share of the promise that has to be kept.

    Returns: a `LineSearch`.
    """
    for trial in range(backtracks):
        fraction = shrink**trial
        parameters_D = start_D + fraction * step_D
        improvement, divergence = map(float, evaluate(parameters_D))
        enough = improvement > 0 and improvement >= accept_ratio * fraction * expected_improvement
        if enough and divergence <= max_kl:
            return LineSearch(parameters_D, True, fraction, improvement, divergence)
    return LineSearch(start_D, False, 0.0, 0.0, 0.0)
