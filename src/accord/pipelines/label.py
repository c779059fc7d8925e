"""Labels of response pairs by a model, as a run: measure the judge, label, report. See `accord.feedback.ai.label`.

known.jsonl         every answer on the pairs that people decided
verdicts.jsonl      every answer on every pair: principle, order, log-probabilities, method
comparisons.jsonl   Comparisons with soft probabilities: data of reward models and of DPO
rejected.jsonl      pairs without a choice, and why
label.json          what the judge is worth, what the labels look like, what it cost

accord feedback label --model http://127.0.0.1:8000/v1#judge --data responses.jsonl --check known.jsonl --out runs/l
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from accord.data import files
from accord.evaluate.winrate import position_flips
from accord.feedback.ai import label as labels
from accord.feedback.ai import worth
from accord.feedback.ai.constitution import few_not_preachy, load_constitution
from accord.feedback.ai.draws import choose, shuffled
from accord.feedback.ai.label import LabelPlan, Pair, Verdict
from accord.pipelines.asking import Cost, Note, Work, open_model, read_price, write_rows
from accord.pipelines.feedback_configs import LabelConfig
from accord.pipelines.shown_results import label_rows, label_sentences, write_shown
from accord.protocols import LanguageModel
from accord.records import Comparison, ResponseSet
from accord.train import inputs, loop
from accord.train.progress import Bar, Display
from accord.train.run import Run, write_text
from accord.train.sample import rows_of_file

__all__ = ["WeakJudge", "run"]

KNOWN, SAID, RESULT = "known.jsonl", "verdicts.jsonl", "label.json"


class WeakJudge(ValueError):
    """The judge is near chance on pairs that people decided."""


def run(config: LabelConfig, display: Display | None = None, model: LanguageModel | None = None) -> Path:
    """Label, or continue, or find finished; returns the run folder.

    Args:
        config: the job.
        display: where to show progress.
        model: a judge to use in place of the one `config.model` names.

    Raises:
        WeakJudge: the judge is near chance, and nobody accepted that.
        accord.protocols.Unavailable: the judge's server is away; the same call continues.
    """
    display = display or Bar()
    if config.rates:
        from accord.pipelines.rate import run as rate

        return rate(config, display, model)
    with loop.showing(display), Run("label", config, notify=display.note) as run:
        if run.finished:
            display.note(f"{run.folder} is finished")
            return run.folder
        plan = plan_of(config)
        if warning := few_not_preachy(plan.constitution.serving("comparison")):
            display.note(f"constitution {plan.constitution.name}: {warning}")
        given = read_pairs(config, run)
        pairs, rejected = labels.usable_pairs(given)
        pairs = shuffled(pairs, "order", config.seed)
        known, truths = read_known(config, run)
        model = model or open_model(config.model, config)
        run.begin(
            model=model.name,
            constitution={"name": plan.constitution.name, "fingerprint": plan.constitution.fingerprint},
            accept_weak_judge=config.accept_weak_judge,
        )
        write_rows(run.folder / "rejected.jsonl", rejected)
        work = Work(run, display, config.batch_size)
        cost = Cost([model], read_price(config.price), work.before)
        judge = _Judge(run.folder, model, plan, cost)

        work.through("measure the judge", known, KNOWN, judge.labeller(KNOWN), judge.noter(KNOWN))
        check = measure(config, judge, known, truths, display)
        if check is not None and check["near_chance"] and not config.accept_weak_judge:
            write_text(run.folder / RESULT, json.dumps({"judge": model.name, "check": check}, indent=2))
            raise WeakJudge(refusal(check, model.name))
        work.through("label", pairs, SAID, judge.labeller(SAID), judge.noter(SAID))
        write_results(config, run, judge, check, {"given": len(given), "rejected": len(rejected)}, display)
        return run.finish()


def plan_of(config: LabelConfig) -> LabelPlan:
    """What the settings ask of each pair."""
    return LabelPlan(
        constitution=load_constitution(config.constitution),
        principles=config.principles,
        form=config.form,
        rlaif=config.preamble == "rlaif",
        cot=config.cot,
        reasoning_tokens=config.reasoning_tokens,
        seed=config.seed,
    )


class _Judge:
    """A model and its plan, and what it has said so far in this run's files."""

    def __init__(self, folder: Path, model: LanguageModel, plan: LabelPlan, cost: Cost) -> None:
        self.folder, self.model, self.plan, self.cost = folder, model, plan, cost

        self._said: dict[str, list[Verdict]] = {}

    def verdicts(self, name: str) -> list[Verdict]:
        """All verdicts of a file of this run; the file is read once."""
        if name not in self._said:
            path = self.folder / name
            rows = rows_of_file(path) if path.exists() else []
            self._said[name] = [labels.from_evidence(row, self.plan.cot) for row in rows]
        return self._said[name]

    def labeller(self, name: str) -> Callable[[Sequence[Pair]], list[dict[str, Any]]]:
        """Labels a batch for a file; returns its rows."""

        def label(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
            before = self.verdicts(name)
            fresh = labels.label(pairs, self.model, self.plan)
            before += fresh
            return [labels.as_evidence(verdict) for verdict in fresh]

        return label

    def noter(self, name: str) -> Note:
        """Figures to log of a file's verdicts, and the cost so far."""
        seen = unscored = flipped = both = 0

        def note(done: int) -> tuple[Mapping[str, float], Mapping[str, Any]]:
            nonlocal seen, unscored, flipped, both
            fresh = self.verdicts(name)[seen:]  # counted on: a whole count each batch would grow with their square
            seen += len(fresh)
            flips = position_flips([one.first_wins("12") for one in fresh], [one.first_wins("21") for one in fresh])
            unscored, both = unscored + flips.n_unscored, both + flips.n
            flipped += round(flips.flip_rate * flips.n) if flips.n else 0
            cost = self.cost.figures()
            figures = {"label__unscored": unscored / done}
            if both:
                figures["label__flips"] = flipped / both
            if "money" in cost:
                figures["label__money"] = cost["money"]
            return figures, {key: value for key, value in cost.items() if key not in ("money", "currency")}

        return note


def read_pairs(config: LabelConfig, run: Run) -> list[Pair]:
    """Pairs of the data: of response sets a draw of theirs, of comparisons their two responses on drawn sides."""
    kind = "response_set" if _holds_sets(config.data[0]) else "comparison"
    records: list[Any] = inputs.read_data(config.data, kind, config, run)
    pairs: list[Pair] = []
    for number, record in enumerate(records, 1):
        if isinstance(record, ResponseSet):
            pairs += _of_set(record, config)
        else:
            pairs.append(_of_comparison(record, number, config.seed))
    return pairs


def _holds_sets(path: Path) -> bool:
    files.check_path(path)
    first = next((row for _, row in files.rows(path) if isinstance(row, dict)), {})
    return "responses" in first


def _of_set(record: ResponseSet, config: LabelConfig) -> list[Pair]:
    drawn = shuffled(list(combinations(record.responses, 2)), "pairs", config.seed, record.id)
    return [
        Pair(id=f"{record.id}:{one.id}:{other.id}", prompt=record.prompt, first=one.text, second=other.text)
        for one, other in drawn[: config.pairs_per_prompt]
    ]


def _of_comparison(record: Comparison, number: int, seed: int) -> Pair:
    texts = [record.chosen, record.rejected]
    first, second = texts if choose((True, False), "side", seed, *texts) else texts[::-1]
    return Pair(id=f"row-{number}", prompt=record.prompt, first=first, second=second)


def read_known(config: LabelConfig, run: Run) -> tuple[list[Pair], list[float]]:
    """Pairs people decided, at most `check_rows` drawn by hash, and which reply is better."""
    if not config.check:
        return [], []
    comparisons: list[Comparison] = inputs.read_data(config.check, "comparison", config, run, "check")
    pairs, truths = worth.known_pairs(comparisons, config.seed)
    drawn = shuffled(list(zip(pairs, truths, strict=True)), "known", config.seed)[: config.check_rows]
    return [pair for pair, _ in drawn], [truth for _, truth in drawn]


def measure(
    config: LabelConfig, judge: _Judge, known: Sequence[Pair], truths: Sequence[float], display: Display
) -> dict[str, Any] | None:
    """What the judge is worth, from what is on disk; None where nothing is known."""
    if not known:
        display.note("no --check: what this judge is worth is not known")
        return None
    check = worth.worth_figures(judge.verdicts(KNOWN), truths, config.seed)
    check["near_chance"] = worth.is_near_chance(check)
    rows = min(config.injection_rows, len(known))
    path = judge.folder / "injection.json"
    if rows and not path.exists():
        found = worth.injection_figures(known[:rows], truths[:rows], judge.model, judge.plan, config.seed)
        write_text(path, json.dumps(found, indent=2))
    check["injection"] = json.loads(path.read_text(encoding="utf8")) if path.exists() else None
    return check


def refusal(check: Mapping[str, Any], name: str) -> str:
    """Why a judge is refused, in a line."""
    accuracy = check["accuracy"]
    low, high = accuracy["interval"]
    found = "no pair could be scored"
    if low is not None:
        found = (
            f"accuracy {accuracy['value']:.2f} (95%: {low:.2f} to {high:.2f}) on {accuracy['n']} pairs people decided, "
            f"while taking the longer reply is right on {check['longer_wins']:.2f}"
        )
    flips = "" if check["flip_rate"] is None else f"; the place decides in {check['flip_rate']:.0%} of pairs"
    return (
        f"{name} is near chance as a judge: {found}{flips}. Use a stronger judge (--model http://HOST/v1#MODEL), or "
        "--accept-weak-judge to label all the same"
    )


def write_results(
    config: LabelConfig,
    run: Run,
    judge: _Judge,
    check: dict[str, Any] | None,
    counts: dict[str, int],
    display: Display,
) -> None:
    """Comparisons and the report, from what is on disk."""
    verdicts = judge.verdicts(SAID)
    weak = bool(check and check["near_chance"])
    meta = {
        "judge": judge.model.name,
        "constitution": f"{judge.plan.constitution.name} {judge.plan.constitution.fingerprint}",
        "seed": config.seed,
        **({"weak_judge": True} if weak else {}),
    }
    rows = [row for verdict in verdicts if (row := labels.as_comparison(verdict, meta)) is not None]
    write_rows(run.folder / "comparisons.jsonl", rows)
    figures = worth.label_figures(verdicts)
    cost = judge.cost.figures()
    result = {
        "judge": judge.model.name,
        "method": judge.model.method,
        "constitution": meta["constitution"],
        "weak_judge": weak,
        "counts": {**counts, "labelled": figures["labelled"], "unscored": figures["unscored"]},
        "labels": figures,
        "check": check,
        "cost": {**cost, "pairs_per_second": len(verdicts) / max(cost["seconds"], 1e-9)},
        "seed": config.seed,
    }
    assert counts["given"] == figures["labelled"] + figures["unscored"] + counts["rejected"]
    write_text(run.folder / RESULT, json.dumps(result, indent=2, ensure_ascii=False))
    said = label_sentences(result)
    write_shown(run.folder, "judge", label_rows(result), said, {"models": [judge.model.name], "seed": config.seed})
    display.note(
        f"{counts['given']} pairs = {figures['labelled']} labelled + {figures['unscored']} unscored + "
        f"{counts['rejected']} rejected"
    )
