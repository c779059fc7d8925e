"""TRPO: one natural-gradient step per rollout, as large as the trust region allows; the value function apart from it.

    minimise  mean over tokens of -rho A   subject to   mean over tokens of KL(pi_old || pi) <= max_kl
    x = F^-1 g by conjugate gradients,  step = sqrt(2 max_kl / x.Fx) x,  halved until loss and KL keep their promise

g is minus the gradient of the loss, F the second derivative of the mean KL at the present parameters. F is never
formed: each product with it differentiates the KL twice, pack by pack, and makes the graph anew, so that memory is that
of one pack (`fisher_memory.py`). Source: Schulman et al. 2015 (arXiv:1502.05477), appendix C; the arithmetic is that of
`accord.losses.policy`.

Dimensions: D all trained parameters of the policy, flattened, in the model's order; T scored tokens of a pack.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from accord.losses import kl
from accord.losses import policy as losses
from accord.models.head import Distribution, Head, exact_kl, head_of, token_logprob
from accord.models.in_place import backward
from accord.models.score import read_number, response_states, values
from accord.train import loop
from accord.train.configs import PpoConfig
from accord.train.experience import Experience, to_pack
from accord.train.scoring import rows_of
from accord.train.updates import Parts
from accord.trees import TreeBatch, budget_packs, pack

__all__ = ["Piece", "fisher_product", "improve", "natural_step", "pieces_of"]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A pack of a rollout with what the rollout knows of its scored tokens.

    Attributes:
        batch: the pack, on the model's device.
        old_T: nats, under the policy that sampled.
        advantage_T: of each token.
        return_T: what the value function is fitted to.
    """

    batch: TreeBatch
    old_T: Tensor
    advantage_T: Tensor
    return_T: Tensor

    @property
    def token_T(self) -> Tensor:
        """(T,) ids of the scored tokens."""
        return self.batch.token_T[self.batch.scored_index]


def improve(parts: Parts, experience: Experience, number: int, steps: range, rows_B: Sequence[int]) -> dict[str, float]:
    """One natural-gradient step of the policy and some ordinary ones of the value function, on a rollout.

    Args:
        parts: what they work with.
        experience: the rollout.
        number: of the rollout in the run.
        steps: the one step of the run it makes.
        rows_B: rows of the data its prompts came from.
    """
    began = time.perf_counter()
    config, trees = parts.config, experience.responses.trees
    loop.steady(parts.actor.policy)
    where = loop.place(parts.run, steps.start, rows_B)
    pieces = pieces_of(experience, range(len(trees)), parts)
    share = seeded_share(len(trees), config, number)
    fisher_pieces = pieces if len(share) == len(trees) else pieces_of(experience, share, parts)
    with parts.precision.forward():
        figures = natural_step(parts.actor.policy, pieces, fisher_pieces, config)
        if not math.isfinite(figures["loss"] + figures["grad_norm"]):
            raise loop.Diverged(f"loss {figures['loss']:.4g}, gradient norm {figures['grad_norm']:.4g} at {where()}")
        rate = loop.learning_rate(steps.start, parts.total, config)
        figures |= fit_values(parts, pieces, rate, where)
    seconds = time.perf_counter() - began
    return figures | {
        "learning_rate": rate,
        "updates": figures["trpo__accepted"],
        "seconds__update": seconds,
        "tokens_per_second": sum(tree.length for tree in trees) / seconds,
    }


def pieces_of(experience: Experience, chosen: Sequence[int], parts: Parts) -> list[Piece]:
    """Packs of some trees of a rollout within the token budget."""
    trees, device = experience.responses.trees, loop.device_of(parts.actor.policy)
    assert experience.logprob_NT is not None
    assert experience.return_NT is not None
    tables = {"old_T": experience.logprob_NT, "advantage_T": experience.advantage_NT, "return_T": experience.return_NT}
    pieces = []
    for group in budget_packs([trees[b].length for b in chosen], parts.config.micro_tokens):
        members = [chosen[i] for i in group]
        rows = rows_of(members, trees, experience.first_B)
        known = {name: to_pack(table_NT, experience.mask_NT, rows).to(device) for name, table_NT in tables.items()}
        pieces.append(Piece(batch=pack([trees[b] for b in members]).to(device), **known))
    return pieces


def seeded_share(count: int, config: PpoConfig, number: int) -> list[int]:
    """The prompts of rollout `number` on which the Fisher matrix is estimated, a function of the seed."""
    assert config.fisher_share is not None
    generator = torch.Generator().manual_seed((config.seed * 1_000_003 + number) % 2**63)
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return sorted(order[: math.ceil(config.fisher_share * count)])


# -- the policy's step -------------------------------------------------------------------------------------------------


def natural_step(
    policy: nn.Module, pieces: Sequence[Piece], fisher_pieces: Sequence[Piece], config: PpoConfig
) -> dict[str, float]:
    """Move the policy to the best point the line search accepts, or leave it exactly where it was.

    Args:
        policy: at the parameters that sampled.
        pieces: the whole rollout: its gradient, and what the line search measures.
        fisher_pieces: the part the Fisher matrix is estimated on.
        config: the job.
    Returns: figures; `loss` is that of before the step.
    """
    assert config.cg_iterations is not None
    assert config.max_kl is not None
    assert config.backtracks is not None
    parameters = loop.trainable(policy)
    start_D = _flat(parameters)
    gradient_D, old = surrogate_gradient(policy, pieces, config)

    def product(vector_D: Tensor) -> Tensor:
        return fisher_product(policy, fisher_pieces, vector_D, config)

    # The tolerance is of the squared residual: relative to the gradient, whose scale is that of the rewards.
    direction_D = losses.conjugate_gradient(
        product, gradient_D, iterations=config.cg_iterations, tolerance=1e-10 * float(gradient_D.dot(gradient_D))
    )
    step_D = losses.trpo_step(direction_D, product(direction_D), max_kl=config.max_kl)
    expected = float(gradient_D.dot(step_D))
    before, _ = measure(policy, pieces, old, config)

    def evaluate(parameters_D: Tensor) -> tuple[float, float]:
        _assign(parameters, parameters_D)
        loss, divergence = measure(policy, pieces, old, config)
        return before - loss, divergence

    found = losses.line_search(
        evaluate,
        start_D,
        step_D,
        expected_improvement=expected,
        max_kl=config.max_kl,
        backtracks=config.backtracks if bool(step_D.any()) else 0,
    )
    _assign(parameters, found.parameters_D)
    return {
        "loss": before,
        "loss__policy": before,
        "grad_norm": float(gradient_D.norm()),
        "trpo__accepted": float(found.accepted),
        "trpo__fraction": found.fraction,
        "trpo__kl": found.kl,
        "trpo__improvement": found.improvement,
        "trpo__expected": expected,
    }


