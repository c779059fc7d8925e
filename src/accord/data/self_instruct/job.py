"""Self-Instruct from top to bottom: instructions, filters, classification or not, instances, filters, Demonstrations.

    instructions.jsonl    accepted instructions, each with its 10 nearest and the seeds it was written from
    classified.jsonl      whether each is a classification task
    instances.jsonl       inputs and outputs
    rejected.jsonl        what was not kept, each with the step and the reason
    demonstrations.jsonl  training data: one row an instance, in a drawn layout
    review.jsonl          50 random rows as response sets, for a person to judge
    report.json           yield of each step, reasons, distances, verbs and nouns

A request is one step: its rows and the state are written before the next. All draws are functions of the seed and the
number of the request, so a job that was stopped goes on and ends in the same files.

    accord data self-instruct --model smollm2-135m --seeds seed_tasks.jsonl --target 100 --out runs/instructions
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import accord
from accord.data import files
from accord.data.draws import draw
from accord.data.lines import Lines, write_json
from accord.data.progress import Tell, silent
from accord.data.self_instruct import prompts
from accord.data.self_instruct.config import SelfInstructConfig
from accord.data.self_instruct.filters import bad_instruction, keep_instances
from accord.data.self_instruct.journal import Journal
from accord.data.self_instruct.layouts import prompt_of
from accord.data.self_instruct.report import report_of, size_class
from accord.data.self_instruct.seeds import Instance, Seed, read_seeds
from accord.overlap import Novelty
from accord.protocols import LanguageModel, Prompt, Reply, Sampling
from accord.records import Message, Response, ResponseSet, to_row

__all__ = ["self_instruct"]

CONTEXT, OF_MACHINE, OF_SEEDS_ALPACA, REVIEWED = 8, 2, 3, 50
WRITING = Sampling(temperature=0.7, top_p=0.5, max_new_tokens=1024, stop=prompts.STOP, presence_penalty=2.0)
ALPACA = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=3072, stop=prompts.ALPACA_STOP)
ANSWERING = Sampling(temperature=0.0, max_new_tokens=300, stop=prompts.INSTANCE_STOP)
DECIDING = Sampling(temperature=0.0, max_new_tokens=3, stop=("\n",))


def self_instruct(model: LanguageModel, config: SelfInstructConfig, tell: Tell = silent) -> dict[str, Any]:
    """Write instructions, or continue; returns the report.

    Args:
        model: who writes.
        config: how.
        tell: progress.

    Raises:
        DataError: the seeds cannot be read, or the folder holds a job with other settings.
        accord.protocols.Unavailable: the model is away; the work so far is kept.
    """
    seeds = read_seeds(config.seeds)
    leave = {"out", "seeds", "model", "target", "max_requests", "batch"}
    made_of = config.model_dump(mode="json", exclude=leave) | {
        "model": model.name,
        "seeds": files.sha256(config.seeds),
        "batch": config.batch,
    }
    job = _Job(model, config, seeds, Journal(config.out, made_of))
    job.write_instructions(tell)
    if config.style == "self-instruct":
        job.classify(tell)
        job.write_instances(tell)
    return job.finish(tell)


class _Job:
    """The state that the steps share: the pool, and the files."""

    def __init__(self, model: LanguageModel, config: SelfInstructConfig, seeds: list[Seed], journal: Journal) -> None:
        self._model, self._config, self._seeds, self._journal = model, config, seeds, journal
        self._accepted = journal.rows("instructions.jsonl")
        self._costs: dict[str, list[float]] = journal.state.get("costs", {})
        self._pool = Novelty(config.novelty, config.tokens)
        for text in [seed.instruction for seed in seeds] + [row["instruction"] for row in self._accepted]:
            self._pool.add(text)

    # -- steps 1 and 2

    def write_instructions(self, tell: Tell) -> None:
        """Ask for instructions until there are enough, or as many requests as are allowed."""
        config, journal = self._config, self._journal
        request = journal.state.get("requests", 0)
        tell("instructions", len(self._accepted), config.target)
        while len(self._accepted) < config.target and request < config.max_requests:
            numbers = range(request, min(request + config.batch, config.max_requests))
            contexts = [self._context(number) for number in numbers]
            asked = [self._instruction_prompt(context) for context in contexts]
            sampling = ALPACA if config.style == "alpaca" else WRITING
            replies = self._ask(asked, sampling, config.seed + request)
            for context, prompt, reply in zip(contexts, asked, replies, strict=True):
                self._take(context, prompt, reply)
            request = numbers.stop
            journal.commit(requests=request, costs=self._costs)
            tell("instructions", len(self._accepted), config.target, f"{request} requests")

    def _context(self, number: int) -> list[Seed]:
        """What stands in the prompt of a request: seeds, and for Self-Instruct two of the machine's own."""
        generator = draw(self._config.seed, "context", number)
        if self._config.style == "alpaca":
            return generator.sample(self._seeds, min(OF_SEEDS_ALPACA, len(self._seeds)))
        pool = self._seeds
        if self._config.classification:
            pool = [seed for seed in self._seeds if seed.is_classification] or self._seeds
        own = [Seed(row["id"], row["instruction"], (), False) for row in self._accepted]
        drawn = generator.sample(own, min(OF_MACHINE, len(own)))
        drawn += generator.sample(pool, min(CONTEXT - len(drawn), len(pool)))
        generator.shuffle(drawn)
        return drawn

    def _instruction_prompt(self, context: Sequence[Seed]) -> str:
        if self._config.style == "alpaca":
            return prompts.alpaca_prompt(context)
        texts = [seed.instruction for seed in context]
        return prompts.instruction_prompt(texts, classification=self._config.classification)

    def _take(self, context: Sequence[Seed], prompt: str, reply: Reply) -> None:
        """Filter what a reply holds, and write what is kept and what is not."""
        if reply.finish == "error":
            self._reject("request", prompt[-80:], f"no reply: {reply.error}")
            return
        cut, first = reply.finish == "length", len(context) + 1
        if self._config.style == "alpaca":
            for task in prompts.read_alpaca(reply.text, first, cut=cut):
                if task is None:
                    self._reject("instruction", reply.text[:80], "not in the form asked for")
                else:
                    self._offer(task.instruction, context, prompt, task.instance)
        else:
            found = prompts.read_instructions(reply.text, first, cut=cut)
            for text in found:
                self._offer(text, context, prompt)
            if not found and not cut:
                self._reject("request", prompt[-80:], "no instruction in the reply")
        if cut:
            self._reject("instruction", reply.text[-80:], "cut off by length (the last one only)")

    def _offer(self, text: str, context: Sequence[Seed], prompt: str, instance: Instance | None = None) -> None:
        if len(self._accepted) >= self._config.target:
            self._reject("surplus", text, "the target was reached")
            return
        if not text:
            self._reject("instruction", text, "too short")
            return
        began = time.perf_counter()
        reason, near = bad_instruction(text, self._pool)
        count_and_seconds = self._costs.setdefault(size_class(len(self._pool)), [0, 0.0])
        count_and_seconds[0] += 1
        count_and_seconds[1] += time.perf_counter() - began
        if reason:
            self._reject("instruction", text, reason, near)
            return
        if instance is not None:
            kept, rejected = keep_instances(text, [instance], 1)
            for one, why in rejected:
                self._reject("instance", f"{text} | {one.input} | {one.output}", why)
            if not kept:
                return
        row: dict[str, Any] = {
            "id": f"machine_{len(self._accepted)}",
            "instruction": text,
            "nearest": [{"f1": round(f1, 4), "instruction": self._text(number)} for f1, number in near],
            "context": [seed.id for seed in context],
            "model": self._model.name,
            "prompt_sha256": hashlib.sha256(prompt.encode()).hexdigest(),
        }
        self._pool.add(text)
        self._accepted.append(row)
        self._journal.append("instructions.jsonl", [row])
        if instance is not None:
            self._journal.append("instances.jsonl", [_instance_row(row["id"], instance)])

    def _text(self, number: int) -> str:
        own = number - len(self._seeds)
        return self._seeds[number].instruction if own < 0 else str(self._accepted[own]["instruction"])

    def _reject(self, step: str, text: str, reason: str, near: Sequence[tuple[float, int]] = ()) -> None:
        row: dict[str, Any] = {"step": step, "reason": reason, "text": text}
        if near:
            row["nearest"] = {"f1": round(near[0][0], 4), "instruction": self._text(near[0][1])}
        self._journal.append("rejected.jsonl", [row])

    # -- step 3

    def classify(self, tell: Tell) -> None:
        """Find out which instructions are classification tasks."""
        done = len(self._journal.rows("classified.jsonl"))
        for rows in self._batches(done):
            asked = [prompts.classification_prompt(row["instruction"]) for row in rows]
            found = [self._decided(scores, prompt) for scores, prompt in zip(self._score(asked), asked, strict=True)]
            self._journal.append(
                "classified.jsonl",
                [
                    {"id": row["id"], "is_classification": yes, "method": method}
                    for row, (yes, method) in zip(rows, found, strict=True)
                ],
            )
            self._journal.commit()
            done += len(rows)
            tell("classification or not", done, len(self._accepted))

    def _score(self, asked: Sequence[str]) -> list[list[float | None]]:
        return self._model.score([self._form(prompt) for prompt in asked], [(" Yes", " No")] * len(asked))

    def _decided(self, scores: Sequence[float | None], prompt: str) -> tuple[bool, str]:
        """By the likelier word; where a model tells no log-probabilities, by what it writes."""
        yes, no = scores
        if yes is not None and no is not None:
            return yes > no, "score"
        reply = self._ask([prompt], DECIDING, self._config.seed)[0]
        if reply.finish == "error":
            self._reject("request", prompt[-80:], f"no reply: {reply.error}")
        return reply.text.strip().lower().startswith("yes"), "no answer" if reply.finish == "error" else "text"

    # -- steps 4 and 5

    def write_instances(self, tell: Tell) -> None:
        """Ask for inputs and outputs of each instruction."""
        classes = {row["id"]: row["is_classification"] for row in self._journal.rows("classified.jsonl")}
        done = self._journal.state.get("instructions_with_instances", 0)
        for rows in self._batches(done):
            asked = [prompts.instance_prompt(row["instruction"], classification=classes[row["id"]]) for row in rows]
            for row, reply in zip(rows, self._ask(asked, ANSWERING, self._config.seed), strict=True):
                self._take_instances(row, reply, classes[row["id"]])
            done += len(rows)
            self._journal.commit(instructions_with_instances=done)
            tell("instances", done, len(self._accepted))

    def _take_instances(self, row: dict[str, Any], reply: Reply, classification: bool) -> None:
        if reply.finish == "error":
            self._reject("request", row["instruction"], f"no reply: {reply.error}")
            return
        cut = reply.finish == "length"
        found = prompts.read_instances(reply.text, classification=classification, cut=cut)
        if cut:
            self._reject(
                "instance", f"{row['instruction']} | {reply.text[-80:]}", "cut off by length (the last one only)"
            )
        kept, rejected = keep_instances(row["instruction"], found, self._config.instances)
        for instance, reason in rejected:
            self._reject("instance", f"{row['instruction']} | {instance.input} | {instance.output}", reason)
        if not found and not cut:
            self._reject("instance", f"{row['instruction']} | {reply.text[:80]}", "no instance in the reply")
        self._journal.append("instances.jsonl", [_instance_row(row["id"], instance) for instance in kept])

    def _batches(self, done: int) -> Iterator[list[dict[str, Any]]]:
        for start in range(done, len(self._accepted), self._config.batch):
            yield self._accepted[start : start + self._config.batch]

    # -- the model

    def _form(self, prompt: str) -> Prompt:
        if self._config.form == "text":
            return prompt
        lead = "Continue the following text. Write only what comes next.\n\n"
        return (Message(role="user", content=lead + prompt),)

    def _ask(self, asked: Sequence[str], sampling: Sampling, seed: int) -> list[Reply]:
        seeded = Sampling(**{**vars(sampling), "seed": seed})
        return [replies[0] for replies in self._model.generate([self._form(prompt) for prompt in asked], 1, seeded)]

    # -- results

    def finish(self, tell: Tell) -> dict[str, Any]:
        """Write the Demonstrations, the rows to review and the report."""
        config, journal = self._config, self._journal
        by_id = {row["id"]: row for row in self._accepted}
        instances = journal.rows("instances.jsonl")
        path = config.out / "demonstrations.jsonl"
        with Lines(path) as lines:
            for number, found in enumerate(instances):
                lines.add(_demonstration(by_id[found["id"]], found, config.seed, number))
        reviewed = sorted(draw(config.seed, "review").sample(range(len(instances)), min(REVIEWED, len(instances))))
        with Lines(config.out / "review.jsonl", keep_empty=False) as lines:
            for number in reviewed:
                lines.add(_to_review(by_id[instances[number]["id"]], instances[number], number, self._model.name))
        report = report_of(self._accepted, journal.rows("classified.jsonl"), instances, journal.rows("rejected.jsonl"))
        report = {
            "accord": accord.__version__,
            "settings": config.model_dump(mode="json"),
            "model": self._model.name,
            "seeds_sha256": files.sha256(config.seeds),
            "requests": journal.state.get("requests", 0),
            "filter_ms_by_pool_size": {name: 1000 * seconds / count for name, (count, seconds) in self._costs.items()},
            **report,
        }
        write_json(report, config.out / "report.json")
        tell("instructions", len(self._accepted), config.target)
        return report


def _instance_row(instruction_id: str, instance: Instance) -> dict[str, Any]:
    return {"id": instruction_id, **instance._asdict()}


def _demonstration(row: dict[str, Any], found: dict[str, Any], seed: int, number: int) -> dict[str, Any]:
    instance = Instance(found["input"], found["output"])
    meta = {"id": row["id"], "seeds": row["context"], "model": row["model"], "prompt_sha256": row["prompt_sha256"]}
    prompt = prompt_of(row["instruction"], instance, seed, number)
    return {"prompt": prompt, "response": instance.output, "meta": meta}


def _to_review(row: dict[str, Any], found: dict[str, Any], number: int, model: str) -> dict[str, Any]:
    prompt = "\n\n".join(filter(None, (row["instruction"], found["input"])))
    response = Response(id=f"{row['id']}-{number}", text=found["output"], model=model)
    return to_row(ResponseSet.model_validate({"id": f"review-{number}", "prompt": prompt, "responses": [response]}))
