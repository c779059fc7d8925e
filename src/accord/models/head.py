"""From hidden states to log-probabilities of given tokens and to exact KL, holding one group of logits at a time.

Dimensions: T scored tokens, D hidden size, V vocabulary, C tokens of one group or part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from accord.losses import kl
from accord.models import kernels
from accord.models.fused import fuses
from accord.models.in_place import leave, product, sums_exactly, there
from accord.models.linear import by_kernel
from accord.models.logits import capped, kl_gradient, of_raw, over, read, to_gradient

__all__ = ["Distribution", "Head", "add_rows_alone", "exact_kl", "head_of", "token_logprob"]

GROUP_BYTES = 192 * 2**20  # of logits as the product leaves them; that many are kept for the backward pass
GROUP_BYTES_GPU = 5 * 2**29  # where a second product costs a tenth of a step: 10,000 tokens of 128,000 entries
PART_BYTES = 2**20  # of float32 logits worked on at once by each thread of a CPU: they stay in its cache
PART_BYTES_GPU = 48 * 2**20  # where what is done to them is not fused (accord.models.fused): then none are made
"""The result does not depend on any of these."""


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

    def raw(self, hidden_CD: Tensor) -> Tensor:
        """(C, V) hidden @ weight.T + bias, in the precision of the states; both are rounded to it."""
        if not torch.is_grad_enabled():  # a kernel has no gradient
            raw_CV = kernels.linear(hidden_CD.contiguous(), self.weight_VD, self.bias_V)
            if raw_CV is not None:
                return raw_CV
            return nn.functional.linear(hidden_CD, self.weight_VD.to(hidden_CD.dtype), self.bias_V)
        return nn.functional.linear(hidden_CD, self.weight_VD, self.bias_V)

    def logits(self, raw_CV: Tensor) -> Tensor:
        """(C, V) float32 (float64 stays), from what `raw` gave."""
        return capped(raw_CV, self.scale, self.softcap)


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


def add_rows_alone(model: nn.Module) -> None:
    """Where the head is the embedding, let the gradient of the latter be added to that of the former row by row.

    Else a matrix of zeros as large as the vocabulary is made for the rows of a pack's tokens, and added. On a CPU, and
    not where second derivatives are wanted. Autograd adds a sparse gradient in place to one that is there, but into a
    copy of one that is on its way: so the head leaves its own (`accord.models.in_place.leave`). A backward pass without
    the head ends in a sparse gradient.
    """
    if not hasattr(model, "get_input_embeddings"):
        return  # a head of its own
    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    tied = head is not None and head.weight is embedding.weight
    if tied and type(embedding) is nn.Embedding and embedding.weight.device.type == "cpu":
        embedding.sparse = True


def token_logprob(
    hidden_TD: Tensor, head: Head, token_T: Tensor, *, temperature: float = 1.0, entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Log P(token_t | hidden_t) at a temperature, and on request the entropy of that distribution.

        logprob_t = logits_t[token_t] / tau - logsumexp(logits_t / tau)
        entropy_t = -sum_v p_v log p_v,  p = softmax(logits_t / tau)

    Logits are made group by group, and worked on in parts of a few rows. Those of one group are kept for the backward
    pass; if there are several they are made again, so the largest tensor of vocabulary width is one group. The gradient
    of the weight is summed over groups in float32. Under autocast the matrix products run in its dtype, everything
    after them in float32.

    Args:
        hidden_TD: (T, D) state from which each token is predicted; carries the gradient.
        head: the model's vocabulary head; weight and bias receive gradients if they ask for them.
        token_T: (T,) int64.
        temperature: > 0.
        entropy: also return the entropy; costs one more pass over each part.
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
    """KL(policy || other) at each place over the whole vocabulary: `accord.losses.kl.exact`, group by group.

        kl_t = sum_v p_tv (log p_tv - log q_tv),   p, q = softmax(logits / tau)

    As in `token_logprob` logits are made group by group, here always again in the backward pass; the gradient of the
    weight is summed over groups in float32.

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
    """Forward and backward of `token_logprob`."""

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
            groups = _groups(hidden, head)
            ctx.kept = None
            for group in groups:
                raw_CV = head.raw(hidden[group])
                for part, here in _parts(group, raw_CV):
                    logprob_T[part], found_C = read(here, token_T[part], scale, softcap, temperature, entropy)
                    if found_C is not None:
                        entropy_T[part] = found_C
                if len(groups) == 1 and any(ctx.needs_input_grad):
                    ctx.kept = raw_CV
                del raw_CV, here  # before the next group is made
        ctx.save_for_backward(hidden, weight_VD, bias_V, token_T)
        ctx.compute_weight = head.weight_VD  # cast once, if at all, and used again in backward
        ctx.how, ctx.hidden_dtype = how, hidden_TD.dtype
        return logprob_T, entropy_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logprob_T: Tensor, grad_entropy_T: Tensor) -> Any:
        hidden, weight_VD, bias_V, token_T = ctx.saved_tensors
        scale, softcap, temperature, entropy, dtype = ctx.how
        head = Head(ctx.compute_weight, None if bias_V is None else bias_V.detach().to(dtype), scale, softcap)
        sums = _HeadGradients(ctx, hidden, head, grad_logprob_T.dtype, weight_VD)
        kept, ctx.kept = ctx.kept, None  # gradients take its place: a second backward pass makes the logits again
        with torch.autocast(hidden.device.type, enabled=False):
            for group in _groups(hidden, head):
                raw_CV = head.raw(hidden[group]) if kept is None else kept
                for part, here in _parts(group, raw_CV):
                    weights = grad_logprob_T[part], grad_entropy_T[part] if entropy else None
                    sums.note(to_gradient(here, token_T[part], *weights, scale, softcap, temperature, sums.need_bias))
                sums.add(group, raw_CV)
                del raw_CV, here  # before the next group is made
        return (*sums.of(weight_VD, bias_V), None, None)


