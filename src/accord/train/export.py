"""Writing finished models so that transformers and PEFT load them as they stand."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import save_file

from accord.models.quiet import quiet
from accord.models.score import base_of
from accord.text import Template

__all__ = ["save_policy", "save_reward_model"]

SAMPLING_DEFAULTS = {"temperature": 1.0, "top_p": 1.0, "top_k": 50, "typical_p": 1.0, "min_p": None}


def save_policy(
    model: Any,
    template: Template,
    folder: Path,
    *,
    value_head: torch.nn.Module | None = None,
    live: bool = False,
) -> None:
    """A causal model (or its adapter), the tokenizer with the chat template it was trained with, and where to stop.

    A `live` model goes on being trained: where adapters have to be merged, that is done to a copy.
    """
    base = base_of(model)
    settings: Any = base.generation_config
    settings.eos_token_id = list(template.end_ids)
    if any(getattr(settings, name, None) not in (None, default) for name, default in SAMPLING_DEFAULTS.items()):
        settings.do_sample = True  # hub models often set a temperature without it; that cannot be saved
    if live and getattr(model, "peft_config", None) and not _base_on_disk(model):
        model = copy.deepcopy(model)
    _save(model, template, folder)
    settings.save_pretrained(folder)
    if value_head is not None:
        save_file(
            {name: value.contiguous() for name, value in value_head.state_dict().items()},
            folder / "value_head.safetensors",
        )


def save_reward_model(
    model: Any,
    template: Template,
    folder: Path,
    *,
    mean: float,
    std: float,
    facts: Mapping[str, str | float] = MappingProxyType({}),
) -> None:
    """A one-label sequence classifier (adapters merged), and the moments of its scores on the training responses.

    PPO subtracts the mean and divides by the deviation; the model's own score stays raw in every library. `facts` stand
    beside the moments: the loss, and the tie parameter of one that has it.
    """
    if getattr(model, "peft_config", None):
        # Merged: an adapter does not carry the label count and padding token that other libraries score with.
        model = model.float().merge_and_unload()
    _save(model, template, folder)
    meaning = "mean and std are moments of the score over responses it was trained on, of 128 prompts at most"
    scale = {"mean": mean, "std": std, "meaning": meaning, **facts}
    (folder / "accord_reward.json").write_text(json.dumps(scale, indent=2), encoding="utf8")


def _save(model: Any, template: Template, folder: Path) -> None:
    folder.mkdir(parents=True)
    with quiet():
        if getattr(model, "peft_config", None) and not _base_on_disk(model):
            model = model.float().merge_and_unload()
        model.save_pretrained(folder)
        template.tokenizer.save_pretrained(folder)


def _base_on_disk(model: Any) -> bool:
    """False for adapters on weights that no folder holds: those of a model with an earlier adapter merged into it.

    `loop.add_lora` marks such a start by an empty path; an adapter naming the first base would lose the earlier one.
    """
    return all(config.base_model_name_or_path for config in model.peft_config.values())
