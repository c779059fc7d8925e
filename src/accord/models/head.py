"""From hidden states to log-probabilities of given tokens and to exact KL, never holding all logits, either direction.

Dimensions: T scored tokens, D hidden size, V vocabulary, C tokens of one chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from accord.losses import kl

__all__ = ["Distribution", "Head", "exact_kl", "head_of", "token_logprob"]

CHUNK_BYTES = 48 * 2**20  # of float32 logits held at once; the result does not depend on it


@dataclass(frozen=True)
class Head:
    """The vocabulary head of a causal model: logits = cap(scale * (hidden @ weight.T + bias)).

    Attributes:
        weight_VD: output embedding, tied to the input embedding or not.
        bias_V: or None.
        scale: Cohere's `logit_scale`, or 1 / Granite's `logits_scaling`; else 1.
        softcap: c of c * tanh(logits / c) (Gemma 2), or None.
    """

    weight_VD: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden_CD: Tensor) -> Tensor:
        """(C, V) float32 (float64 stays), for a chunk."""
        raw_CV = nn.functional.linear(hidden_CD, self.weight_VD, self.bias_V)
        logits_CV = raw_CV.to(torch.promote_types(raw_CV.dtype, torch.float32))
        if self.scale != 1.0:
            logits_CV = logits_CV * self.scale
        if self.softcap is not None:
            logits_CV = self.softcap * torch.tanh(logits_CV / self.softcap)
        return logits_CV


@dataclass(frozen=True)
class Distribution:
    """The next-token distributions of a model at some places, as what they are computed from.

    Attributes:
        state_TD: final hidden states.
        head: of the same model.
    """

    state_TD: Tensor
    head: Head


def head_of(model: nn.Module) -> Head:
    """Read the head off a transformers causal model (PEFT-wrapped or not)."""
    output: Any = model.get_output_embeddings()  # type: ignore[operator]
    config: Any = model.config.get_text_config()  # type: ignore[operator, union-attr]
    scale = getattr(config, "logit_scale", None) or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)
    return Head(output.weight, getattr(output, "bias", None), scale, getattr(config, "final_logit_softcapping", None))


def token_logprob(
    hidden_TD: Tensor, head: Head, token_T: Tensor, *, temperature: float = 1.0, entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Log P(token_t | hidden_t) at a temperature, and on request the entropy of that distribution.

        logprob_t = logits_t[token_t] / tau - logsumexp(logits_t / tau)
        entropy_t = -sum_v p_v log p_v,  p = softmax(logits_t / tau)

    Logits are made chunk by chunk and made again in the backward pass, so the largest tensor of vocabulary width is one
    chunk; the gradient of the weight is summed over chunks in float32. Under autocast the matrix products run in its
    dtype, everything after them in float32.

    Args:
        hidden_TD: (T, D) state from which each token is predicted; carries the gradient.
        head: the model's vocabulary head; weight and bias receive gradients if they ask for them.
        token_T: (T,) int64.
        temperature: > 0.
        entropy: also return the entropy; costs one more pass over each chunk.
    Returns: (T,) nats, and (T,) nats or None; float32, or float64 for float64 weights.
    Raises: ValueError: temperature <= 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; log-probabilities need a temperature above 0")
    how = (head.scale, head.softcap, temperature, entropy, _compute_dtype(hidden_TD, head))
    logprob_T, entropy_T = _TokenLogprob.apply(  # type: ignore[no-untyped-call]
        hidden_TD, head.weight_VD, head.bias_V, token_T, how
    )
    return logprob_T, entropy_T if entropy else None


def exact_kl(policy: Distribution, other: Distribution, *, temperature: float = 1.0) -> Tensor:
    """KL(policy || other) at each place over the whole vocabulary: `accord.losses.kl.exact`, chunk by chunk.

        kl_t = sum_v p_tv (log p_tv - log q_tv),   p, q = softmax(logits / tau)

    As in `token_logprob` logits are made chunk by chunk, and again in the backward pass; the gradient of the weight is
    summed over chunks in float32.

    Args:
        policy: p; its states, weight and bias receive gradients if they ask for them.
        other: q at the same places; constant.
        temperature: > 0, of both.
    Returns: (T,) nats; float32, or float64 for float64 weights. Equal states under equal heads give exactly 0.
    Raises: ValueError: temperature <= 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; distributions need a temperature above 0")
    dtype = _compute_dtype(policy.state_TD, policy.head)
    with torch.autocast(policy.state_TD.device.type, enabled=False):
        constant = Distribution(other.state_TD.detach().to(dtype), _cast(other.head, dtype))
    result: Tensor = _ExactKl.apply(  # type: ignore[no-untyped-call]
        policy.state_TD, policy.head.weight_VD, policy.head.bias_V, policy.head, constant, (temperature, dtype)
    )
    return result