class _ExactKl(torch.autograd.Function):
    """Forward and backward of `exact_kl`."""

    @staticmethod
    def forward(
        ctx: Any, hidden_TD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, head: Head, other: Distribution, how: Any
    ) -> Tensor:
        temperature, dtype = how
        with torch.autocast(hidden_TD.device.type, enabled=False):
            hidden, cast = hidden_TD.detach().to(dtype), _cast(head, dtype)
            kl_T = hidden.new_empty(len(hidden), dtype=torch.promote_types(dtype, torch.float32))
            for group in _groups(hidden, cast, sets=2):
                raw_CV, other_CV = cast.raw(hidden[group]), other.head.raw(other.state_TD[group])
                for part, here, there in _parts(group, raw_CV, other_CV):
                    sides = cast.logits(here), other.head.logits(there)
                    kl_T[part] = kl.exact(*(over(temperature, logits_CV) for logits_CV in sides))
                del raw_CV, other_CV, here, there, sides  # before the next group is made
        ctx.save_for_backward(hidden, weight_VD, bias_V)
        ctx.head, ctx.other, ctx.how, ctx.hidden_dtype = cast, other, how, hidden_TD.dtype
        return kl_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_T: Tensor) -> Any:
        hidden, weight_VD, bias_V = ctx.saved_tensors
        temperature, _ = ctx.how
        sums = _HeadGradients(ctx, hidden, ctx.head, grad_T.dtype, weight_VD)
        other = ctx.other
        with torch.autocast(hidden.device.type, enabled=False):
            for group in _groups(hidden, ctx.head, sets=2):
                raw_CV, other_CV = ctx.head.raw(hidden[group]), other.head.raw(other.state_TD[group])
                for part, here, there in _parts(group, raw_CV, other_CV):
                    capped_CV, against_CV = ctx.head.logits(here), over(temperature, other.head.logits(there))
                    grad_CV = kl_gradient(against_CV, temperature, grad_T[part], capped_CV)
                    how = (ctx.head.scale, ctx.head.softcap, temperature, sums.need_bias)
                    sums.note(of_raw(here, grad_CV, capped_CV, *how))
                sums.add(group, raw_CV)
                del raw_CV, other_CV, here, there, capped_CV, against_CV, grad_CV  # before the next group is made
        return (*sums.of(weight_VD, bias_V), None, None, None)


