"""Labels of response pairs by a model: the comparison stage of Constitutional AI and of RLAIF.

Bai et al. 2022 (arXiv:2212.08073), Lee et al. 2023 (arXiv:2309.00267). For a pair (y1, y2), each of m sampled
principles is asked in both orders:

    q            = sigma(logp_A - logp_B) = P(the reply shown first is better), A and B over all spellings
    value of y1  = q in order y1-y2, 1 - q in order y2-y1
    probability  = mean over principles and orders;  with chain of thought clamped to [0.40, 0.60]

What cannot be scored is left out together with its twin, the same principle in the other order; a pair of which nothing
is left is unscored, never a tie.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from accord.feedback.ai import forms
from accord.feedback.ai.constitution import ComparisonExample, Constitution, Principle
from accord.feedback.ai.draws import choose, digest, shuffled
from accord.feedback.ai.forms import Form, Question
from accord.labels import LEAST_MASS
from accord.protocols import LanguageModel, Reply, Sampling
from accord.records import Comparison, Conversation, to_row

__all__ = [
    "LOW_MASS",
    "Answer",
    "LabelPlan",
    "Pair",
    "Verdict",
    "as_comparison",
    "as_evidence",
    "from_evidence",
    "label",
    "usable_pairs",
]

CLAMP = (0.40, 0.60)
LOW_MASS = 0.5
"""Below this the model does not keep to the form well; counted, and said."""

Order = Literal["12", "21"]
ORDERS: tuple[Order, Order] = ("12", "21")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two replies to a conversation, in no order that means anything."""

    id: str
    prompt: Conversation
    first: str
    second: str

    @property
    def key(self) -> str:
        """Hash of the content: what its random choices depend on."""
        turns = [[message.role, message.content] for message in self.prompt]
        return digest(turns, self.first, self.second)


@dataclass(frozen=True, kw_only=True)
class LabelPlan:
    """How pairs are labelled.

    Attributes:
        constitution: where the principles come from.
        principles: m, principles a pair is asked about, drawn without replacement.
        form: of the prompts.
        rlaif: the preamble form of RLAIF.
        cot: reason first; probabilities are clamped.
        reasoning_tokens: of the reasoning at most.
        seed: of every draw.
    """

    constitution: Constitution
    principles: int = 4
    form: Form = "chat"
    rlaif: bool = False
    cot: bool = False
    reasoning_tokens: int = 256
    seed: int = 0

    def principles_of(self, pair: Pair) -> list[Principle]:
        """The principles of a pair: a function of seed and pair."""
        known = self.constitution.serving("comparison")
        return shuffled(known, "principles", self.seed, pair.key)[: self.principles]

    def question(self, pair: Pair, principle: Principle, order: Order) -> Question:
        """The prompt of one principle and order, and the answers that are scored."""
        first, second = (pair.first, pair.second) if order == "12" else (pair.second, pair.first)
        return self.ask(pair.prompt, first, second, principle, pair.key)

    def ask(self, prompt: Conversation, first: str, second: str, principle: Principle, key: str) -> Question:
        """The prompt of one principle with two replies in the order given."""
        assert principle.comparison is not None
        examples = [(one, self._asked(one, number, key)) for number, one in enumerate(self._examples())]
        how: dict[str, Any] = {"examples": examples, "cot": self.cot, "rlaif": self.rlaif}
        return forms.comparison(prompt, first, second, principle.comparison, self.form, **how)

    def _examples(self) -> list[ComparisonExample]:
        """With reasoning, where reasoning is asked for; else those without."""
        return [one for one in self.constitution.few_shot.comparison if (one.reasoning is not None) == self.cot]

    def _asked(self, example: ComparisonExample, number: int, key: str) -> str:
        """The question of an example: its own principle's, or a sampled one's."""
        known = self.constitution.serving("comparison")
        own = [one for one in known if one.id == example.principle]
        question = (own[0] if own else choose(known, "example", self.seed, key, number)).comparison
        assert question is not None
        return question


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model said of a pair for one principle and order.

    Attributes:
        principle: its id.
        order: "12": y1 was shown first.
        logp_A: nats, of the answer that names the reply shown first; None: could not be had.
        logp_B: nats, of the other.
        mass: probability of both answers together.
        method: how the log-probabilities were had.
        reasoning: what was said before, with chain of thought.
        problem: why it is unscored; None: it counts.
        raw: what was said instead of an answer, where a server tells.
    """

    principle: str
    order: Order
    logp_A: float | None
    logp_B: float | None
    mass: float | None
    method: str
    reasoning: str | None = None
    problem: str | None = None
    raw: str | None = None

    @property
    def first_wins(self) -> float:
        """q, P(the reply shown first is better)."""
        assert self.logp_A is not None
        assert self.logp_B is not None
        return 1 / (1 + math.exp(min(700.0, self.logp_B - self.logp_A)))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A pair with all that was said of it."""

    pair: Pair
    answers: tuple[Answer, ...]
    clamp: bool = False
    scored: tuple[Answer, ...] = field(init=False)

    def __post_init__(self) -> None:
        lost = {answer.principle for answer in self.answers if answer.problem}
        object.__setattr__(self, "scored", tuple(one for one in self.answers if one.principle not in lost))

    @property
    def probability(self) -> float | None:
        """P(y1 is better); None: unscored."""
        if not self.scored:
            return None
        mean = math.fsum(a.first_wins if a.order == "12" else 1 - a.first_wins for a in self.scored) / len(self.scored)
        return min(max(mean, CLAMP[0]), CLAMP[1]) if self.clamp else mean

    def first_wins(self, order: Order) -> float:
        """P(the reply shown first is better) in one order, mean over principles; NaN: unscored."""
        found = [answer.first_wins for answer in self.scored if answer.order == order]
        return math.fsum(found) / len(found) if found else math.nan

    @property
    def problem(self) -> str | None:
        """Why it is unscored; None where it is scored."""
        return None if self.scored else next((one.problem for one in self.answers if one.problem), "nothing was asked")


