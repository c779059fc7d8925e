"""One timed run of transformers' generate: python peer_generate.py SPEC.json. Nothing of Accord is imported here."""

from __future__ import annotations

import json
import resource
import sys

import gauge
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    """Sample from all prompts at once."""
    with open(sys.argv[1]) as file:
        spec = json.load(file)
    torch.set_num_threads(spec["threads"])
    tokenizer = AutoTokenizer.from_pretrained(spec["model"], padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    # bfloat16 weights: faster here than autocast over float32 ones, which casts them anew at each step.
    model = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=torch.bfloat16).eval()
    model = model.to(spec.get("device", "cpu"))
    texts = [
        tokenizer.apply_chat_template([{"role": "user", "content": row}], add_generation_prompt=True, tokenize=False)
        for row in spec["prompts"]
    ]
    model.generation_config.eos_token_id = None
    count = spec["size"]["new_tokens"]

    def generate(rows: list[str], count: int) -> torch.Tensor:
        batch = tokenizer(rows, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
        return model.generate(
            **batch, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, min_new_tokens=count, max_new_tokens=count,
            num_return_sequences=spec["size"]["samples"],
        )  # fmt: skip

    with torch.inference_mode():
        generate(texts[:2], 4)
        start = gauge.now()
        generate(texts, count)
        seconds = gauge.now() - start
    memory = gauge.memory(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)
    print("RESULT " + json.dumps({"seconds": seconds, "losses": []} | memory))


if __name__ == "__main__":
    main()
