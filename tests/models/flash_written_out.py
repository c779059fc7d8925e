"""The two operations of flash attention that PyTorch has on a GPU alone, written out for any device."""

from __future__ import annotations

from typing import Any

import torch

from accord.models import attention, flash, layers

__all__ = ["as_on_a_gpu", "backward_written_out", "written_out"]


def as_on_a_gpu(monkeypatch: Any) -> None:
    """Let a CPU go the way of a GPU: flash attention, its two operations in float64, and layers as one function."""
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", written_out)
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_backward", backward_written_out)
    for module in (layers, flash):
        monkeypatch.setattr(module, "runs_on", lambda device, width: True)
    monkeypatch.setattr(attention, "_in_blocks", lambda device, dropout: False)


def pieces(q_start, k_start):
    for i in range(len(q_start) - 1):
        yield slice(int(q_start[i]), int(q_start[i + 1])), slice(int(k_start[i]), int(k_start[i + 1]))


def weights(q, k, lse, scaling):
    """(H, n, m) exp(score - lse); the last query is at the last key."""
    score = torch.einsum("nhd,mhd->hnm", q, k.repeat_interleave(q.shape[1] // k.shape[1], 1)) * scaling
    later = torch.ones(score.shape[1:]).triu(1 + score.shape[2] - score.shape[1])
    score = score.masked_fill(later.bool(), -torch.inf)
    lse = score.logsumexp(-1) if lse is None else lse
    return (score - lse.unsqueeze(-1)).exp(), lse


def written_out(q, k, v, q_start, k_start, longest_q, longest_k, dropout, causal, debug, *, scale):
    assert (dropout, causal, debug) == (0.0, True, False)
    dtype, (q, k, v) = q.dtype, (x.double() for x in (q, k, v))
    out, lse = torch.empty_like(q), q.new_empty(q.shape[1], len(q))
    for query, key in pieces(q_start, k_start):
        share, lse[:, query] = weights(q[query], k[key], None, scale)
        out[query] = torch.einsum("hnm,mhd->nhd", share, v[key].repeat_interleave(q.shape[1] // v.shape[1], 1))
        assert query.stop - query.start <= longest_q
        assert key.stop - key.start <= longest_k
    return out.to(dtype), lse.to(torch.promote_types(dtype, torch.float32)), None, None, None


def backward_written_out(
    grad, q, k, v, out, lse, q_start, k_start, longest_q, longest_k, dropout, causal, state, unused, *, scale
):
    dtype, (grad, q, k, v, out, lse) = q.dtype, (x.double() for x in (grad, q, k, v, out, lse))
    grads = tuple(torch.zeros_like(x) for x in (q, k, v))
    groups, repeats = k.shape[1], q.shape[1] // k.shape[1]
    for query, key in pieces(q_start, k_start):
        share, _ = weights(q[query], k[key], lse[:, query], scale)
        wide_k, wide_v = k[key].repeat_interleave(repeats, 1), v[key].repeat_interleave(repeats, 1)
        towards = torch.einsum("nhd,mhd->hnm", grad[query], wide_v)
        score_grad = share * (towards - (grad[query] * out[query]).sum(-1).T.unsqueeze(-1)) * scale
        grads[0][query] = torch.einsum("hnm,mhd->nhd", score_grad, wide_k)
        for part, of in ((grads[1], torch.einsum("hnm,nhd->mhd", score_grad, q[query])),
                         (grads[2], torch.einsum("hnm,nhd->mhd", share, grad[query]))):  # fmt: skip
            part[key] = of.view(len(of), groups, repeats, -1).sum(2)
    return tuple(part.to(dtype) for part in grads)
