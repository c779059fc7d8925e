"""PPO-ptx: the likelihood of other text, trained beside the policy so that it forgets less (InstructGPT eq. 2).

    loss = coefficient * mean over the step's ptx tokens of -log pi(token | everything before it)

The text is plain, cut into windows, or demonstrations. It is an endless stream: which rows a step takes is a function
of the seed and the number of the step, so that resuming needs no state.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from accord.data.batches import corpus_trees
from accord.losses import likelihood
from accord.models.in_place import backward
from accord.models.score import response_scores
from accord.text import Template
from accord.train import loop
from accord.train.configs import PpoConfig
from accord.train.run import Run
from accord.trees import PromptTree, budget_packs, pack

__all__ = ["Ptx", "ptx_of"]

COEFFICIENT = 27.8  # InstructGPT's, beside a KL coefficient of 0.02


class Ptx:
    """The stream, and its share of an optimiser step.

    Attributes:
        coefficient: weight of its loss, nats per token.
    """

    def __init__(self, trees: list[PromptTree], config: PpoConfig) -> None:
        self.trees, self.seed, self.micro_tokens = trees, config.seed, config.micro_tokens
        self.coefficient = COEFFICIENT if config.ptx_coefficient is None else config.ptx_coefficient
        self.size = config.batch_size if config.ptx_batch_size is None else config.ptx_batch_size

    def rows(self, step: int) -> list[int]:
        """Numbers of the trees of an optimiser step: each pass over the text is a permutation of its own."""
        count, orders = len(self.trees), {}
        rows = []
        for place in range(step * self.size, (step + 1) * self.size):
            turn = place // count
            if turn not in orders:
                generator = torch.Generator().manual_seed((self.seed * 1_000_003 + turn) % 2**63)
                orders[turn] = torch.randperm(count, generator=generator).tolist()
            rows.append(orders[turn][place % count])
        return rows

    def accumulate(self, model: nn.Module, step: int) -> dict[str, float]:
        """Add the gradient of this step's rows to the policy's; returns the loss in nats per token, not weighted."""
        trees = [self.trees[row] for row in self.rows(step)]
        token_count = sum(sum(branch.scored) for tree in trees for branch in tree.branches)
        said = list[Tensor]()
        for group in budget_packs([tree.length for tree in trees], self.micro_tokens):
            logprob_T = response_scores(model, pack([trees[i] for i in group]).to(loop.device_of(model))).logprob_T
            mask_T = torch.ones_like(logprob_T, dtype=torch.bool)
            loss = likelihood.ptx(logprob_T, mask_T, token_count=token_count, coefficient=self.coefficient)
            backward(loss)
            said.append(-logprob_T.detach().sum())
        return {"loss__ptx": loop.total(said) / token_count}


def ptx_of(records: list[Any], config: PpoConfig, run: Run, template: Template, limit: int) -> Ptx:
    """The stream of these records; what was cut goes into the manifest.

    Raises: ValueError: no row of it can be trained on.
    """
    trees, fitted = corpus_trees(records, template, limit)
    run.manifest["ptx_data_fit"] = fitted.as_dict()
    run.notify(f"ptx_data: {fitted.sentence()}")
    if not trees:
        raise ValueError(f"no row of ptx_data can be trained on within {limit} tokens; raise --max-length")
    return Ptx(trees, config)
