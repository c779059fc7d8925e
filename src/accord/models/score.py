"""From a pack of prompt trees to a log-probability, a value or a reward for every response token or response.

The model's trunk runs once over the pack; the vocabulary head runs on the states that predict response tokens, and on
nothing else. A model whose attention cannot take a tree is scored one row per response: same functions, same results.

Dimensions: T response tokens that are scored (in pack order), N responses, D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from accord.models.attention import NAME, TreeLayout, UnsupportedAttention
from accord.models.gates import keep_two
from accord.models.head import Distribution, exact_kl, head_of, token_logprob
from accord.models.layers import whole_layers
from accord.models.linear import own_products
from accord.models.norms import round_once
from accord.models.rotation import rotate_once
from accord.trees import Branch, PromptTree, TreeBatch, pack

__all__ = [
    "ResponseScores",
    "prepare",
    "read_number",
    "response_scores",
    "response_states",
    "rewards",
    "score_head",
    "trunk",
    "values",
]


@dataclass(frozen=True, kw_only=True)
class ResponseScores:
    """What a policy says of the responses of a pack.

    Attributes:
        logprob_T: (T,) nats, of each scored token given all before it, under the distribution at the temperature asked.
        response_T: (T,) int64, 0..N-1, the response each entry belongs to.
        entropy_T: (T,) nats, of the distribution each token was drawn from, or None if not asked for.
        value_T: (T,) reward units, V(s_t) of the state before each token, or None without a value head.
        kl_T: (T,) nats, exact KL to another model's distribution of each token, or None if none was given.
    """

    logprob_T: Tensor
    response_T: Tensor
    entropy_T: Tensor | None = None
    value_T: Tensor | None = None
    kl_T: Tensor | None = None


def base_of(model: nn.Module) -> nn.Module:
    """The transformers model inside a PEFT wrapper (its adapters stay active), or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]


def trunk(model: nn.Module) -> nn.Module:
    """The transformer without its head."""
    base: Any = base_of(model)
    return getattr(base, base.base_model_prefix)


def score_head(model: nn.Module) -> nn.Module:
    """The one-number head of a sequence classifier."""
    base: Any = base_of(model)
    return base.score


def response_scores(
    model: nn.Module,
    batch: TreeBatch,
    *,
    temperature: float = 1.0,
    entropy: bool = False,
    value_head: nn.Module | None = None,
    other: Distribution | None = None,
) -> ResponseScores:
    """Log-probability of every scored token, and on request entropy, value and KL from the same forward pass.

    Args:
        model: a causal model after `prepare`, PEFT-wrapped or not.
        batch: a pack on the model's device.
        temperature: the sampler's: ratios and KL belong to the distribution that was sampled.
        entropy: also the entropy of each token's distribution.
        value_head: (D,) -> (1,), read at the state that predicts each token, never at or behind the last token.
        other: distributions of another model for the same pack; KL(model || other) per token is computed, exactly.
    """
    index_T = batch.scored_index
    state_TD = response_states(model, batch)
    logprob_T, entropy_T = token_logprob(
        state_TD, head_of(model), batch.token_T[index_T], temperature=temperature, entropy=entropy
    )
    own = Distribution(state_TD, head_of(model))
    return ResponseScores(
        logprob_T=logprob_T,
        response_T=batch.scored_response,
        entropy_T=entropy_T,
        value_T=None if value_head is None else read_number(value_head, state_TD),
        kl_T=None if other is None else exact_kl(own, other, temperature=temperature),
    )


def response_states(model: nn.Module, batch: TreeBatch) -> Tensor:
    """(T, D) final hidden state from which each scored token of a pack is predicted."""
    return _states(model, batch, batch.parent_T[batch.scored_index], batch.scored_response)


def values(critic: nn.Module, batch: TreeBatch) -> Tensor:
    """(T,) V(s_t) of the state before each scored token, from a separate critic with a `score` head."""
    return read_number(score_head(critic), response_states(critic, batch))


def rewards(model: nn.Module, batch: TreeBatch) -> Tensor:
    """(N,) reward of each response: the score head read at the response's last token, as transformers reads it."""
    state_ND = _states(model, batch, batch.end_N, torch.arange(batch.count, device=batch.end_N.device))
    return read_number(score_head(model), state_ND)