class _TokenLogprob(torch.autograd.Function):
    """Chunked forward and recomputed backward of `token_logprob`."""

    @staticmethod
    def forward(
        ctx: Any, hidden_TD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, token_T: Tensor, how: Any
    ) -> Any:
        scale, softcap, temperature, entropy, dtype = how
        with torch.autocast(hidden_TD.device.type, enabled=False):
            hidden = hidden_TD.detach().to(dtype)
            head = _cast(Head(weight_VD, bias_V, scale, softcap), dtype)
            wide = torch.promote_types(dtype, torch.float32)
            logprob_T = hidden.new_empty(token_T.shape, dtype=wide)
            entropy_T = hidden.new_empty(token_T.shape if entropy else (0,), dtype=wide)
            for part in _chunks(token_T.numel(), weight_VD.shape[0]):
                logprob_CV = _at(temperature, head.logits(hidden[part])).log_softmax(-1)  # one pass; logsumexp is four
                logprob_T[part] = logprob_CV.gather(-1, token_T[part].unsqueeze(-1)).squeeze(-1)
                if entropy:
                    p_CV = logprob_CV.exp()
                    # A logit of -inf has probability 0 and adds nothing.
                    entropy_T[part] = -(p_CV.mul_(logprob_CV.masked_fill_(p_CV == 0, 0.0))).sum(-1)
        ctx.save_for_backward(hidden, weight_VD, bias_V, token_T)
        ctx.compute_weight = head.weight_VD  # cast once, used again in backward
        ctx.how, ctx.hidden_dtype = how, hidden_TD.dtype
        return logprob_T, entropy_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logprob_T: Tensor, grad_entropy_T: Tensor) -> Any:
        hidden, weight_VD, bias_V, token_T = ctx.saved_tensors
        scale, softcap, temperature, entropy, dtype = ctx.how
        head = Head(ctx.compute_weight, None if bias_V is None else bias_V.detach().to(dtype), scale, softcap)
        sums = _HeadGradients(ctx, hidden, weight_VD, head, temperature, grad_logprob_T.dtype)
        with torch.autocast(hidden.device.type, enabled=False):
            for part in _chunks(token_T.numel(), weight_VD.shape[0]):
                capped_CV = head.logits(hidden[part])
                grad_C1 = grad_logprob_T[part].unsqueeze(-1)
                # d logprob / d logits = onehot - p;  d entropy / d logits = -p (log p + entropy)
                if entropy:
                    logprob_CV = (capped_CV / temperature).log_softmax(-1)
                    p_CV = logprob_CV.exp()
                    finite_CV = logprob_CV.masked_fill_(p_CV == 0, 0.0)
                    entropy_C1 = -(p_CV * finite_CV).sum(-1, keepdim=True)
                    weight_CV = finite_CV.add_(entropy_C1).mul_(grad_entropy_T[part].unsqueeze(-1)).add_(grad_C1)
                    grad_CV = p_CV.mul_(weight_CV).neg_()
                else:
                    grad_CV = (capped_CV if temperature == 1.0 else capped_CV / temperature).softmax(-1).mul_(-grad_C1)
                grad_CV.scatter_add_(-1, token_T[part].unsqueeze(-1), grad_C1)
                sums.add(part, capped_CV, grad_CV)
        return (*sums.of(weight_VD, bias_V), None, None)


