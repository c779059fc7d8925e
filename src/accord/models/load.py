"""Models and tokenizers by name: a policy, a reward model, a new reward model on a policy's trunk.

Every kind of name that `accord.models.sources` knows works everywhere. Loading is silent; what goes wrong is a
ValueError of one line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from accord.models.allocation import keep_few_kernels, keep_freed_memory
from accord.models.quiet import quiet
from accord.models.sources import ADAPTER_FILE, ModelSource, resolve
from accord.text import Template

__all__ = ["ModelSource", "load_policy", "load_reward_model", "load_tokenizer", "new_reward_model", "resolve"]

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


def load_policy(
    name: str, *, dtype: torch.dtype = torch.float32, device: str | torch.device | None = None, merge: bool = True
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model and its tokenizer, in eval mode.

    Args:
        name: any name that `resolve` knows.
        dtype: of the weights.
        device: where to; none: the GPU if there is one, else the CPU.
        merge: add an adapter's weights to its base. False returns the PEFT model with the adapter ready to be trained
            on. Without effect on a model that is no adapter.

    Raises:
        ValueError: no such model, damaged files, or a model of another kind.
    """
    source = resolve(name)
    model = _load_causal(source.base or source, dtype)
    if source.base is not None:
        _refuse_task(source, "SEQ_CLS", "a reward model; load it where a reward model is asked for")
        model = _with_adapter(model, source, merge)
    return model.to(_device(device)).eval(), _load_tokenizer(source)


