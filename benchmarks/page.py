"""docs/benchmarks.md from benchmarks/results/*.json: a figure without a result behind it does not exist.

python -m benchmarks.page [--check]
"""

from __future__ import annotations

import json
import statistics
import sys
from typing import Any

from benchmarks.compare import RESULTS, ROOT
from benchmarks.gpu_page import gpu_section

__all__ = ["GOALS", "page", "read_results"]

PAGE = ROOT / "docs" / "benchmarks.md"
GOALS: dict[tuple[str, str], tuple[float, float | None]] = {
    ("sft", "trl"): (2.5, None),
    ("reward", "trl"): (2.0, 0.6),
    ("dpo", "trl"): (4.0, 0.5),
    ("ppo", "trl"): (6.0, 0.35),
    ("ppo-shared", "trl"): (6.0, 0.35),
    ("sft-lora", "trl"): (2.5, None),
    ("dpo-lora", "trl"): (4.0, 0.5),
    ("ppo-lora", "trl"): (6.0, 0.35),
    ("rloo", "trl"): (6.0, None),
    ("grpo", "trl"): (6.0, None),
    ("listwise-4", "accord-rows"): (2.0, None),
    ("listwise-8", "accord-rows"): (3.0, None),
    ("sampling", "transformers"): (2.0, None),
    ("sampling", "vllm"): (1.5, None),
    ("sampling-4", "transformers"): (2.0, None),
    ("sampling-4", "vllm"): (1.5, None),
}
"""What we want: times as fast, and share of the peer's peak memory."""

HEAD = """# Benchmarks

Accord beside its peers on one machine: the same weights (SmolLM2-135M-Instruct), rows, precision (bf16) and
optimiser, both sides in turn, each run in a process of its own. Seconds run from the loaded model to the last
optimiser step (tokenising, reference passes, sampling and reward inside); for ppo, rloo and grpo they are those of
the second of two rollouts. In `ppo` both sides train a value model beside the policy; in `ppo-shared` Accord has its
default, a value head on the policy's trunk, which is another algorithm than TRL's. In `sft-lora`, `dpo-lora` and
`ppo-lora` both sides train adapters of rank 16 on every linear layer, frozen weights in bf16 (Accord keeps embedding,
head and norms in float32); in `ppo-lora` TRL's value model has adapters of its own, and Accord has one trunk for
policy, value function and reference. *Times as fast* is the ratio of medians, with the smallest and largest ratio of
neighbouring runs; tokens count every sequence as the peer sees it, prompts repeated. Accord runs with
GOMP_SPINCOUNT=2000, as its command sets it. Rows were measured on several days and on processors of different speed,
a ratio always of two runs on one of them: the list below names the rate of each. This page is made of
`benchmarks/results/*.json` by `python -m benchmarks.page`; a row is made by `python -m benchmarks.compare JOB --peer
PEER`. In `sampling` every row has a prompt of its own, in `sampling-4` four rows share one, as in PPO and GRPO. A
goal that is not reached says so.
"""

SAME = """SFT: the chat template has a line break behind the end token. TRL trains it too, it costs nothing, and its
mean is over one token more per response: at 49 tokens a response that is 2% less in every step. Reward: the score head
starts elsewhere and moves at another rate. DPO: sums of bf16 log-probabilities over a response, rounded at other
places. With LoRA adapters start from other random numbers on each side.
"""

GROWTH = """`python -m benchmarks.growth`: reading, encoding, planning and packing so many short demonstrations, without
the model; and steps of SFT on SmolLM2 in bf16, some 4,096 tokens each, of prompts of one length. """


def page(results: list[dict[str, Any]], growth: dict[str, Any] | None = None) -> str:
    """The whole page, from comparisons and, where it was measured, growth."""
    gpu = [result for result in results if result.get("device") == "cuda"]
    results = [result for result in results if "device" not in result]
    ordered = sorted(results, key=lambda result: (list(GOALS).index(goal_key(result)), result["rows"] or 0))
    lines = [HEAD]
    lines.append("| job | peer | times as fast | goal | peak memory, share | goal | tok/s ours / theirs | runs |")
    lines.append("|---|---|---|---|---|---|---|---|")
    lines += [row(result) for result in ordered]
    lines.append("\n## Do they compute the same?\n")
    lines.append(SAME)
    lines.append("| job | losses of Accord, step by step | of the peer | largest difference |")
    lines.append("|---|---|---|---|")
    lines += [losses(result) for result in ordered if result["losses"]]
    if growth:
        lines += growth_lines(growth)
    lines += gpu_section(gpu)
    lines.append("\n## Settings, versions, machines\n")
    lines += [provenance(result) for result in ordered]
    return "\n".join(lines) + "\n"


