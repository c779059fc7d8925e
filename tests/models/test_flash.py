"""Flash attention over runs, with the kernel written out: which runs it gets, and that both calls merge exactly."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from accord.models import flash
from accord.models.blocks import BlockPlan, block_attention
from accord.models.flash import FlashPlan, Runs, flash_attention, takes
from accord.trees import Branch, PromptTree, pack


def tree(prompt: int, *responses: int) -> PromptTree:
    return PromptTree(tuple(range(prompt)), tuple(Branch.response(range(size)) for size in responses))


TREES = {
    "one response": [tree(3, 4), tree(1, 2)],
    "pairs": [tree(5, 3, 4), tree(2, 1, 6)],
    "mixed": [tree(4, 2), tree(3, 1, 2, 5), tree(7, 3), tree(1, 1, 1)],
}


def pieces(runs: Runs):
    for i in range(len(runs.query_start) - 1):
        yield (slice(int(s[i]), int(s[i + 1])) for s in (runs.query_start, runs.key_start))


def weights(q, k, lse, causal, scaling):
    """(H, n, m) exp(score - lse)."""
    score = torch.einsum("nhd,mhd->hnm", q, k.repeat_interleave(q.shape[1] // k.shape[1], 1)) * scaling
    if causal:
        score = score.masked_fill(torch.ones(score.shape[1:]).triu(1).bool(), -torch.inf)
    lse = score.logsumexp(-1) if lse is None else lse
    return (score - lse.unsqueeze(-1)).exp(), lse


def written_out(q, k, v, runs, causal, scaling):
    out, lse = torch.empty_like(q), q.new_empty(q.shape[1], len(q))
    for query, key in pieces(runs):
        share, lse[:, query] = weights(q[query], k[key], None, causal, scaling)
        out[query] = torch.einsum("hnm,mhd->nhd", share, v[key].repeat_interleave(q.shape[1] // v.shape[1], 1))
        assert query.stop - query.start <= runs.longest_query
        assert key.stop - key.start <= runs.longest_key
    return out, lse


def backward_written_out(grad, q, k, v, out, lse, runs, causal, scaling):
    grads = tuple(torch.zeros_like(x) for x in (q, k, v))
    groups, repeats = k.shape[1], q.shape[1] // k.shape[1]
    for query, key in pieces(runs):
        share, _ = weights(q[query], k[key], lse[:, query], causal, scaling)
        wide_k, wide_v = k[key].repeat_interleave(repeats, 1), v[key].repeat_interleave(repeats, 1)
        towards = torch.einsum("nhd,mhd->hnm", grad[query], wide_v)
        score_grad = share * (towards - (grad[query] * out[query]).sum(-1).T.unsqueeze(-1)) * scaling
        grads[0][query] = torch.einsum("hnm,mhd->nhd", score_grad, wide_k)
        for part, of in ((grads[1], torch.einsum("hnm,nhd->mhd", score_grad, q[query])),
                         (grads[2], torch.einsum("hnm,nhd->mhd", share, grad[query]))):  # fmt: skip
            part[key] = of.view(len(of), groups, repeats, -1).sum(2)
    return grads


@pytest.mark.parametrize("name", TREES)
def test_both_calls_merge_to_what_all_scores_at_once_give(monkeypatch, name):
    monkeypatch.setattr(flash, "_forward", written_out)
    monkeypatch.setattr(flash, "_backward", backward_written_out)
    batch = pack(TREES[name])
    generator = torch.Generator().manual_seed(0)
    count = batch.token_T.numel()
    states = [torch.randn(count, h, 8, generator=generator, dtype=torch.float64) for h in (4, 2, 2)]
    grad = torch.randn(count, 4, 8, generator=generator, dtype=torch.float64)
    found = []
    for attend in (
        lambda *x: flash_attention(*x, FlashPlan.of(batch.trees, torch.device("cpu")), 0.3),
        lambda *x: block_attention(*x, BlockPlan(batch), None, 0.3),
    ):
        leaves = [x.clone().requires_grad_() for x in states]
        out = attend(*leaves)
        found.append([out.detach(), *torch.autograd.grad(out, leaves, grad)])
    for ours, expected in zip(*found, strict=True):
        assert_close(ours, expected)


def test_runs_by_hand():
    plan = FlashPlan.of(TREES["mixed"], torch.device("cpu"))
    assert plan.own.query_start.tolist() == [0, 6, 10, 12, 17, 27, 29, 30]  # a prompt with its first response is one
    assert plan.own.longest_query == 10
    assert plan.prompt is not None
    assert plan.prompt.query_start.tolist() == [0, 7, 8]
    assert plan.prompt.key_start.tolist() == [0, 3, 4]
    assert (plan.prompt.longest_query, plan.prompt.longest_key) == (7, 3)
    assert plan.later_L.tolist() == [*range(10, 17), 29]
    assert plan.prompt_P.tolist() == [6, 7, 8, 27]
    assert FlashPlan.of(TREES["one response"], torch.device("cpu")).prompt is None


def test_a_cpu_is_not_taken():
    q = torch.zeros(3, 2, 8, dtype=torch.bfloat16)
    assert not takes(q, q, None)
