"""Critique and revision: the supervised stage of Constitutional AI (Bai et al. 2022, arXiv:2212.08073).

A prompt gets a draft. In each of R rounds a principle is drawn, independently of the other rounds, the last reply is
criticised by it and revised; the revision replaces the reply. What is no revision worth learning from is kept out of
the training data, with a reason, and the round's reply stays what it was.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from accord.feedback.ai import forms
from accord.feedback.ai.constitution import Constitution, Principle
from accord.feedback.ai.draws import choose, digest, shuffled
from accord.feedback.ai.forms import Form
from accord.feedback.ai.refusals import is_refusal
from accord.protocols import LanguageModel, Prompt, Reply, Sampling
from accord.records import Conversation, Demonstration, to_row

__all__ = [
    "CritiquePlan",
    "Round",
    "Thread",
    "demonstrations",
    "draft",
    "from_row",
    "reply_after",
    "revise",
    "round_figures",
    "thread_row",
]

REFUSAL_SHARE = 0.3
"""Most of a round's kept revisions that may be refusal boilerplate."""
_FORM_MARKS = (*forms.LABELS, "<conversation>", "</conversation>", "<reply>", "</reply>", "Write only the assistant's")


@dataclass(frozen=True, kw_only=True)
class CritiquePlan:
    """How replies are criticised and revised.

    Attributes:
        constitution: where the principles come from.
        rounds: R.
        form: of the prompts.
        direct: revise without a critique, which large models do nearly as well.
        max_new_tokens: of a draft, a critique, a revision.
        temperature: of drafts, critiques and revisions.
        seed: of every draw.
    """

    constitution: Constitution
    rounds: int = 4
    form: Form = "chat"
    direct: bool = False
    max_new_tokens: int = 256
    temperature: float = 1.0
    seed: int = 0

    def principle(self, key: str, number: int) -> Principle:
        """The principle of a prompt's round: a function of seed, prompt and round."""
        return choose(self.constitution.serving("critique"), "critique", self.seed, key, number)

    @property
    def sampling(self) -> Sampling:
        """How replies are sampled."""
        stop = forms.STOPS if self.form == "transcript" else ()
        return Sampling(temperature=self.temperature, max_new_tokens=self.max_new_tokens, seed=self.seed, stop=stop)


@dataclass(frozen=True, kw_only=True)
class Round:
    """One critique and revision. `dropped` says why the revision is kept out; None: it is kept."""

    number: int
    principle: str
    critique: str | None
    revision: str
    dropped: str | None = None


@dataclass(frozen=True, kw_only=True)
class Thread:
    """A prompt, its draft, and what became of it; `source` is "red-team" for revised ones, "helpful" for others."""

    id: str
    prompt: Conversation
    source: Literal["red-team", "helpful"]
    draft: str
    finished: bool
    problem: str | None = None
    rounds: tuple[Round, ...] = field(default=())

    @property
    def reply(self) -> str:
        """The last reply that was kept."""
        kept = [one.revision for one in self.rounds if one.dropped is None]
        return kept[-1] if kept else self.draft


def prompt_key(prompt: Conversation) -> str:
    """Hash of a prompt's content: what its random choices depend on."""
    return digest([[message.role, message.content] for message in prompt])


def draft(
    prompts: Sequence[tuple[str, Conversation, Literal["red-team", "helpful"]]],
    model: LanguageModel,
    plan: CritiquePlan,
) -> list[Thread]:
    """First replies, one call."""
    asked = [forms.draft_prompt(prompt, plan.form) for _, prompt, _ in prompts]
    replies = [only for (only,) in model.generate(asked, 1, plan.sampling)]
    return [
        Thread(
            id=identity,
            prompt=prompt,
            source=source,
            draft=reply.text.strip(),
            finished=reply.finish == "stop",
            problem=reply.error or (None if reply.text.strip() else "the draft is empty"),
        )
        for (identity, prompt, source), reply in zip(prompts, replies, strict=True)
    ]


def revise(threads: Sequence[Thread], model: LanguageModel, plan: CritiquePlan) -> list[Thread]:
    """All rounds of threads that have a draft; helpful ones and those without a draft stay as they are."""
    done = list(threads)
    live = [place for place, one in enumerate(done) if one.source == "red-team" and one.problem is None]
    for number in range(1, plan.rounds + 1):
        rounds = _one_round([done[place] for place in live], number, model, plan)
        for place, one in zip(live, rounds, strict=True):
            done[place] = replace(done[place], rounds=(*done[place].rounds, one))
    return done


def _one_round(threads: Sequence[Thread], number: int, model: LanguageModel, plan: CritiquePlan) -> list[Round]:
    principles = [plan.principle(prompt_key(one.prompt), number) for one in threads]
    talks = [forms.joined(one.prompt, one.reply) for one in threads]
    critiques: list[Reply | None] = [None] * len(threads)
    asked: list[Prompt]
    if plan.direct:
        asked = [forms.direct_revision_request(talk, p, plan.form) for talk, p in zip(talks, principles, strict=True)]
    else:
        first = [
            forms.critique_request(talk, p, plan.form, plan.constitution)
            for talk, p in zip(talks, principles, strict=True)
        ]
        said = [only for (only,) in model.generate(first, 1, plan.sampling)]
        critiques = [*said]
        asked = [
            forms.revision_request(prompt, critique.text.strip(), p)
            for prompt, critique, p in zip(first, said, principles, strict=True)
        ]
    revisions = [only for (only,) in model.generate(asked, 1, plan.sampling)]
    return [
        Round(
            number=number,
            principle=principle.id,
            critique=None if critique is None else critique.text.strip(),
            revision=revision.text.strip(),
            dropped=_flaw(thread.reply, critique, revision, principle),
        )
        for thread, principle, critique, revision in zip(threads, principles, critiques, revisions, strict=True)
    ]


