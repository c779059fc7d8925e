"""What experiments share: a folder, steps that are done once, training jobs, and policies measured on held-out prompts.

Every step leaves its result in the folder and is skipped when it is there: a killed experiment goes on where it was.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from accord.pipelines.evaluation import Items, Outcome
from accord.pipelines.reproduce.configs import ExperimentConfig
from accord.records import Conversation
from accord.train.progress import Display, Quiet

__all__ = ["Lab", "Measured", "Step", "write_rows"]


@dataclass(frozen=True)
class Step:
    """A step of an experiment: its name, what happens in it, and the work, which leaves its result in the folder."""

    name: str
    meaning: str
    work: Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a policy said to held-out prompts: P prompts, S responses each.

    Attributes:
        gold_PS: gold reward.
        kl_PS: nats, log-probability of the response under the policy less that under the reference (k1).
        length_PS: tokens.
        proxy_PS: what a reward model says, by its name.
    """

    gold_PS: Any
    kl_PS: Any
    length_PS: Any
    proxy_PS: Mapping[str, Any]

    @property
    def gold_P(self) -> Any:
        """Mean gold reward of each prompt."""
        return self.gold_PS.mean(axis=1)

    @property
    def kl_P(self) -> Any:
        """Mean KL of each prompt."""
        return self.kl_PS.mean(axis=1)


