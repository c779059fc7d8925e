r"""The exact prompts: critique, revision, comparison; for chat models and, as a transcript to continue, base models.

tests/feedback/ai/golden holds each form as a file. What is judged stands between marks, and marks inside it are spelled
apart, so that a text cannot close its own quotation.

    chat         one user message a request, the conversation between <conversation> marks
    transcript   "\n\nHuman: ... \n\nAssistant: ... \n\nCritiqueRequest: ... \n\nCritique:", a plain string
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, TypeAlias

from accord.feedback.ai.constitution import ComparisonExample, Constitution, CritiqueExample, Principle
from accord.protocols import Prompt
from accord.records import Conversation, Message

__all__ = [
    "LABELS",
    "STOPS",
    "Form",
    "Question",
    "comparison",
    "concluding",
    "critique_request",
    "direct_revision_request",
    "draft_prompt",
    "inert",
    "joined",
    "quoted",
    "revision_request",
]

Form: TypeAlias = Literal["chat", "transcript"]

LABELS = ("Human:", "Assistant:", "CritiqueRequest:", "Critique:", "RevisionRequest:", "Revision:")
STOPS = tuple(f"\n\n{label}" for label in LABELS)
"""Where a base model that continues a transcript is stopped."""

_MARK = re.compile(r"<(/?)(conversation|reply)>", re.IGNORECASE)
_NAMES = {"user": "Person", "assistant": "Assistant", "system": "System", "tool": "Tool"}
_TRANSCRIPT_NAMES = {"user": "Human", "assistant": "Assistant", "system": "System", "tool": "Tool"}


class Question(NamedTuple):
    """A prompt and the two answers that are scored after it: the first shown, the second shown."""

    prompt: Prompt
    labels: tuple[str, str]


# -- critique and revision ---------------------------------------------------------------------------------------------


def draft_prompt(conversation: Conversation, form: Form) -> Prompt:
    """What a model is given to write the first reply."""
    if form == "chat":
        return conversation
    return _transcript(conversation) + "\n\nAssistant:"


def critique_request(
    conversation: Conversation, principle: Principle, form: Form, constitution: Constitution
) -> Prompt:
    """Ask what is wrong with the last reply of a conversation, after the constitution's worked examples."""
    assert principle.critique is not None
    if form == "chat":
        return (*_worked_chat(constitution), _user(_about(conversation, principle.critique, "the critique")))
    worked = "".join(
        _worked_transcript(example, constitution) + "\n\n---" for example in constitution.few_shot.critique
    )
    return f"{worked}{_transcript(conversation)}\n\nCritiqueRequest: {principle.critique}\n\nCritique:"


def revision_request(asked: Prompt, critique: str, principle: Principle) -> Prompt:
    """Ask for the revision, behind the request for a critique and the critique that was given."""
    if isinstance(asked, str):
        return f"{asked} {critique}\n\nRevisionRequest: {principle.revision}\n\nRevision:"
    return (*asked, _assistant(critique), _user(f"{principle.revision}\nWrite only the assistant's new reply."))


def direct_revision_request(conversation: Conversation, principle: Principle, form: Form) -> Prompt:
    """Ask for a revision without a critique."""
    assert principle.revision is not None
    if form == "chat":
        return (_user(_about(conversation, principle.revision, "the assistant's new reply")),)
    return f"{_transcript(conversation)}\n\nRevisionRequest: {principle.revision}\n\nRevision:"


def _about(conversation: Conversation, request: str, wanted: str) -> str:
    return (
        "Here is a conversation between a person and an assistant.\n"
        f"<conversation>\n{quoted(conversation)}\n</conversation>\n{request}\nWrite {wanted} only."
    )


def _requests(example: CritiqueExample, constitution: Constitution) -> tuple[str, str]:
    principle = constitution.principle(example.principle) if example.principle else None
    critique = example.critique_request or (principle.critique if principle else None)
    revision = example.revision_request or (principle.revision if principle else None)
    assert critique is not None
    assert revision is not None
    return critique, revision


def _worked_chat(constitution: Constitution) -> Iterable[Message]:
    for example in constitution.few_shot.critique:
        critique, revision = _requests(example, constitution)
        yield _user(_about(example.conversation, critique, "the critique"))
        yield _assistant(example.critique)
        yield _user(f"{revision}\nWrite only the assistant's new reply.")
        yield _assistant(example.revision)


def _worked_transcript(example: CritiqueExample, constitution: Constitution) -> str:
    critique, revision = _requests(example, constitution)
    return (
        f"{_transcript(example.conversation)}\n\nCritiqueRequest: {critique}\n\nCritique: {example.critique}"
        f"\n\nRevisionRequest: {revision}\n\nRevision: {example.revision}"
    )


# -- comparison --------------------------------------------------------------------------------------------------------