def load_reward_model(
    name: str, *, dtype: torch.dtype = torch.float32, device: str | torch.device | None = None, merge: bool = True
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a finished reward model, a whole one or an adapter, and its tokenizer, in eval mode.

    Args:
        name: any name that `resolve` knows.
        dtype: of the weights.
        device: where to; none: the GPU if there is one, else the CPU.
        merge: as for `load_policy`.

    Returns:
        A sequence classifier with one label: its logit at the last token that is no padding is the reward.

    Raises:
        ValueError: no such model, damaged files, or a model that is no reward model.
    """
    source = resolve(name)
    tokenizer = _load_tokenizer(source)
    if source.base is None:
        model = _load_classifier(source, dtype)
    else:
        _refuse_task(source, "CAUSAL_LM", "a policy; train a reward model on it with `accord train reward`")
        model = _on_trunk_of(_load_causal(source.base, dtype))
        model = _with_adapter(model, source, merge)
    _set_pad(model, tokenizer)
    return model.to(_device(device)).eval(), tokenizer


def new_reward_model(
    name: str, *, seed: int = 0, dtype: torch.dtype = torch.float32, device: str | torch.device | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Put a fresh score head on the trunk of a causal language model.

    The head is drawn from a normal distribution of deviation 1/sqrt(hidden size + 1), as Stiennon et al. (2020,
    arXiv:2009.01325) do, so that first rewards are of order one. The padding token is set apart from every end token:
    transformers reads the score at the last token that is no padding, which must be the response's end.

    Args:
        name: any name that `resolve` knows; an adapter is merged.
        seed: of the head; the process's own random state is left alone.
        dtype: of the weights.
        device: where to; none: the GPU if there is one, else the CPU.
    """
    policy, tokenizer = load_policy(name, dtype=dtype, device="cpu")
    model = _on_trunk_of(policy, seed)
    _set_pad(model, tokenizer)
    return model.to(_device(device)).eval(), tokenizer


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer; an adapter without one of its own has that of its base."""
    return _load_tokenizer(resolve(name))


# -- parts -------------------------------------------------------------------------------------------------------------


def _load_causal(source: ModelSource, dtype: torch.dtype) -> Any:
    named = _architecture(source.path)
    if named and not any(kind in named for kind in ("CausalLM", "LMHead", "ConditionalGeneration")):
        raise ValueError(f"{source.name}: its config.json says {named}, which is not a causal language model")
    return _from_pretrained(AutoModelForCausalLM, source, dtype)


def _load_classifier(source: ModelSource, dtype: torch.dtype) -> Any:
    named = _architecture(source.path)
    if named and "ForSequenceClassification" not in named:
        raise ValueError(
            f"{source.name}: its config.json says {named}, which is not a reward model; make one with "
            f"`accord train reward --model {source.name}`"
        )
    model = _from_pretrained(AutoModelForSequenceClassification, source, dtype)
    if model.config.num_labels != 1:
        raise ValueError(f"{source.name}: a classifier of {model.config.num_labels} labels; a reward model has one")
    return model


def _architecture(folder: Path) -> str:
    """The class that saved the model, as its configuration records it; "" if it does not."""
    named = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or [""]
    return str(named[0])


def _from_pretrained(auto_class: Any, source: ModelSource, dtype: torch.dtype) -> Any:
    keep_freed_memory()  # here, because whatever computes loads a model first
    keep_few_kernels()
    try:
        with quiet():
            model, report = auto_class.from_pretrained(str(source.path), dtype=dtype, output_loading_info=True)
    except Exception as error:  # a damaged file fails in whichever library meets it first
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{source.name}: cannot be loaded from {source.path}: {said[:300]}") from error
    if missing := sorted(report["missing_keys"]):
        raise ValueError(
            f"{source.name}: {len(missing)} of its tensors are not in {source.path}, {missing[0]} first; "
            f"is this really a {auto_class.__name__.removeprefix('AutoModelFor')} model, saved whole?"
        )
    return model


def _with_adapter(model: Any, source: ModelSource, merge: bool) -> Any:
    from peft import PeftModel

    try:
        with quiet():
            model = PeftModel.from_pretrained(model, str(source.path), is_trainable=not merge)
            return model.merge_and_unload() if merge else model
    except Exception as error:  # as in _from_pretrained
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{source.name}: the adapter cannot be put on {model.name_or_path}: {said[:300]}") from error


def _refuse_task(source: ModelSource, task: str, explanation: str) -> None:
    """Refuse an adapter that was trained for another task than the one it is loaded for."""
    found = json.loads((source.path / ADAPTER_FILE).read_text(encoding="utf-8")).get("task_type")
    if found == task:
        raise ValueError(f"{source.name}: this adapter is {explanation}")


def _on_trunk_of(policy: Any, seed: int = 0) -> Any:
    """A sequence classifier with one label that owns the policy's trunk; the weights are not copied."""
    config = policy.config
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise ValueError(
            f"{config.model_type}: transformers has no sequence classifier of this family to train as reward model"
        )
    config.num_labels = 1
    with quiet(), torch.device("meta"):
        model = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)](config)
    setattr(model, model.base_model_prefix, policy.base_model)
    hidden = model.score.in_features
    head_HD = torch.randn(1, hidden, generator=torch.Generator().manual_seed(seed)) / (hidden + 1) ** 0.5
    model.score = torch.nn.Linear(hidden, 1, bias=False, device="meta")  # on meta: no random numbers drawn
    model.score.weight = torch.nn.Parameter(head_HD.to(policy.dtype))
    return model


def _set_pad(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give model and tokenizer the same padding token, one that never ends a response."""
    pad_id = _pad_apart(tokenizer)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad_id)
    for config in {id(c): c for c in (model.config, getattr(model, "base_model", model).config)}.values():
        config.pad_token_id = pad_id


def _pad_apart(tokenizer: PreTrainedTokenizerBase) -> int:
    """The tokenizer's padding token unless it ends turns; else unknown, another special one, the last."""
    ends = Template(tokenizer).end_ids
    special = sorted(set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder))
    ranked = (tokenizer.pad_token_id, tokenizer.unk_token_id, *special, *range(len(tokenizer) - 1, -1, -1))
    return next(token for token in ranked if token is not None and token not in (*ends, tokenizer.bos_token_id))


def _load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    own = any((source.path / name).is_file() for name in _TOKENIZER_FILES)
    folder = source.path if own or source.base is None else source.base.path
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(str(folder))
    except Exception as error:  # a missing or damaged file fails in whichever library meets it first
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{source.name}: no tokenizer can be loaded from {folder}: {said[:300]}") from error


def _device(wanted: str | torch.device | None) -> torch.device:
    return torch.device(wanted or ("cuda" if torch.cuda.is_available() else "cpu"))