def label(pairs: Sequence[Pair], model: LanguageModel, plan: LabelPlan) -> list[Verdict]:
    """Label pairs, all questions of all pairs in one call.

    Raises:
        accord.protocols.Unavailable: the model's server is away.
    """
    asked = [(pair, one, order) for pair in pairs for one in plan.principles_of(pair) for order in ORDERS]
    questions = [plan.question(pair, principle, order) for pair, principle, order in asked]
    answers = iter(answered(questions, [(principle.id, order) for _, principle, order in asked], model, plan))
    counts = [len(plan.principles_of(pair)) * len(ORDERS) for pair in pairs]
    return [
        Verdict(pair=pair, answers=tuple(next(answers) for _ in range(count)), clamp=plan.cot)
        for pair, count in zip(pairs, counts, strict=True)
    ]


def answered(
    questions: Sequence[Question], names: Sequence[tuple[str, Order]], model: LanguageModel, plan: LabelPlan
) -> list[Answer]:
    """The answers to questions that have a principle and an order each."""
    reasoned: Sequence[Reply | None] = [None] * len(questions)
    if plan.cot:
        sampling = Sampling(temperature=0.7, max_new_tokens=plan.reasoning_tokens, seed=plan.seed, stop=_stops(plan))
        reasoned = [only for (only,) in model.generate([one.prompt for one in questions], 1, sampling)]
    usable = [place for place, reply in enumerate(reasoned) if reply is None or _is_whole(reply)]
    final = [questions[p] if (said := reasoned[p]) is None else forms.concluding(questions[p], said.text.strip())
             for p in usable]  # fmt: skip
    prompts = {place: one.prompt for place, one in zip(usable, final, strict=True)}
    found = model.score_labels([*prompts.values()], [one.labels for one in final])
    scored = dict(zip(usable, found, strict=True))
    methods = {place: model.method_of(prompt) for place, prompt in prompts.items()}
    answers = [
        _answer(name, scored.get(place), reasoned[place], methods.get(place, model.method))
        for place, name in enumerate(names)
    ]
    return [
        replace(one, raw=model.unread(prompts[place])) if one.problem and place in prompts else one
        for place, one in enumerate(answers)
    ]


