"""AdamW whose gradient norm, clipping and step are each one pass over memory on a CPU; elsewhere it is PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from accord.models.kernels.adamw import Parameters

__all__ = ["AdamW"]


class AdamW(torch.optim.AdamW):
    """AdamW (Loshchilov & Hutter 2019); state and checkpoints are those of `torch.optim.AdamW`.

    Neither `amsgrad` nor `maximize` nor a `GradScaler`, which only fp16 needs.
    """

    _scale = 1.0  # of the gradients of the next step

    def __init__(self, groups: list[dict[str, Any]], *, lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, lr=lr, betas=betas, fused=True)

    def norm(self) -> float:
        """L2 norm of all gradients. Sparse ones are made dense: of an embedding, if the head had no part in a pass."""
        for weight in self._moved():
            if weight.grad is not None and weight.grad.layout != torch.strided:
                weight.grad = weight.grad.to_dense()
        now = _parameters(self._moved())
        if now.fit:
            return now.norm()
        return float(nn.utils.get_total_norm(list(now.gradients)))

    def clip(self, norm: float, most: float) -> None:
        """Let the next step be of gradients scaled to norm `most`, if that is below `norm`."""
        if norm <= most:  # PyTorch would write every gradient anew, also where it multiplies by one
            return
        now = _parameters(self._moved())
        if now.fit:
            self._scale = most / (norm + 1e-6)  # as PyTorch has it
        else:
            nn.utils.clip_grads_with_norm_(list(now.weights), most, torch.tensor(norm))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Move the weights that have gradients; the first step, which makes the moments, is PyTorch's."""
        scale, self._scale = self._scale, 1.0
        ready = all(self.state[p] for p in self._moved() if p.grad is not None)
        if closure is not None or not ready or not _parameters(self._moved()).fit:
            if scale != 1.0:
                for gradient in _parameters(self._moved()).gradients:
                    gradient.mul_(scale)
            return super().step(closure)
        for group in self.param_groups:
            now = _parameters(group["params"])
            states = [self.state[p] for p in now.weights]
            steps = [state["step"] for state in states]
            if not steps:
                continue
            torch._foreach_add_(steps, 1)
            now.step(
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [int(t) for t in steps],
                rate=float(group["lr"]),
                betas=group["betas"],
                eps=group["eps"],
                decay=group["weight_decay"],
                scale=scale,
            )
        return None

    def _moved(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]


def _parameters(weights: list[Tensor]) -> Parameters:
    """Of some weights those with gradients."""
    pairs = [(p, p.grad) for p in weights if p.grad is not None]
    return Parameters([p for p, _ in pairs], [g for _, g in pairs])