def goal_key(result: dict[str, Any]) -> tuple[str, str]:
    """The row of the table of goals a result belongs to."""
    return result["job"], result["peer"]


def row(result: dict[str, Any]) -> str:
    """One line of the first table."""
    speed, memory = GOALS[goal_key(result)]
    seconds = {side: [run["seconds"] for run in runs] for side, runs in result["runs"].items()}
    ours, theirs = (statistics.median(seconds[side]) for side in ("accord", result["peer"]))
    fast, share = result["ratio"], 1 / result["memory"]["median"]
    name = result["job"] + (f", {result['rows']} rows" if result["rows"] else "")
    cells = [
        name,
        result["peer"],
        f"{fast['median']:.2f} [{fast['low']:.2f}, {fast['high']:.2f}]",
        f"{speed:g}: {'reached' if fast['median'] >= speed else 'not reached'}",
        f"{share:.2f}",
        "" if memory is None else f"{memory:g}: {'reached' if share <= memory else 'not reached'}",
        f"{result['tokens'] / ours:.0f} / {result['tokens'] / theirs:.0f}",
        str(len(seconds["accord"])),
    ]
    return "| " + " | ".join(cells) + " |"


def losses(result: dict[str, Any]) -> str:
    """One line of the second table."""
    ours, theirs = (", ".join(f"{value:.3f}" for value in result["losses"][side]) for side in ("accord", "peer"))
    return f"| {result['job']} | {ours} | {theirs} | {result['losses']['largest_gap']:.3f} |"


def growth_lines(growth: dict[str, Any]) -> list[str]:
    """The section on growth: what a token costs, and that over what it costs in the first row."""
    versions = ", ".join(f"{package} {number}" for package, number in growth["versions"].items())
    lines = [f"\n## Growth\n\n{GROWTH}{versions}, {growth['machine']['threads']} threads, {growth['date']}.\n"]
    lines += ["| rows | tokens | microseconds a token | times that of the first |", "|---|---|---|---|"]
    costs = [1e6 * row["seconds"] / row["tokens"] for row in growth["rows"]]
    lines += [
        f"| {row['rows']:,} | {row['tokens']:,} | {cost:.1f} | {cost / costs[0]:.2f} |"
        for row, cost in zip(growth["rows"], costs, strict=True)
    ]
    lines += ["", "| prompt, tokens | milliseconds a token | without attention | times that of the first |"]
    lines.append("|---|---|---|---|")
    rest = [1e3 * (row["seconds"] - row["attention"]) / row["tokens"] for row in growth["prompts"]]
    lines += [
        f"| {row['prompt_tokens']:,} | {1e3 * row['seconds'] / row['tokens']:.2f} | {cost:.2f} | {cost / rest[0]:.2f} |"
        for row, cost in zip(growth["prompts"], rest, strict=True)
    ]
    return lines


def read_results() -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Comparisons, and growth where it was measured."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    growth = found.pop("growth", None)
    return list(found.values()), growth


def provenance(result: dict[str, Any]) -> str:
    """Where a row comes from."""
    name = "-".join(str(part) for part in (result["job"], result["rows"], result["peer"]) if part is not None)
    rates = ", ".join(f"{kind} {rate:.0f} GFLOP/s" for kind, rate in result["machine"]["gflops"].items())
    versions = ", ".join(f"{package} {version}" for package, version in result["versions"].items())
    sizes = ", ".join(f"{key} {value}" for key, value in result["size"].items())
    return (
        f"- **{name}** ({result['date']}): peer: {result['settings']}. Rows: {sizes}. {versions}. "
        f"{result['machine']['threads']} threads, matrix products {rates}."
    )


def main() -> None:
    """Write the page, or say that it is stale."""
    text = page(*read_results())
    if "--check" in sys.argv:
        sys.exit(None if PAGE.exists() and PAGE.read_text() == text else f"{PAGE} is stale: python -m benchmarks.page")
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