class _ExactKl(torch.autograd.Function):
    """Chunked forward and recomputed backward of `exact_kl`."""

    @staticmethod
    def forward(
        ctx: Any, hidden_TD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, head: Head, other: Distribution, how: Any
    ) -> Tensor:
        temperature, dtype = how
        with torch.autocast(hidden_TD.device.type, enabled=False):
            hidden, cast = hidden_TD.detach().to(dtype), _cast(head, dtype)
            kl_T = hidden.new_empty(len(hidden), dtype=torch.promote_types(dtype, torch.float32))
            for part in _chunks(len(hidden), 2 * weight_VD.shape[0]):  # two sets of logits are held
                logits_CV = cast.logits(hidden[part]).div_(temperature)
                kl_T[part] = kl.exact(logits_CV, other.head.logits(other.state_TD[part]).div_(temperature))
        ctx.save_for_backward(hidden, weight_VD, bias_V)
        ctx.head, ctx.other, ctx.how, ctx.hidden_dtype = cast, other, how, hidden_TD.dtype
        return kl_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_T: Tensor) -> Any:
        hidden, weight_VD, bias_V = ctx.saved_tensors
        temperature, _ = ctx.how
        sums = _HeadGradients(ctx, hidden, weight_VD, ctx.head, temperature, grad_T.dtype)
        with torch.autocast(hidden.device.type, enabled=False):
            for part in _chunks(len(hidden), 2 * weight_VD.shape[0]):
                capped_CV = ctx.head.logits(hidden[part])
                with torch.enable_grad():
                    logits_CV = (capped_CV / temperature).requires_grad_()
                    other_CV = ctx.other.head.logits(ctx.other.state_TD[part]).div_(temperature)
                    (grad_CV,) = torch.autograd.grad(kl.exact(logits_CV, other_CV), logits_CV, grad_T[part])
                sums.add(part, capped_CV, grad_CV)
        return (*sums.of(weight_VD, bias_V), None, None, None)


class _HeadGradients:
    """Gradients of states, weight and bias, summed over chunks from gradients of the chunks' logits / temperature."""

    def __init__(
        self, ctx: Any, hidden: Tensor, weight_VD: Tensor, head: Head, temperature: float, wide: torch.dtype
    ) -> None:
        self.hidden, self.head, self.temperature = hidden, head, temperature
        need_weight, need_bias = ctx.needs_input_grad[1], head.bias_V is not None and ctx.needs_input_grad[2]
        self.hidden_TD = torch.empty_like(hidden, dtype=ctx.hidden_dtype)
        self.need_weight, self.wide = need_weight, wide
        self.weight_VD: Tensor | None = None  # the first chunk's, with the others added: no pass over zeros
        self.bias_V = torch.zeros_like(head.bias_V, dtype=wide) if need_bias and head.bias_V is not None else None

    def add(self, part: slice, capped_CV: Tensor, grad_CV: Tensor) -> None:
        """A chunk: its logits, and the gradient of these over the temperature, which is overwritten."""
        if self.head.scale != self.temperature:
            grad_CV.mul_(self.head.scale / self.temperature)
        if self.head.softcap is not None:
            grad_CV *= 1 - (capped_CV / self.head.softcap) ** 2
        grad_C = grad_CV.to(self.hidden.dtype)
        self.hidden_TD[part] = (grad_C @ self.head.weight_VD).to(self.hidden_TD.dtype)
        if self.need_weight:
            product_VD = grad_C.T @ self.hidden[part]
            self.weight_VD = product_VD.to(self.wide) if self.weight_VD is None else self.weight_VD.add_(product_VD)
        if self.bias_V is not None:
            self.bias_V += grad_CV.sum(0)

    def of(self, weight_VD: Tensor, bias_V: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The sums, in the precision of what they are gradients of."""
        if self.need_weight and self.weight_VD is None:  # no tokens
            self.weight_VD = torch.zeros_like(weight_VD)
        return (
            self.hidden_TD,
            None if self.weight_VD is None else self.weight_VD.to(weight_VD.dtype),
            None if self.bias_V is None or bias_V is None else self.bias_V.to(bias_V.dtype),
        )


def _compute_dtype(hidden_TD: Tensor, head: Head) -> torch.dtype:
    """What the matrix products run in: autocast's, or that of the weights."""
    device = hidden_TD.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.weight_VD.dtype


def _cast(head: Head, dtype: torch.dtype) -> Head:
    """A constant head in another precision."""
    bias_V = None if head.bias_V is None else head.bias_V.detach().to(dtype)
    return Head(head.weight_VD.detach().to(dtype), bias_V, head.scale, head.softcap)


def _at(temperature: float, logits_CV: Tensor) -> Tensor:
    """Logits over the temperature, in place."""
    return logits_CV if temperature == 1.0 else logits_CV.div_(temperature)


def _chunks(tokens: int, vocabulary: int) -> list[slice]:
    """As few chunks as CHUNK_BYTES allows, of one size: products of few rows are slow."""
    count = -(-tokens // max(1, CHUNK_BYTES // (4 * vocabulary)))
    size = -(-tokens // max(1, count)) or 1
    return [slice(start, min(start + size, tokens)) for start in range(0, tokens, size)]
