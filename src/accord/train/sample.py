"""Sampling K responses to each prompt and, with a reward, ranking them: best-of-n and rejection sampling.

    responses.jsonl   a ResponseSet per prompt: what the model said, with its name and how it was asked
    scores.jsonl      with a reward: the score of each response, in the same order
    rankings.jsonl    Rankings by score: data of reward models and preference learning
    best.jsonl        Demonstrations: the best response to each prompt, data of rejection-sampling fine-tuning
    best_of_n.json    the mean reward of the best of n = 1, 2, 4, ... K, with an interval and its KL at most

Prompts are sampled a batch at a time; each batch is on disk before the next begins. The random numbers are a function
of the seed and the batch, so a run that was stopped goes on and ends in the same files.

    accord sample --model runs/sft --reward runs/reward --data prompts.jsonl --out runs/best
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from accord.data.batches import prompt_ids
from accord.models.load import load_policy, resolve
from accord.records import Conversation, Demonstration, Ranking, Response, ResponseSet, to_row
from accord.rollouts import Sampling
from accord.rollouts.native import NativeSampler
from accord.text import Template
from accord.train import inputs, loop
from accord.train.best_of_n import best_of_n
from accord.train.configs import SampleConfig
from accord.train.experience import as_responses
from accord.train.progress import Bar, Display
from accord.train.rewards import Responses, Reward
from accord.train.run import Run, write_text
from accord.train.sources import load_rewards

__all__ = ["append", "keep_rows", "ranked", "rows_of_file", "run"]

SAID, SCORED = "responses.jsonl", "scores.jsonl"


def run(config: SampleConfig, display: Display | None = None, reward: Reward | None = None) -> Path:
    """Sample, or continue, or find finished; returns the run folder.

    Args:
        config: the job.
        display: where to show progress.
        reward: a reward object to use in place of those `config.reward` names.
    """
    display = display or Bar()
    with loop.showing(display), Run("sample", config, notify=display.note) as run:
        if run.finished:
            display.note(f"{run.folder} is finished")
            return run.folder
        source = resolve(config.model)
        records = inputs.read_files(config, run, data="prompts")["data"]
        model, tokenizer = load_policy(config.model)
        template = Template(tokenizer)
        precision = loop.Precision(run.known("precision") or config.precision, loop.device_of(model))
        if config.reward:
            reward = reward or load_rewards(config, template, precision.name)
        limit = inputs.length_limit(model, config, display)
        prompts, ids, rows = fit_prompts(records, config, run, template, limit)
        run.manifest |= {"precision": precision.name, "device": str(precision.device)}
        judge = reward.name if reward else None
        run.begin(model=source.name, model_fingerprint=source.fingerprint, reward=judge)

        sampler = NativeSampler(model, end_ids=template.end_ids, autocast=precision.forward)
        done = take_up(run, [SAID, SCORED] if reward else [SAID])
        display.begin("sample", len(prompts), done)
        for first in range(done, len(prompts), config.batch_size):
            batch = slice(first, min(first + config.batch_size, len(prompts)))
            clock = [time.perf_counter()]
            sampled = sampler.sample(ids[batch], sampling_of(config, first))
            clock.append(time.perf_counter())
            responses = as_responses(prompts[batch], ids[batch], sampled, template)
            score_N = reward(responses) if reward else None
            clock.append(time.perf_counter())
            names = [f"prompt-{row}" for row in rows[batch]]
            said = response_sets(responses, names, f"{source.name} ({source.fingerprint[:12]})", config)
            append(run.folder / SAID, (to_row(one) for one in said))
            figures = figures_of(responses, config.samples, score_N)
            if reward is not None and score_N is not None:
                score_BK = score_N.view(-1, config.samples).tolist()
                scores = ({"id": name, "scores": score_K} for name, score_K in zip(names, score_BK, strict=True))
                append(run.folder / SCORED, scores)
                figures |= {"seconds__score": clock[2] - clock[1], **getattr(reward, "figures", {})}
            keep_sample(run, batch.stop, responses, score_N)
            display.update(batch.stop, run.log(batch.stop, seconds__sample=clock[1] - clock[0], **figures))
            run.save(batch.stop, {})
        if reward is not None:
            write_results(run, config, reward.name, display)
        return run.finish()


def fit_prompts(
    records: list[Conversation], config: SampleConfig, run: Run, template: Template, limit: int
) -> tuple[list[Conversation], list[tuple[int, ...]], list[int]]:
    """Prompts, their ids with room for a response, and their row numbers; what is cut or left out is counted."""
    ids, fitted = prompt_ids(records, template, limit, config.max_new_tokens)
    run.manifest["data_fit"] = fitted.as_dict()
    run.notify(f"data: {fitted.kept} of {fitted.rows} prompts, {fitted.cut_prompts} cut, longest {fitted.longest}")
    if not ids:
        raise ValueError(
            f"no prompt of data leaves room for {config.max_new_tokens} new tokens within {limit}, the smaller of "
            "--max-length and the model's positions; raise the one or lower --max-new-tokens"
        )
    rows = fitted.kept_rows
    return [records[row - 1] for row in rows], ids, rows


def sampling_of(config: SampleConfig, first: int) -> Sampling:
    """How the batch that begins at prompt `first` is sampled: a seed of its own, so that it knows no other batch."""
    return Sampling(
        samples=config.samples,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        seed=config.seed * 1_000_003 + first,
    )


def response_sets(responses: Responses, names: Sequence[str], model: str, config: SampleConfig) -> list[ResponseSet]:
    """What was said, as records: with the model, the settings, and whether it ended ("stop") or was cut ("length")."""
    asked = {"temperature": config.temperature, "max_new_tokens": config.max_new_tokens, "seed": config.seed}
    return [
        ResponseSet(
            id=name,
            prompt=prompt,
            responses=tuple(
                Response(
                    id=f"r{number}", text=text, model=model, sampling={**asked, "finish": "stop" if done else "length"}
                )
                for number, (text, done) in enumerate(zip(texts_K, finished_K, strict=True), 1)
            ),
        )
        for name, prompt, texts_K, finished_K in zip(
            names, responses.prompts, responses.texts_BK, responses.finished_BK, strict=True
        )
    ]


def figures_of(responses: Responses, samples: int, score_N: Tensor | None) -> dict[str, float]:
    """Lengths and rewards of a batch."""
    lengths = [len(branch.tokens) for tree in responses.trees for branch in tree.branches]
    cut = [not finished for finished_K in responses.finished_BK for finished in finished_K]
    figures = {"length__mean": sum(lengths) / len(lengths), "length__cut": sum(cut) / len(cut)}
    if score_N is None:
        return figures
    return figures | {
        "reward__mean": float(score_N.mean()),
        "reward__std": float(score_N.std(correction=0)),
        "reward__best": float(score_N.view(-1, samples).amax(-1).mean()),
    }


def keep_sample(run: Run, step: int, responses: Responses, score_N: Tensor | None) -> None:
    """The first response of a batch."""
    judged = {} if score_N is None else {"reward": float(score_N[0])}
    run.sample(step, prompt=responses.prompts[0][-1].content, response=responses.texts_BK[0][0], **judged)


# -- files -------------------------------------------------------------------------------------------------------------


def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows and see them onto the disk: a checkpoint that counts them is written next."""
    with path.open("ab") as file:
        file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
        file.flush()
        os.fsync(file.fileno())