def comparison(
    conversation: Conversation,
    first: str,
    second: str,
    question: str,
    form: Form,
    *,
    examples: Sequence[tuple[ComparisonExample, str]] = (),
    cot: bool = False,
    rlaif: bool = False,
) -> Question:
    """Ask which of two replies is better.

    Args:
        conversation: up to the turn that is answered.
        first: the reply shown first.
        second: the reply shown second.
        question: of a principle.
        form: chat or transcript.
        examples: worked ones, each with its question.
        cot: ask for reasoning; the answers are then scored behind `concluding(prompt, reasoning)`.
        rlaif: the form of Lee et al. 2023 (arXiv:2309.00267): preamble, "Response 1", "Preferred Response=".
    """
    shown = [
        (example.conversation, example.first, example.second, asked, example.answer, example.reasoning)
        for example, asked in examples
    ]
    if rlaif:
        text = _rlaif(conversation, first, second, question, shown)
        return Question(text if form == "transcript" else (_user(text),), ("1", "2"))
    if form == "chat":
        worked = [turn for one in shown for turn in _worked_answer(one, cot)]
        return Question((*worked, _user(_chat_pair(conversation, first, second, question, cot))), ("(A)", "(B)"))
    worked_text = "".join(_transcript_pair(*one[:4], cot) + _transcript_answer(one, cot) + "\n\n" for one in shown)
    return Question(worked_text + _transcript_pair(conversation, first, second, question, cot), (" (A)", " (B)"))


def concluding(question: Question, reasoning: str) -> Question:
    """The same question with its reasoning, where only the answer is missing."""
    if isinstance(question.prompt, str):
        return question._replace(prompt=f"{question.prompt} {reasoning}\n\nSo the answer is:")
    said = (_assistant(reasoning), _user("So the answer is:"))
    return question._replace(prompt=(*question.prompt, *said))


_Shown = tuple[Conversation, str, str, str, str, str | None]


def _chat_pair(conversation: Conversation, first: str, second: str, question: str, cot: bool) -> str:
    end = "Think step by step about both replies." if cot else "Answer with (A) or (B) only."
    return (
        "Here is a conversation between a person and an assistant, and two possible next replies.\n"
        f"<conversation>\n{quoted(conversation)}\n</conversation>\n"
        f"Reply (A):\n<reply>\n{inert(first)}\n</reply>\nReply (B):\n<reply>\n{inert(second)}\n</reply>\n"
        f"{question}\n{end}"
    )


def _worked_answer(shown: _Shown, cot: bool) -> list[Message]:
    conversation, first, second, question, answer, reasoning = shown
    asked = _user(_chat_pair(conversation, first, second, question, cot))
    if not cot:
        return [asked, _assistant(f"({answer})")]
    return [asked, _assistant(reasoning or ""), _user("So the answer is:"), _assistant(f"({answer})")]


def _transcript_pair(conversation: Conversation, first: str, second: str, question: str, cot: bool) -> str:
    end = "\n\nAssistant: Let's think step by step:" if cot else "\nThe answer is:"
    return (
        "Consider the following conversation between a human and an assistant:"
        f"{_transcript(conversation)}\n\n{question} Options:\n (A) {first}\n (B) {second}{end}"
    )


def _transcript_answer(shown: _Shown, cot: bool) -> str:
    answer, reasoning = shown[4:]
    return f" {reasoning}\n\nSo the answer is: ({answer})" if cot else f" ({answer})"


def _rlaif(conversation: Conversation, first: str, second: str, question: str, shown: Sequence[_Shown]) -> str:
    """Preamble, exemplars, the pair; the preferred number is what comes next."""
    preamble = (
        "A good reply does what the person asked, is true, and does no harm to anyone. Below are conversations, each "
        f"with two possible replies of an assistant. {question} Say it by the number of the reply."
    )
    pairs = [
        *(_rlaif_pair(*one[:3]) + ("1" if one[4] == "A" else "2") for one in shown),
        _rlaif_pair(conversation, first, second),
    ]
    return "\n\n".join([preamble, *pairs])


def _rlaif_pair(conversation: Conversation, first: str, second: str) -> str:
    text = quoted(conversation)
    return f"Text - {text}\n\nResponse 1 - {inert(first)}\n\nResponse 2 - {inert(second)}\n\nPreferred Response="


# -- parts -------------------------------------------------------------------------------------------------------------


def joined(conversation: Conversation, reply: str) -> Conversation:
    """A conversation with a reply at its end."""
    return (*conversation, _assistant(reply))


def quoted(conversation: Conversation) -> str:
    """A conversation as it stands between marks."""
    return "\n\n".join(f"{_NAMES[message.role]}: {inert(message.content)}" for message in conversation)


def _transcript(conversation: Conversation) -> str:
    return "".join(f"\n\n{_TRANSCRIPT_NAMES[message.role]}: {message.content}" for message in conversation)


def inert(text: str) -> str:
    """The text with the marks of quotation spelled apart."""
    return _MARK.sub(r"< \1\2 >", text)


def _user(text: str) -> Message:
    return Message(role="user", content=text)


def _assistant(text: str) -> Message:
    return Message(role="assistant", content=text)
