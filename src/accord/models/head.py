"""Log-probabilities of given tokens from hidden states, without ever holding all logits, in either direction.

Dimensions: T scored tokens, D hidden size, V vocabulary, C tokens of one chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["Head", "head_of", "token_logprob"]

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
    device = hidden_TD.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.weight_VD.dtype
    logprob_T, entropy_T = _TokenLogprob.apply(  # type: ignore[no-untyped-call]
        hidden_TD, head.weight_VD, head.bias_V, token_T, (head.scale, head.softcap, temperature, entropy, dtype)
    )
    return logprob_T, entropy_T if entropy else None


class _TokenLogprob(torch.autograd.Function):
    """Chunked forward and recomputed backward of `token_logprob`."""

    @staticmethod
    def forward(
        ctx: Any, hidden_TD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, token_T: Tensor, how: Any
    ) -> Any:
        scale, softcap, temperature, entropy, dtype = how
        with torch.autocast(hidden_TD.device.type, enabled=False):
            hidden = hidden_TD.detach().to(dtype)
            head = Head(
                weight_VD.detach().to(dtype), None if bias_V is None else bias_V.detach().to(dtype), scale, softcap
            )
            wide = torch.promote_types(dtype, torch.float32)
            logprob_T = hidden.new_empty(token_T.shape, dtype=wide)
            entropy_T = hidden.new_empty(token_T.shape if entropy else (0,), dtype=wide)
            for part in _chunks(token_T.numel(), weight_VD.shape[0]):
                logits_CV = head.logits(hidden[part]).div_(temperature)
                norm_C = logits_CV.logsumexp(-1)
                logprob_T[part] = logits_CV.gather(-1, token_T[part].unsqueeze(-1)).squeeze(-1) - norm_C
                if entropy:
                    p_CV = (logits_CV - norm_C.unsqueeze(-1)).exp_()
                    # A logit of -inf has probability 0 and adds nothing.
                    entropy_T[part] = norm_C - (p_CV * logits_CV.masked_fill(p_CV == 0, 0.0)).sum(-1)
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
        wide = grad_logprob_T.dtype
        need_weight, need_bias = ctx.needs_input_grad[1], bias_V is not None and ctx.needs_input_grad[2]
        grad_hidden_TD = torch.empty_like(hidden, dtype=ctx.hidden_dtype)
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=wide) if need_weight else None
        grad_bias_V = torch.zeros_like(bias_V, dtype=wide) if need_bias else None
        with torch.autocast(hidden.device.type, enabled=False):
            for part in _chunks(token_T.numel(), weight_VD.shape[0]):
                capped_CV = head.logits(hidden[part])
                logprob_CV = (capped_CV / temperature).log_softmax(-1)
                p_CV = logprob_CV.exp()
                # d logprob / d logits = onehot - p;  d entropy / d logits = -p (log p + entropy)
                grad_CV = -grad_logprob_T[part].unsqueeze(-1) * p_CV
                grad_CV.scatter_add_(-1, token_T[part].unsqueeze(-1), grad_logprob_T[part].unsqueeze(-1))
                if entropy:
                    finite_CV = logprob_CV.masked_fill_(p_CV == 0, 0.0)
                    entropy_C1 = -(p_CV * finite_CV).sum(-1, keepdim=True)
                    grad_CV -= grad_entropy_T[part].unsqueeze(-1) * p_CV * (finite_CV + entropy_C1)
                grad_CV.mul_(scale / temperature)
                if softcap is not None:
                    grad_CV *= 1 - (capped_CV / softcap) ** 2
                grad_C = grad_CV.to(dtype)
                grad_hidden_TD[part] = (grad_C @ ctx.compute_weight).to(ctx.hidden_dtype)
                if grad_weight_VD is not None:
                    grad_weight_VD += grad_C.T @ hidden[part]
                if grad_bias_V is not None:
                    grad_bias_V += grad_CV.sum(0)
        return (
            grad_hidden_TD,
            None if grad_weight_VD is None else grad_weight_VD.to(weight_VD.dtype),
            None if grad_bias_V is None or bias_V is None else grad_bias_V.to(bias_V.dtype),
            None,
            None,
        )


def _chunks(tokens: int, vocabulary: int) -> list[slice]:
    size = max(1, CHUNK_BYTES // (4 * vocabulary))
    return [slice(start, min(start + size, tokens)) for start in range(0, tokens, size)]