def _stops(plan: LabelPlan) -> tuple[str, ...]:
    return ("\n\nHuman:", "\n\nSo the answer is:") if plan.form == "transcript" else ()


def _is_whole(reply: Reply) -> bool:
    return reply.finish == "stop" and bool(reply.text.strip())


def _answer(
    name: tuple[str, Order], scores: Sequence[float | None] | None, reasoned: Reply | None, method: str
) -> Answer:
    principle, order = name
    text = None if reasoned is None else reasoned.text
    a, b = (None, None) if scores is None else scores
    mass = None if a is None or b is None else math.exp(a) + math.exp(b)
    problem = None
    if scores is None:
        assert reasoned is not None
        problem = reasoned.error or ("the reasoning is empty" if reasoned.finish == "stop" else "the reasoning was cut")
    elif mass is None:
        problem = "no answer could be read"
    elif method == "top" and mass < LEAST_MASS:
        problem = "the model speaks of something else"
    return Answer(
        principle=principle,
        order=order,
        logp_A=a,
        logp_B=b,
        mass=mass,
        method=method,
        reasoning=text,
        problem=problem,
    )


# -- rows --------------------------------------------------------------------------------------------------------------


def as_evidence(verdict: Verdict) -> dict[str, Any]:
    """A pair with every answer, as a row."""
    pair = verdict.pair
    return {
        "id": pair.id,
        "prompt": [message.model_dump() for message in pair.prompt],
        "first": pair.first,
        "second": pair.second,
        "probability": verdict.probability,
        **({"unscored": verdict.problem} if verdict.problem else {}),
        "asked": [{key: value for key, value in asdict(one).items() if value is not None} for one in verdict.answers],
    }


def from_evidence(row: dict[str, Any], clamp: bool) -> Verdict:
    """The verdict of a row that `as_evidence` wrote."""
    pair = Pair(
        id=row["id"],
        prompt=Comparison(prompt=row["prompt"], chosen="a", rejected="b").prompt,
        first=row["first"],
        second=row["second"],
    )
    blank = {"logp_A": None, "logp_B": None, "mass": None}
    return Verdict(pair=pair, answers=tuple(Answer(**{**blank, **one}) for one in row["asked"]), clamp=clamp)


def as_comparison(verdict: Verdict, meta: dict[str, Any]) -> dict[str, Any] | None:
    """The Comparison row of a verdict, likelier reply chosen, its probability soft; None: unscored."""
    probability = verdict.probability
    if probability is None:
        return None
    pair, first_better = verdict.pair, probability >= 0.5
    record = Comparison(
        prompt=pair.prompt,
        chosen=pair.first if first_better else pair.second,
        rejected=pair.second if first_better else pair.first,
        probability=max(probability, 1 - probability),
    )
    principles = sorted({answer.principle for answer in verdict.scored})
    return {**to_row(record), "meta": {"id": pair.id, "principles": principles, **meta}}


def usable_pairs(pairs: Iterable[Pair]) -> tuple[list[Pair], list[dict[str, Any]]]:
    """Pairs there is a choice between, and rows for the others with a reason: nothing is dropped silently."""
    kept: list[Pair] = []
    rejected: list[dict[str, Any]] = []
    seen: set[str] = set()
    for pair in pairs:
        reason = _no_choice(pair, seen)
        seen.add(pair.key)
        if reason is None:
            kept.append(pair)
        else:
            rejected.append({"id": pair.id, "reason": reason, "first": pair.first, "second": pair.second})
    return kept, rejected


def _no_choice(pair: Pair, seen: set[str]) -> str | None:
    if not pair.first.strip() or not pair.second.strip():
        return "a reply is empty"
    if pair.first.strip() == pair.second.strip():
        return "both replies are the same"
    return "the pair was there before" if pair.key in seen else None
