"""Models of a known shape with random weights: what a GPU is measured on, where no checkpoint of that size is at hand.

    python -m benchmarks.shapes llama-3.2-1b --tokenizer FOLDER --out FOLDER

The tokenizer is SmolLM2's, whose ids any of these vocabularies holds. Weights are kept in bfloat16, half the size on
disk; both sides load them as float32. A reward model on the same trunk is made beside the policy.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

__all__ = ["SHAPES", "make"]

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-3.2-1b": (
        "LlamaConfig",
        {
            "hidden_size": 2048,
            "num_hidden_layers": 16,
            "intermediate_size": 8192,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "vocab_size": 128256,
            "max_position_embeddings": 8192,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
        },
    ),
    "qwen2.5-0.5b": (
        "Qwen2Config",
        {
            "hidden_size": 896,
            "num_hidden_layers": 24,
            "intermediate_size": 4864,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "vocab_size": 151936,
            "max_position_embeddings": 8192,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        },
    ),
    "tiny": (
        "LlamaConfig",
        {
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "intermediate_size": 128,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "vocab_size": 50000,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
}
"""Class of the configuration, and its numbers. All of them have one matrix for embeddings and head."""

KNOWN = 6.0  # of each row that has a token; with the sign turned of each that has none


def make(shape: str, out: Path, tokenizer: str, *, seed: int = 0, device: str = "cpu") -> Path:
    """The folder of the policy, `out/SHAPE/policy`, made if it is not there; its reward model is made beside it."""
    policy = out / shape / "policy"
    if (policy / "config.json").exists():
        return policy
    words = AutoTokenizer.from_pretrained(tokenizer)
    kind, numbers = SHAPES[shape]
    ends = {name: getattr(words, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = getattr(transformers, kind)(**numbers, **ends, tie_word_embeddings=True)
    torch.manual_seed(seed)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    speak(model, len(words))
    aside = policy.with_name("policy-unfinished")
    model.save_pretrained(aside)
    words.save_pretrained(aside)
    aside.rename(policy)
    return policy


@torch.no_grad()
def speak(model: Any, tokens: int) -> None:
    """Make ids that the tokenizer has no token for improbable: sampled text can be read, and encoded again.

    Embeddings and head are one matrix. A direction in which known rows lie on one side and all others on the other one
    is carried from the input to the logits by the residual stream.
    """
    weight_VD = model.get_input_embeddings().weight
    sign_V = torch.ones(len(weight_VD), device=weight_VD.device, dtype=weight_VD.dtype)
    sign_V[tokens:] = -1.0
    weight_VD += sign_V.unsqueeze(-1) * KNOWN / weight_VD.shape[1] ** 0.5


def main() -> None:
    """Make a policy and its reward model."""
    from benchmarks.peers import reward_model

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--tokenizer", required=True, help="folder of a tokenizer")
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    policy = make(chosen.shape, chosen.out, chosen.tokenizer, device=device)
    reward_model(str(policy), dtype=torch.bfloat16)
    print(policy)


if __name__ == "__main__":
    main()