def _flaw(before: str, critique: Reply | None, revision: Reply, principle: Principle) -> str | None:
    """Why a revision is kept out of the data; None: it is kept."""
    text = revision.text.strip()
    requests = [request for request in (principle.critique, principle.revision) if request]
    checks = {
        "the model failed": revision.finish == "error" or (critique is not None and critique.finish == "error"),
        "the critique is empty": critique is not None and not critique.text.strip(),
        "empty": not text,
        "cut by length": revision.finish == "length",
        "equal to the reply before": text == before,
        "carries a label of the form": any(mark in text for mark in _FORM_MARKS),
        "quotes the request": any(_plain(request)[:40] in _plain(text) for request in requests),
    }
    return next((reason for reason, found in checks.items() if found), None)


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


# -- data --------------------------------------------------------------------------------------------------------------


def demonstrations(
    threads: Sequence[Thread], plan: CritiquePlan, kept: Literal["all", "last"], meta: dict[str, Any]
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Demonstration rows with their provenance, and a count of what was kept out by reason.

    Of each round's revisions at most 30 % may be refusal boilerplate; the surplus, drawn by hash, is kept out.
    """
    out: Counter[str] = Counter()
    surplus = _surplus(threads, plan)
    rows: list[dict[str, Any]] = []
    for thread in threads:
        if thread.problem is not None:
            out[thread.problem] += 1
            continue
        if thread.source == "helpful":
            rows.append(_row(thread, thread.draft, {**meta, "source": "helpful"}, thread.finished))
            continue
        good = [(place, one) for place, one in enumerate(thread.rounds) if one.dropped is None]
        for one in thread.rounds:
            if one.dropped is not None:
                out[one.dropped] += 1
        for place, one in good if kept == "all" else good[-1:]:
            if (thread.id, one.number) in surplus:
                out["refusal boilerplate over 30 % of its round"] += 1
                continue
            before = [r.revision for r in thread.rounds[:place] if r.dropped is None]
            facts = {
                "source": "red-team",
                "round": one.number,
                "principle": one.principle,
                "critique": one.critique,
                "draft": before[-1] if before else thread.draft,
            }
            rows.append(_row(thread, one.revision, {**meta, **facts}))
    return rows, out


def _surplus(threads: Sequence[Thread], plan: CritiquePlan) -> set[tuple[str, int]]:
    """(thread, round) of refusals that go beyond their share of the round."""
    surplus: set[tuple[str, int]] = set()
    for number in range(1, plan.rounds + 1):
        kept = [
            (thread.id, one.revision)
            for thread in threads
            for one in thread.rounds
            if one.number == number and one.dropped is None
        ]
        refusing = [identity for identity, text in kept if is_refusal(text)]
        others = len(kept) - len(refusing)
        # r refusals among r + others are at most the share s when r <= s / (1 - s) others.
        allowed = int(REFUSAL_SHARE / (1 - REFUSAL_SHARE) * others)
        surplus |= {(identity, number) for identity in shuffled(refusing, "refusal", plan.seed, number)[allowed:]}
    return surplus


def _row(thread: Thread, text: str, meta: dict[str, Any], finished: bool = True) -> dict[str, Any]:
    """A Demonstration; of an answer that was cut by length no end is learned."""
    record = Demonstration(prompt=thread.prompt, response=text, finished=None if finished else False)
    return {**to_row(record), "meta": {"id": thread.id, **meta}}


def round_figures(threads: Sequence[Thread], rounds: int) -> list[dict[str, Any]]:
    """Per round, 0 is the draft: replies as they stand, mean length in words, distinct-2, share of refusals, kept."""
    live = [one for one in threads if one.source == "red-team" and one.problem is None]
    table = []
    for number in range(rounds + 1):
        texts = [reply_after(one, number) for one in live]
        kept = [one for thread in live for one in thread.rounds if one.number == number and one.dropped is None]
        table.append(
            {
                "round": number,
                "replies": len(texts),
                "kept": len(kept) if number else len(texts),
                "words": _mean([float(len(text.split())) for text in texts]),
                "distinct_2": distinct_2(texts),
                "refusals": _mean([float(is_refusal(text)) for text in texts]),
            }
        )
    return table


def reply_after(thread: Thread, number: int) -> str:
    """The reply of a thread as it stood after a round; 0 is the draft."""
    return replace(thread, rounds=thread.rounds[:number]).reply


def distinct_2(texts: Iterable[str]) -> float | None:
    """Different word pairs over all word pairs (Li et al. 2016, arXiv:1510.03055): 1 is no repetition."""
    pairs = [pair for text in texts for pair in zip(text.lower().split(), text.lower().split()[1:], strict=False)]
    return len(set(pairs)) / len(pairs) if pairs else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def thread_row(thread: Thread) -> dict[str, Any]:
    """A thread with all its rounds, as a row."""
    row = asdict(thread)
    row["prompt"] = [message.model_dump() for message in thread.prompt]
    return row


def from_row(row: dict[str, Any]) -> Thread:
    """The thread of a row that `thread_row` wrote."""
    prompt = Demonstration(prompt=row["prompt"], response="a").prompt
    assert prompt is not None
    rounds = tuple(Round(**one) for one in row["rounds"])
    return Thread(**{**row, "prompt": prompt, "rounds": rounds})