def take_up(run: Run, names: Sequence[str]) -> int:
    """Prompts of earlier parts of this run that are safe; rows written behind them are taken back.

    Raises: ValueError: one of the files has fewer rows than the checkpoint counts.
    """
    done = loop.resume(run)
    for name in names:
        keep_rows(run.folder / name, done, run.folder)
    return done


def keep_rows(path: Path, done: int, folder: Path) -> None:
    """Cut a file of rows back to those that a checkpoint counts.

    Raises: ValueError: it has fewer.
    """
    kept = _lines(path)[:done] if path.exists() else []
    if len(kept) < done:
        raise ValueError(
            f"{path} has {len(kept)} rows, and the checkpoint beside it counts {done}; put the file back, or "
            f"delete {folder} to do it again"
        )
    write_text(path, b"".join(line + b"\n" for line in kept).decode())


def write_results(run: Run, config: SampleConfig, reward: str, display: Display) -> None:
    """Rankings, best responses and the best-of-n table, from what is on disk."""
    sets, scores = (rows_of_file(run.folder / name) for name in (SAID, SCORED))
    rankings, best = [], []
    for row, judged in zip(sets, scores, strict=True):
        ranking, chosen = ranked(ResponseSet.model_validate(row), judged["scores"], config.finished_only)
        rankings += [ranking] if ranking else []
        best += [chosen] if chosen else []
    for name, records in (("rankings", rankings), ("best", best)):
        write_text(run.folder / f"{name}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in records))
    table = {
        "rows": [row._asdict() for row in best_of_n([judged["scores"] for judged in scores])],
        "prompts": len(scores),
        "samples": config.samples,
        "interval": "95%, normal, over prompts",
        "counted": "all responses, empty and cut off ones too, whatever finished_only says",
        "reward": reward,
        "seed": config.seed,
    }
    write_text(run.folder / "best_of_n.json", json.dumps(table, indent=2))
    display.note(f"{len(rankings)} rankings and {len(best)} best responses of {len(sets)} prompts")
    if len(best) < len(sets):
        ended = " that ended within --max-new-tokens" if config.finished_only else ""
        display.note(
            f"{len(sets) - len(best)} prompts have no response with text{ended}: none of theirs is in best.jsonl"
        )


def ranked(
    responses: ResponseSet, score_K: Sequence[float], finished_only: bool
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The Ranking and the best Demonstration of a prompt as rows; None where there is nothing to prefer, or to show.

    Empty responses are no choice. Of a text that was said twice (once cut off, say) the higher score counts, with its
    mark. Equal scores tie, and of equal best ones the first is shown. What was cut off is marked: it must teach no end.
    """
    marked = zip(responses.responses, score_K, strict=True)
    said = [
        (one.text, score, (one.sampling or {}).get("finish") == "stop") for one, score in marked if one.text.strip()
    ]
    judged = _by_text(said)
    places = sorted({score for score, _ in judged.values()}, reverse=True)
    ranking: dict[str, Any] | None = None
    if len(places) > 1:
        scores, finished = zip(*judged.values(), strict=True)
        ranks = tuple(places.index(score) + 1 for score in scores)
        record = Ranking(
            prompt=responses.prompt, responses=tuple(judged), ranks=ranks, scores=scores, finished=finished
        )
        ranking = to_row(record)
    eligible = _by_text((text, score, ended) for text, score, ended in said if ended or not finished_only)
    if not eligible:
        return ranking, None
    best = max(eligible, key=lambda text: eligible[text][0])
    return ranking, to_row(Demonstration(prompt=responses.prompt, response=best, finished=eligible[best][1]))


def _by_text(said: Iterable[tuple[str, float, bool]]) -> dict[str, tuple[float, bool]]:
    """Score and finish of each text; of one said twice those of the better-scored, of equal ones the finished."""
    found: dict[str, tuple[float, bool]] = {}
    for text, score, finished in said:
        found[text] = max((score, finished), found.get(text, (score, finished)))
    return found


def rows_of_file(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of rows."""
    return [json.loads(line) for line in _lines(path)]


def _lines(path: Path) -> list[bytes]:
    """Whole lines. Bytes, split at newlines alone: a kill may cut a character, and texts hold any line separator."""
    return path.read_bytes().split(b"\n")[:-1]