class _HeadGradients:
    """Gradients of states, weight and bias, summed over groups from gradients of their logits / temperature."""

    def __init__(self, ctx: Any, hidden: Tensor, head: Head, wide: torch.dtype, weight_VD: Tensor) -> None:
        self.hidden, self.head = hidden, head
        self.need_weight, self.wide = ctx.needs_input_grad[1], wide
        self.need_bias = head.bias_V is not None and ctx.needs_input_grad[2]
        self.hidden_TD = torch.empty_like(hidden, dtype=ctx.hidden_dtype)
        # The first group's, with the others added: no pass over zeros; or what earlier packs left, with all added.
        self.there = there(weight_VD) if self.need_weight and _sums_exactly(hidden, weight_VD) else None
        self.weight_VD: Tensor | None = self.there
        self.bias_V = torch.zeros_like(head.bias_V, dtype=wide) if self.need_bias and head.bias_V is not None else None

    def note(self, bias_V: Tensor) -> None:
        """A part's gradient of the bias."""
        if self.bias_V is not None:
            self.bias_V += bias_V

    def add(self, group: slice, grad_CV: Tensor) -> None:
        """A group, from the gradient of its raw logits."""
        hidden_CD = kernels.linear_back(grad_CV, self.head.weight_VD)
        if hidden_CD is None:
            hidden_CD = grad_CV @ self.head.weight_VD.to(grad_CV.dtype)
        self.hidden_TD[group] = hidden_CD
        if self.need_weight:
            exact_VD = self._exact(grad_CV, self.hidden[group])
            if exact_VD is not None:
                self.weight_VD = exact_VD
                return
            product_VD = grad_CV.T @ self.hidden[group]
            self.weight_VD = product_VD.to(self.wide) if self.weight_VD is None else self.weight_VD.add_(product_VD)

    def _exact(self, grad_CV: Tensor, hidden_CD: Tensor) -> Tensor | None:
        """The weight's gradient with that of a group in it, not rounded to the precision of the products."""
        if self.wide != torch.float32:
            return None
        if sums_exactly(grad_CV.device, grad_CV.dtype):
            return product(grad_CV.T, hidden_CD, self.weight_VD)
        if grad_CV.device.type != "cpu":
            return None
        return kernels.weight_gradient(grad_CV, hidden_CD.contiguous(), self.weight_VD)

    def of(self, weight_VD: Tensor, bias_V: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The sums, in the precision of what they are gradients of."""
        if self.there is not None or (self.weight_VD is not None and leave(weight_VD, self.weight_VD)):
            self.weight_VD = None
        elif self.need_weight and self.weight_VD is None:  # no tokens
            self.weight_VD = torch.zeros_like(weight_VD)
        return (
            self.hidden_TD,
            None if self.weight_VD is None else self.weight_VD.to(weight_VD.dtype),
            None if self.bias_V is None or bias_V is None else self.bias_V.to(bias_V.dtype),
        )


def _sums_exactly(hidden_TD: Tensor, weight_VD: Tensor) -> bool:
    """Whether the gradient of a weight is added up, not rounded, by the products that make it."""
    if sums_exactly(hidden_TD.device, hidden_TD.dtype):
        return True
    return len(hidden_TD) > 0 and by_kernel(weight_VD, hidden_TD.dtype)


def _compute_dtype(hidden_TD: Tensor, head: Head) -> torch.dtype:
    """What the matrix products run in: autocast's, or that of the weights."""
    device = hidden_TD.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.weight_VD.dtype


def _cast(head: Head, dtype: torch.dtype) -> Head:
    """A constant head in another precision; a weight that kernels read as it is stays as it is."""
    weight_VD = head.weight_VD.detach()
    if not by_kernel(weight_VD, dtype):
        weight_VD = weight_VD.to(dtype)
    bias_V = None if head.bias_V is None else head.bias_V.detach().to(dtype)
    return Head(weight_VD, bias_V, head.scale, head.softcap)


def _groups(hidden_TD: Tensor, head: Head, sets: int = 1) -> list[slice]:
    """Places whose logits are made by one product: as few as the bytes of a group allow for all sets, of one size."""
    room = GROUP_BYTES if hidden_TD.device.type == "cpu" else GROUP_BYTES_GPU
    return _even(0, len(hidden_TD), room // (sets * hidden_TD.element_size() * head.weight_VD.shape[0]))


def _parts(group: slice, *raw_CV: Tensor) -> Iterator[tuple[Any, ...]]:
    """A group in parts small enough for caches: (places, these of each of the group's tensors)."""
    device = raw_CV[0].device
    room = torch.get_num_threads() * PART_BYTES if device.type == "cpu" else PART_BYTES_GPU
    most = room // (4 * len(raw_CV) * raw_CV[0].shape[1])
    if len(raw_CV) == 1 and fuses(device, read, to_gradient):
        most = group.stop - group.start
    for part in _even(group.start, group.stop, most):
        yield part, *(x[part.start - group.start : part.stop - group.start] for x in raw_CV)


def _even(start: int, stop: int, most: int) -> list[slice]:
    """As few runs of at most `most` places as there can be, of one size: products of few rows are slow."""
    count = -(-(stop - start) // max(1, most))
    size = -(-(stop - start) // max(1, count)) or 1
    return [slice(at, min(at + size, stop)) for at in range(start, stop, size)]
