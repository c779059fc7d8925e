"""The section of docs/benchmarks.md on a GPU, from the results that `benchmarks.compare --device cuda` wrote."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.workload import GPU_JOBS

__all__ = ["GPU_GOALS", "gpu_section"]

GPU_GOALS: dict[str, tuple[float | None, float | None, float | None]] = {
    "sft": (None, None, None),
    "reward": (None, None, None),
    "dpo": (2.5, 0.6, 0.45),
    "ppo": (2.5, 0.6, None),
    "ppo-shared": (2.5, 0.6, None),
    "grpo": (None, None, None),
    "sampling": (None, None, None),
}
"""What we want: times as fast, share of the peer's peak memory, model-FLOP use as a share of the card's data sheet."""

HEAD = """
## On a GPU

The same comparison on one GPU, on models of a known shape with random weights (the tokenizer is SmolLM2's), bf16
autocast over float32 weights on both sides. For sft, reward and dpo *times as fast* is of the median optimiser step
after the first one; the first one, which compiles and warms up, and the seconds of everything (tokenising and, in dpo,
reference passes inside) stand beside it. For ppo and grpo it is of the second of two rollouts with its optimiser steps,
for sampling of all seconds. Behind it stand the smallest and the largest ratio of two steps over the same rows, or of
two runs, where there are several. Memory is the peak of what tensors took, `torch.cuda.max_memory_allocated`. TRL runs
with and without Liger's kernels where it can; the faster variant is the one compared.
"""

USE = """
Model-FLOP use is the useful arithmetic of a step over its seconds, as a share of a rate: that of 8192 x 8192 x 8192
bf16 products of random numbers, measured on the machine, and behind it that of the card's data sheet. The arithmetic is
the same for both sides, counted from the rows: 6 for each parameter of a linear layer and token, the vocabulary on
scored tokens only, attention on the pairs of tokens that see each other. A prompt counts once for both of its
responses; *as rows* counts it with each of them, as a peer computes it. The goal is of the first, at the data sheet's
rate.
"""


def gpu_section(results: list[dict[str, Any]]) -> list[str]:
    """Its lines; none without results."""
    if not results:
        return []
    ordered = sorted(results, key=lambda r: (r["shape"], list(GPU_GOALS).index(r["job"]), r["rows"] or 0, r["peer"]))
    lines = [
        HEAD,
        "| job | model | peer | times as fast | goal | peak memory, GB ours / theirs | share | goal | runs |",
    ]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    lines += [_row(result) for result in ordered]
    lines += _short_of(ordered)
    lines += [
        "",
        "| job | model | seconds of a step, ours / theirs | of the first | of the reference | of everything |",
    ]
    lines.append("|---|---|---|---|---|---|")
    lines += [_seconds(result) for result in ordered]
    measured = [result for result in ordered if result["work"]]
    if measured:
        lines += [USE, "| job | model | model-FLOP use of Accord | as rows | goal | of the peer | as rows |"]
        lines.append("|---|---|---|---|---|---|---|")
        lines += [_use(result) for result in measured]
    lines.append("")
    return lines + [_provenance(result) for result in ordered]


def _short_of(results: list[dict[str, Any]]) -> list[str]:
    """Jobs of which no row reaches all goals at once."""
    whole: dict[str, bool] = {}
    for result in results:
        speed, memory, use = GPU_GOALS[result["job"]]
        cells = [_said(result["ratio"]["median"], speed), _said(1 / result["memory"]["median"], memory, most=True)]
        cells.append(_said(_use_of(result), use) if result["work"] else "")
        whole[result["job"]] = whole.get(result["job"], False) or not any("not reached" in cell for cell in cells)
    missing = ", ".join(job for job, reached in whole.items() if not reached)
    return (
        ["", f"No row reaches all of its goals, that of model-FLOP use below included, in: {missing}."]
        if missing
        else []
    )


def _use_of(result: dict[str, Any]) -> float:
    """Model-FLOP use as a share of the data sheet's rate."""
    card = result["machine"]["card"]
    return float(result["work"]["rate"]["accord"]["trees"] / 1e12 / (card["datasheet_tflops"] or card["tflops"]))


def _name(result: dict[str, Any]) -> str:
    tokens, usual = result["size"].get("micro_tokens"), GPU_JOBS[result["job"]].get("micro_tokens")
    rows = f", {result['rows']} rows" if result["rows"] else ""
    return result["job"] + rows + ("" if tokens == usual else f", {tokens:,} tokens at once")


def _said(value: float, goal: float | None, *, most: bool = False) -> str:
    if goal is None:
        return ""
    return f"{goal:g}: {'reached' if (value <= goal if most else value >= goal) else 'not reached'}"


def _median(result: dict[str, Any], side: str, name: str) -> float:
    return statistics.median(run[name] for run in result["runs"][side])


def _row(result: dict[str, Any]) -> str:
    speed, memory, _ = GPU_GOALS[result["job"]]
    fast, share = result["ratio"]["median"], 1 / result["memory"]["median"]
    ours, theirs = (_median(result, side, "peak_gb") for side in ("accord", result["peer"]))
    cells = [
        _name(result),
        result["shape"],
        result["variant"],
        f"{fast:.2f}{_spread(result)}",
        _said(fast, speed),
        f"{ours:.1f} / {theirs:.1f}",
        f"{share:.2f}",
        _said(share, memory, most=True),
        str(len(result["runs"]["accord"])),
    ]
    return "| " + " | ".join(cells) + " |"


def _spread(result: dict[str, Any]) -> str:
    """The smallest and the largest ratio of the peer's seconds to ours; none of a single one."""
    figure, pairs = result["figure"], list[tuple[float, float]]()
    for ours, theirs in zip(result["runs"]["accord"], result["runs"][result["peer"]], strict=True):
        if figure == "step":  # the first one compiles and warms up
            pairs += zip(ours["step_seconds"][1:], theirs["step_seconds"][1:], strict=True)
        else:
            pairs.append((ours[figure], theirs[figure]))
    ratios = [peer / accord for accord, peer in pairs]
    return f" [{min(ratios):.2f}, {max(ratios):.2f}]" if len(ratios) > 1 else ""


def _seconds(result: dict[str, Any]) -> str:
    """Steps of sft, reward and dpo; rollouts of ppo and grpo; of sampling only the whole."""
    sides = ("accord", result["peer"])
    name = next((name for name in ("step_seconds", "rollout_seconds") if name in result["runs"]["accord"][0]), None)

    def both(of: Any) -> str:
        return " / ".join(f"{statistics.median(of(run) for run in result['runs'][side]):.2f}" for side in sides)

    cells = [_name(result), result["shape"], both(lambda run: run[result["figure"]])]
    cells.append(both(lambda run: run[name][0]) if name else "")
    cells.append(both(lambda run: run["reference_seconds"]) if result["job"] == "dpo" else "")
    cells.append("" if name == "rollout_seconds" else both(lambda run: run["seconds"]))
    return "| " + " | ".join(cells) + " |"


def _use(result: dict[str, Any]) -> str:
    card, rates = result["machine"]["card"], result["work"]["rate"]

    def share(side: str, kind: str) -> str:
        rate, sheet = rates[side][kind] / 1e12, card["datasheet_tflops"]
        return f"{rate / card['tflops']:.1%}" + (f" ({rate / sheet:.1%})" if sheet else "")

    cells = [_name(result), result["shape"], share("accord", "trees"), share("accord", "rows")]
    cells.append(_said(_use_of(result), GPU_GOALS[result["job"]][2]))
    cells += [share(result["peer"], kind) for kind in ("trees", "rows")]
    return "| " + " | ".join(cells) + " |"


def _provenance(result: dict[str, Any]) -> str:
    card = result["machine"]["card"]
    versions = ", ".join(f"{package} {version}" for package, version in result["versions"].items())
    sizes = ", ".join(f"{key} {value}" for key, value in result["size"].items())
    variants = ", ".join(f"{name} {found['median']:.2f} s" for name, found in result["variants"].items())
    gap = result["losses"]
    return (
        f"- **{_name(result)}, {result['shape']}** ({result['date']}): peer: {result['settings']}; {variants}. "
        f"Rows: {sizes}. {versions}. {card['name']}, CUDA {card['cuda']}, bf16 products {card['tflops']:.0f} TFLOP/s."
        + (f" Losses of the steps differ by {gap['largest_gap']:.3f} at most." if gap else "")
    )