def prepare(model: nn.Module) -> str | None:
    """Switch a model to tree attention if that gives what one row per response gives; say why if it does not.

    The check runs a small tree both ways in the model's own weights. Returns None if trees are used, else the reason;
    the model is then scored one row per response, with its own attention.
    """
    base: Any = base_of(model)
    own = base.config._attn_implementation
    try:
        base.set_attn_implementation(NAME)
        gap = _tree_gap(model)
    except (UnsupportedAttention, TypeError, RuntimeError, ValueError, AttributeError) as error:
        reason: str | None = f"{type(error).__name__}: {error}"
    else:
        reason = None if gap < 1e-3 else f"states of a tree differ by {gap:.2g} from those of single rows"
    if reason is not None:
        base.set_attn_implementation(own)
    round_once(model)
    keep_two(model)
    rotate_once(model)
    own_products(trunk(model))
    if reason is None:
        whole_layers(trunk(model))
    _check_head(model)
    return reason


@torch.no_grad()
def _check_head(model: nn.Module) -> None:
    """Our log-probabilities are the model's own.

    Raises: ValueError: the model does more to its logits than `head_of` knows; training it would be silently wrong.
    """
    base: Any = base_of(model)
    if base.get_output_embeddings() is None:
        return  # a classifier
    token_T = torch.arange(1, 9, device=next(base.parameters()).device)
    training = model.training
    model.eval()
    try:
        ids = token_T.unsqueeze(0)
        state_TD = trunk(model)(input_ids=ids, use_cache=False).last_hidden_state[0]
        ours, _ = token_logprob(state_TD, head_of(model), token_T)
        logits_TV = base(input_ids=ids, use_cache=False).logits[0].float()
    finally:
        model.train(training)
    gap = float((ours - logits_TV.log_softmax(-1).gather(-1, token_T.unsqueeze(-1)).squeeze(-1)).abs().max())
    if not gap < 0.02:
        raise ValueError(
            f"{type(base).__name__} does more to its logits than weights, bias, scale and cap of its head: "
            f"log-probabilities would be off by {gap:.2g} nats; this model family is not supported"
        )


@torch.no_grad()
def _tree_gap(model: nn.Module) -> float:
    """Largest relative difference of states between a pack of two trees and one row per response."""
    base: Any = base_of(model)
    window = getattr(base.config.get_text_config(), "sliding_window", None) or 0
    size = min(window + 4, 600) if window else 12  # the prompt must outgrow the window for the check to see it
    vocabulary = base.get_input_embeddings().num_embeddings
    ids = [(7 * i * i + 3 * i + 1) % vocabulary for i in range(size + 40)]
    branches = tuple(Branch.response(ids[size + 7 * k : size + 7 * k + 5 + k]) for k in range(3))
    batch = pack([PromptTree(tuple(ids[:size]), branches), PromptTree(tuple(ids[3:9]), branches[1:])])
    batch = batch.to(next(base.parameters()).device)
    where = (batch.parent_T[batch.scored_index], batch.scored_response)
    training = model.training
    model.eval()
    try:
        packed, rows = _packed_states(model, batch, *where), _row_states(model, batch, *where)
    finally:
        model.train(training)
    return float((packed - rows).abs().max() / rows.abs().max().clamp_min(1e-6))


def read_number(head: nn.Module, state_TD: Tensor) -> Tensor:
    """(T,) what a head of one number says of each state."""
    # The one number per state is computed in the head's own precision: bf16 would leave 8 bits of a reward.
    with torch.autocast(state_TD.device.type, enabled=False):
        weight: Any = next(head.parameters())
        return head(state_TD.to(weight.dtype)).squeeze(-1)


def _states(model: nn.Module, batch: TreeBatch, index: Tensor, response: Tensor) -> Tensor:
    """(len(index), D) final states at places of the pack, each as the given response sees it."""
    base: Any = base_of(model)
    read = _packed_states if base.config._attn_implementation == NAME else _row_states
    return read(model, batch, index, response)


def _packed_states(model: nn.Module, batch: TreeBatch, index: Tensor, response: Tensor) -> Tensor:
    """One forward over the pack; a prompt's state is the same whichever response asks."""
    out = trunk(model)(
        input_ids=batch.token_T.unsqueeze(0),
        position_ids=batch.position_T.unsqueeze(0),
        # A 4-d mask is passed on as it is, so transformers builds none of its own (T x T); tree attention ignores it.
        attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=batch.token_T.device),
        use_cache=False,
        tree=TreeLayout(batch),
    )
    return out.last_hidden_state[0][index]


def _row_states(model: nn.Module, batch: TreeBatch, index: Tensor, response: Tensor) -> Tensor:
    """One padded row per response: the prompt is computed K times."""
    rows = [tree.prompt + branch.tokens for tree in batch.trees for branch in tree.branches]
    width = max(map(len, rows))
    token_NS = torch.tensor([row + (0,) * (width - len(row)) for row in rows], device=index.device)
    mask_NS = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=index.device)
    out = trunk(model)(input_ids=token_NS, attention_mask=mask_NS, use_cache=False)
    return out.last_hidden_state[response, batch.position_T[index]]