class Lab:
    """The folder of an experiment and what its steps need.

    Args:
        config: the experiment's settings, as they are run.
    """

    def __init__(self, config: ExperimentConfig) -> None:
        self.config, self.out = config, config.out
        self.display: Display = Quiet()
        self._precision: str | None = None

    # -- files ---------------------------------------------------------------------------------------------------------

    def path(self, *names: str) -> Path:
        """A path in the folder; folders on the way are made."""
        path = self.out.joinpath(*map(_slug, names))
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def precision(self) -> str:
        """The arithmetic of all steps, settled with the folder: models of one experiment are compared."""
        if self._precision is None:
            path = self.path("manifest.json")
            self._precision = str(json.loads(path.read_text(encoding="utf8"))["precision"])
        return self._precision

    def settle(self, facts: Mapping[str, Any]) -> None:
        """Write manifest.json once, and into it each other machine or version that goes on with the work."""
        import torch

        from accord.train.files import write_text
        from accord.train.loop import Precision
        from accord.train.run import environment

        path = self.path("manifest.json")
        if path.exists():
            found, here = json.loads(path.read_text(encoding="utf8")), environment()
            parts = [found, *found.get("continued", [])]
            if all((one["versions"], one["environment"]) != (here["versions"], here["environment"]) for one in parts):
                write_text(path, json.dumps({**found, "continued": [*parts[1:], here]}, indent=2))
            return
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        found = {**facts, "precision": Precision("auto", device).name, "device": str(device)}
        found |= {"command": " ".join(sys.argv), **environment()}
        write_text(path, json.dumps(found, indent=2))

    # -- work ----------------------------------------------------------------------------------------------------------

    def train(self, job: str, name: str, **settings: Any) -> float:
        """Train, or continue, or find finished; the seconds it took, all parts together.

        Settings are those of the job; `watch` and `reward_object` go to the trainer as they are.
        """
        from accord.pipelines.jobs import JOBS

        passed = {key: settings.pop(key) for key in ("watch", "reward_object") if key in settings}
        config_type = JOBS[job].config
        shared = {"precision": self.precision, "micro_tokens": self.config.micro_tokens, "save_every": 25}
        known = {key: value for key, value in shared.items() if key in config_type.model_fields}
        config = config_type(**{**known, **settings}, out=self.path(name))  # an unknown setting is an error there
        keywords = {"watch": passed.get("watch"), "reward": passed.get("reward_object")}
        wanted = {key: value for key, value in keywords.items() if value is not None}
        trainer: Callable[..., Path] = JOBS[job].trainer()
        trainer(config, self.display, **wanted)
        return float(json.loads((config.out / "done.json").read_text(encoding="utf8"))["seconds"])

    def measure(
        self,
        name: str,
        model: str,
        *,
        reference: str,
        prompts: Sequence[Conversation],
        samples: int,
        gold: Callable[[Sequence[Conversation], Sequence[Sequence[str]]], Any],
        proxies: Mapping[str, str] | None = None,
        max_new_tokens: int,
        seed: int = 0,
    ) -> float:
        """Let a policy answer held-out prompts and keep what gold, proxies and reference say of it; seconds it took."""
        from accord.models.load import load_policy
        from accord.pipelines.held_out import Responder
        from accord.text import Template
        from accord.train.loop import Precision, device_of
        from accord.train.rewards import load_reward

        path = self.path("measured", f"{name}.jsonl")
        if path.exists():
            return 0.0
        began = time.monotonic()
        responder = Responder(prompts=prompts, samples=samples, max_new_tokens=max_new_tokens, seed=1000 + seed)
        policy, tokenizer = load_policy(model)
        template, precision = Template(tokenizer), Precision(self.precision, device_of(policy))
        total = len(prompts) * samples
        self.display.begin(f"measure {name}", total)
        responses = responder(policy, template, precision, lambda done, of: self.display.update(done, {}))
        own = self._logprobs(policy, responses, precision)
        reference_model = policy if reference == model else load_policy(reference)[0]
        theirs = own if reference == model else self._logprobs(reference_model, responses, precision)
        columns: dict[str, Any] = {
            "gold": gold(prompts, responses.texts_BK),
            "kl": np.subtract(own, theirs),
            "length": [len(branch.tokens) for tree in responses.trees for branch in tree.branches],
        }
        for proxy, folder in (proxies or {}).items():
            reward = load_reward(folder, template, precision.name, self.config.micro_tokens)
            columns[f"proxy:{proxy}"] = reward(responses).tolist()
        texts = [text for texts in responses.texts_BK for text in texts]
        rows = []
        for n, text in enumerate(texts):
            row = {"prompt_id": n // samples, "prompt": prompts[n // samples][-1].content, "response": text}
            rows.append(row | {key: float(values[n]) for key, values in columns.items()})
        write_rows(path, rows)
        return time.monotonic() - began

    def _logprobs(self, model: Any, responses: Any, precision: Any) -> list[float]:
        from accord.models.score import prepare
        from accord.train.scoring import all_sequence_logprobs

        prepare(model)
        precision.freeze(model)
        found = all_sequence_logprobs(model, responses.trees, precision, self.config.micro_tokens)
        return [float(value) for value in found.tolist()]

    def measured(self, name: str) -> Measured:
        """What `measure` kept."""
        lines = self.path("measured", f"{name}.jsonl").read_text(encoding="utf8").splitlines()
        rows = [json.loads(line) for line in lines]
        prompts = rows[-1]["prompt_id"] + 1

        def column(key: str) -> Any:
            return np.array([row[key] for row in rows]).reshape(prompts, -1)

        proxies = {key.removeprefix("proxy:"): column(key) for key in rows[0] if key.startswith("proxy:")}
        return Measured(gold_PS=column("gold"), kl_PS=column("kl"), length_PS=column("length"), proxy_PS=proxies)

    def evaluate(self, name: str, job: Callable[[Any, Items, Display], Outcome]) -> float:
        """Run an evaluation with rows of its own, or go on with it: `items(name, figure)`; seconds it took."""
        path = self.path("evaluated", f"{name}.json")
        if path.exists():
            return 0.0
        began = time.monotonic()
        outcome = job(None, Items(self.path("evaluated", f"{name}.jsonl")), self.display)
        kept = {}
        for name_, _, result, of in outcome.results:
            row = [result.value, result.n, result.n_unscored]
            kept[f"{name_}, {of}" if of else name_] = [None if value != value else value for value in row]
        items = {
            key: [None if math.isnan(value) else value for value in column] for key, column in outcome.items.items()
        }
        write_rows(self.path("evaluated", f"{name}.items.json"), [items])
        write_rows(path, [kept])  # last: it says that all of it is there
        return time.monotonic() - began

    def items(self, name: str, key: str) -> Any:
        """(P,) values of the single items behind a figure of an evaluation, NaN unscored."""
        kept = json.loads(self.path("evaluated", f"{name}.items.json").read_text(encoding="utf8"))[key]
        return np.array([math.nan if value is None else value for value in kept])

    def unscored(self, names: Sequence[str]) -> float:
        """Share of the observations of evaluations that were lost."""
        rows = [
            row for name in names for row in json.loads(self.path("evaluated", f"{name}.json").read_text()).values()
        ]
        return sum(lost for _, _, lost in rows) / max(1, sum(n + lost for _, n, lost in rows))

    def facts(self, seconds: Mapping[str, float], peak_memory_gb: float) -> dict[str, Any]:
        """Provenance of the evidence, but for its data."""
        manifest = json.loads(self.path("manifest.json").read_text(encoding="utf8"))
        return {
            "model": self.config.model,
            "model_fingerprint": manifest["model_fingerprint"],
            "seeds": list(self.config.seeds),
            "settings": self.config.model_dump(mode="json"),
            "fast": self.config.fast,
            "seconds": round(sum(seconds.values()), 1),
            "peak_memory_gb": peak_memory_gb,
            "precision": manifest["precision"],
            "versions": manifest["versions"],
            "environment": manifest["environment"],
            "continued": manifest.get("continued", []),
            "command": manifest["command"],
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write JSONL, whole or not at all."""
    from accord.train.files import write_text

    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-")