def surrogate_gradient(
    policy: nn.Module, pieces: Sequence[Piece], config: PpoConfig
) -> tuple[Tensor, list[Distribution]]:
    """Minus the gradient of the mean surrogate, (D,); and the policy's present distributions, to be kept."""
    parameters = loop.trainable(policy)
    token_count = sum(piece.old_T.numel() for piece in pieces)
    head = head_of(policy)
    if head.weight_VD.requires_grad:  # the step moves it: the old distributions need it as it was
        bias_V = None if head.bias_V is None else head.bias_V.detach().clone()
        head = Head(head.weight_VD.detach().clone(), bias_V, head.scale, head.softcap)
    old = []
    for piece in pieces:
        state_TD = response_states(policy, piece.batch)
        logprob_T, _ = token_logprob(state_TD, head_of(policy), piece.token_T, temperature=config.temperature)
        loss = losses.surrogate(logprob_T, piece.old_T, piece.advantage_T).sum() / token_count
        torch.autograd.backward(loss, inputs=parameters)
        old.append(Distribution(state_TD.detach(), head))
    gradient_D = -torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])
    for p in parameters:
        p.grad = None
    return gradient_D, old


def fisher_product(policy: nn.Module, pieces: Sequence[Piece], vector_D: Tensor, config: PpoConfig) -> Tensor:
    """F v + damping v, with F of the mean KL over the tokens of some packs; each pack's graph is made and let go."""
    parameters = loop.trainable(policy)
    token_count = sum(piece.old_T.numel() for piece in pieces)
    assert config.damping is not None
    product_D = config.damping * vector_D
    # The fused kernels of attention have no second derivative. Checkpointed layers run again inside the backward pass.
    with sdpa_kernel(SDPBackend.MATH):
        for piece in pieces:
            head = head_of(policy)
            logits_TV = head.logits(head.raw(response_states(policy, piece.batch))) / config.temperature
            mean_kl = kl.exact(logits_TV.detach(), logits_TV).sum() / token_count  # old and new agree here
            product_D += losses.fisher_vector_product(mean_kl, parameters, vector_D, damping=0.0)
    return product_D


@torch.no_grad()
def measure(
    policy: nn.Module, pieces: Sequence[Piece], old: Sequence[Distribution], config: PpoConfig
) -> tuple[float, float]:
    """Mean surrogate and mean exact KL(old || present), nats, over all tokens."""
    loss = divergence = 0.0
    for piece, old_one in zip(pieces, old, strict=True):
        present = Distribution(response_states(policy, piece.batch), head_of(policy))
        logprob_T, _ = token_logprob(present.state_TD, present.head, piece.token_T, temperature=config.temperature)
        loss += float(losses.surrogate(logprob_T, piece.old_T, piece.advantage_T).double().sum())
        divergence += float(exact_kl(old_one, present, temperature=config.temperature).double().sum())
    token_count = sum(piece.old_T.numel() for piece in pieces)
    return loss / token_count, divergence / token_count


def _flat(parameters: Sequence[Tensor]) -> Tensor:
    return torch.cat([p.detach().flatten() for p in parameters])


@torch.no_grad()
def _assign(parameters: Sequence[Tensor], vector_D: Tensor) -> None:
    for p, piece in zip(parameters, torch.split(vector_D, [p.numel() for p in parameters]), strict=True):
        p.copy_(piece.view_as(p))
    torch.clear_autocast_cache()  # its copies of the weights are of what they were


# -- the value function ------------------------------------------------------------------------------------------------


def fit_values(parts: Parts, pieces: Sequence[Piece], rate: float, where: Callable[[], str]) -> dict[str, float]:
    """Optimiser steps of the value function on the whole rollout; as a head it leaves the policy's trunk alone."""
    actor, config = parts.actor, parts.config
    token_count = sum(piece.return_T.numel() for piece in pieces)
    assert config.value_updates is not None
    states: list[Tensor] = []
    if actor.critic is None:
        with torch.no_grad():
            states = [response_states(actor.policy, piece.batch) for piece in pieces]
    total = 0.0
    for _ in range(config.value_updates):
        fitted = list[Tensor]()
        for index, piece in enumerate(pieces):
            if actor.critic is None:
                assert actor.value_head is not None
                value_T = read_number(actor.value_head, states[index])
            else:
                value_T = values(actor.critic, piece.batch)
            loss = losses.value_loss(value_T, piece.return_T).sum() / token_count
            backward(loss)
            fitted.append(loss.detach())
        loss_of_all = loop.total(fitted)
        loop.optimise(parts.optimiser, rate, config.max_grad_norm, loss_of_all, where)
        total += loss_of_all
    return {"loss__value": total / config.value_updates} if config.value_updates else {}
