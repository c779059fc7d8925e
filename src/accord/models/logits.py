"""From raw logits to log-probabilities, entropies and KL, and the gradients back: formulas over a part of a group.

Dimensions: V vocabulary, C tokens. Raw logits are what the head's product gives; of them scale, softcap and temperature
make those of a distribution.
"""

from __future__ import annotations

import torch
from torch import Tensor

from accord.losses import kl
from accord.models import kernels
from accord.models.fused import fused

__all__ = ["capped", "kl_gradient", "of_raw", "over", "read", "to_gradient"]


def capped(raw_CV: Tensor, scale: float, softcap: float | None) -> Tensor:
    """(C, V) float32 (float64 stays): cap(scale * raw)."""
    logits_CV = raw_CV.to(torch.promote_types(raw_CV.dtype, torch.float32))
    if scale != 1.0:
        logits_CV = logits_CV * scale
    if softcap is not None:
        logits_CV = softcap * torch.tanh(logits_CV / softcap)
    return logits_CV


@fused(tokens=0, on_cpu=kernels.logprob)
def read(
    raw_CV: Tensor, token_C: Tensor, scale: float, softcap: float | None, temperature: float, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    """(C,) log-probability of each token, and (C,) entropy or None."""
    logits_CV = over(temperature, capped(raw_CV, scale, softcap))
    logprob_CV = logits_CV.log_softmax(-1)  # one pass; logsumexp is four
    logprob_C = logprob_CV.gather(-1, token_C.unsqueeze(-1)).squeeze(-1)
    if not entropy:
        return logprob_C, None
    p_CV = logprob_CV.exp()
    # A logit of -inf has probability 0 and adds nothing.
    return logprob_C, -(p_CV.mul_(logprob_CV.masked_fill_(p_CV == 0, 0.0))).sum(-1)


@fused(tokens=0, on_cpu=kernels.logprob_back)
def to_gradient(
    raw_CV: Tensor,
    token_C: Tensor,
    grad_logprob_C: Tensor,
    grad_entropy_C: Tensor | None,
    scale: float,
    softcap: float | None,
    temperature: float,
    bias: bool,
) -> Tensor:
    """Put the gradient of raw logits in their place; returns that of the bias as `of_raw` does.

    d logprob / d logits = onehot - p;  d entropy / d logits = -p (log p + entropy)
    """
    capped_CV = capped(raw_CV, scale, softcap)
    grad_C1, logits_CV = grad_logprob_C.unsqueeze(-1), over(temperature, capped_CV)
    if grad_entropy_C is None:
        grad_CV = _softmax(logits_CV).mul_(-grad_C1)
    else:
        logprob_CV = logits_CV.log_softmax(-1)
        p_CV = logprob_CV.exp()
        finite_CV = logprob_CV.masked_fill_(p_CV == 0, 0.0)
        entropy_C1 = -(p_CV * finite_CV).sum(-1, keepdim=True)
        weight_CV = finite_CV.add_(entropy_C1).mul_(grad_entropy_C.unsqueeze(-1)).add_(grad_C1)
        grad_CV = p_CV.mul_(weight_CV).neg_()
    if torch.compiler.is_compiling():  # a scatter would need a matrix to scatter into
        is_token_CV = torch.arange(raw_CV.shape[-1], device=raw_CV.device) == token_C.unsqueeze(-1)
        grad_CV = grad_CV + torch.where(is_token_CV, grad_C1, 0.0)
    else:
        grad_CV = grad_CV.scatter_add_(-1, token_C.unsqueeze(-1), grad_C1)
    return of_raw(raw_CV, grad_CV, capped_CV, scale, softcap, temperature, bias)


def _softmax(logits_CV: Tensor) -> Tensor:
    """Written out for the compiler: torch 2.13 fails on a softmax whose input is overwritten behind it."""
    if torch.compiler.is_compiling():
        return (logits_CV - logits_CV.logsumexp(-1, keepdim=True)).exp()
    return logits_CV.softmax(-1)


def of_raw(
    raw_CV: Tensor,
    grad_CV: Tensor,
    capped_CV: Tensor,
    scale: float,
    softcap: float | None,
    temperature: float,
    bias: bool,
) -> Tensor:
    """From the gradient of capped logits over the temperature to that of raw ones, put in their place.

    Returns (V,) their sum over places, the gradient of the bias; where there is none, a tensor of nothing.
    """
    if scale != temperature:
        grad_CV = grad_CV * (scale / temperature)
    if softcap is not None:
        grad_CV = grad_CV * (1 - (capped_CV / softcap) ** 2)
    raw_CV.copy_(grad_CV)
    return grad_CV.sum(0) if bias else grad_CV.new_empty(0)


def kl_gradient(other_CV: Tensor, temperature: float, grad_C: Tensor, capped_CV: Tensor) -> Tensor:
    """(C, V) gradient of the logits over the temperature; `other_CV` is over it already."""
    with torch.enable_grad():
        logits_CV = (capped_CV / temperature).requires_grad_()
        return torch.autograd.grad(kl.exact(logits_CV, other_CV), logits_CV, grad_C)[0]


def over(temperature: float, logits_CV: Tensor) -> Tensor:
    """Logits over the temperature; never in place: in float32 they are the raw logits, which may be kept."""
    return logits_CV if temperature == 1.0 else logits_CV / temperature
