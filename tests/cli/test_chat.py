"""Chat with a sampler that says its lines: history, undo, half characters, stopping, forgetting, pipes."""

from __future__ import annotations

import argparse
import io
from collections import deque
from collections.abc import Callable, Iterator

import pytest

from accord.cli import chat as module
from accord.cli import main
from accord.cli.chat import Chat
from accord.rollouts import Sampling
from accord.text import Template
from fakes import tiny_tokenizer


class Scripted:
    """Streams its lines token by token, remembers prompts and settings, can be interrupted after some tokens."""

    def __init__(self, template: Template, *lines: str) -> None:
        self.template, self.lines = template, deque(lines)
        self.prompts: list[str] = []
        self.samplings: list[Sampling] = []
        self.interrupt_after: int | None = None

    def stream(self, prompt: tuple[int, ...], sampling: Sampling) -> Iterator[int]:
        self.prompts.append(self.template.tokenizer.decode(prompt))
        self.samplings.append(sampling)
        for number, token in enumerate(self.template.response(self.lines.popleft())[: sampling.max_new_tokens]):
            if number == self.interrupt_after:
                raise KeyboardInterrupt
            yield token


@pytest.fixture
def make() -> Callable[..., Chat]:
    """A chat whose model says these lines; a token is a byte."""

    def maker(*lines: str, room: int = 10_000, **changes: object) -> Chat:
        template = Template(tiny_tokenizer())
        settings = {"system": None, "max_new_tokens": 100, "temperature": 0.5, "seed": 3, **changes}
        return Chat(Scripted(template, *lines), template, room, argparse.Namespace(**settings))  # type: ignore[arg-type]

    return maker


def said(chat: Chat) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in chat.messages]


def test_a_response_streams_and_is_remembered(make: Callable[..., Chat]) -> None:
    chat = make("Hi there.", "Fine.")
    assert "".join(chat.answer("Hello")) == "Hi there."
    assert "".join(chat.answer("How are you?")) == "Fine."
    assert said(chat) == [
        ("user", "Hello"),
        ("assistant", "Hi there."),
        ("user", "How are you?"),
        ("assistant", "Fine."),
    ]
    assert "Hi there.<|im_end|>" in chat.sampler.prompts[1]
    assert not chat.cut_off
    first, second = chat.sampler.samplings
    assert (first.max_new_tokens, first.temperature) == (100, 0.5)
    assert first.seed != second.seed


def test_half_a_character_waits_for_its_other_half(make: Callable[..., Chat]) -> None:
    pieces = list(make("é日😀!").answer("x"))
    assert [piece for piece in pieces if piece] == ["é", "日", "😀", "!"]


def test_undo_and_reset(make: Callable[..., Chat]) -> None:
    chat = make("one", "two", system="Be brief.")
    list(chat.answer("1"))
    list(chat.answer("2"))
    assert chat.undo()
    assert said(chat) == [("system", "Be brief."), ("user", "1"), ("assistant", "one")]
    assert chat.undo()
    assert not chat.undo()
    assert said(chat) == [("system", "Be brief.")]
    chat.reset()
    assert said(chat) == [("system", "Be brief.")]


def test_a_stopped_response_is_kept_as_far_as_it_came(make: Callable[..., Chat]) -> None:
    chat = make("abcdef")
    chat.sampler.interrupt_after = 3
    with pytest.raises(KeyboardInterrupt):
        list(chat.answer("x"))
    assert said(chat) == [("user", "x"), ("assistant", "abc")]


def test_a_response_stopped_before_it_began_leaves_nothing(make: Callable[..., Chat]) -> None:
    chat = make("abcdef")
    chat.sampler.interrupt_after = 0
    with pytest.raises(KeyboardInterrupt):
        list(chat.answer("x"))
    assert said(chat) == []


def test_a_response_at_the_limit_is_known_to_be_cut_off(make: Callable[..., Chat]) -> None:
    chat = make("abcdef", max_new_tokens=4)
    assert "".join(chat.answer("x")) == "abcd"
    assert chat.cut_off


def test_the_oldest_turns_are_forgotten_when_the_room_is_full(make: Callable[..., Chat]) -> None:
    chat = make("a" * 30, "b" * 10, room=130, system="S")
    list(chat.answer("q" * 20))
    list(chat.answer("r" * 20))
    assert said(chat) == [("system", "S"), ("user", "r" * 20), ("assistant", "b" * 10)]
    room = 130 - len(chat.template.prompt(tuple(chat.messages[:2])))
    assert chat.sampler.samplings[1].max_new_tokens == min(100, room)


def test_a_question_that_alone_is_too_long_is_an_error_and_not_kept(make: Callable[..., Chat]) -> None:
    chat = make("a", room=60)
    with pytest.raises(ValueError, match=r"the question has \d+ tokens, the model sees 60; make it shorter"):
        list(chat.answer("q" * 60))
    assert said(chat) == []


# -- through the command -----------------------------------------------------------------------------------------------


@pytest.fixture
def loaded(make: Callable[..., Chat], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Chat]:
    """`accord chat` with this chat instead of a model."""

    def load(*lines: str, typed: list[str | BaseException] | None = None, piped: str = "") -> Chat:
        chat = make(*lines)
        monkeypatch.setattr(module, "load", lambda arguments: chat)
        monkeypatch.setattr("sys.stdin", io.StringIO(piped))
        if typed is not None:
            script = iter([*typed, EOFError()])

            def read(prompt: str) -> str:
                line = next(script)
                if isinstance(line, BaseException):
                    raise line
                return line

            monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
            monkeypatch.setattr("builtins.input", read)
        return chat

    return load


def test_one_prompt_one_answer(loaded: Callable[..., Chat], capsys: pytest.CaptureFixture[str]) -> None:
    loaded("Four.")
    assert main(["chat", "m", "--prompt", "2+2="]) == 0
    assert capsys.readouterr() == ("Four.\n", "")


def test_piped_questions_are_answered_one_by_one(
    loaded: Callable[..., Chat], capsys: pytest.CaptureFixture[str]
) -> None:
    chat = loaded("one", "two", piped="a\n\nb\n")
    assert main(["chat", "m"]) == 0
    assert capsys.readouterr().out == "one\ntwo\n"
    assert "one" not in chat.sampler.prompts[1]


def test_a_model_cannot_drive_the_terminal(loaded: Callable[..., Chat], capsys: pytest.CaptureFixture[str]) -> None:
    loaded("\x1b[2Jgone\r")
    main(["chat", "m", "--prompt", "x"])
    assert capsys.readouterr().out == "\\x1b[2Jgone\\x0d\n"


def test_talking(loaded: Callable[..., Chat], capsys: pytest.CaptureFixture[str]) -> None:
    chat = loaded("one", "two", typed=["a", "/undo", "/rest", "/help", "b", KeyboardInterrupt(), ""])
    assert main(["chat", "m"]) == 0
    printed = capsys.readouterr().out
    assert "model> one" in printed
    assert "taken back" in printed
    assert 'unknown command "/rest"; did you mean "/reset"?' in printed
    assert "(Ctrl-D leaves)" in printed
    assert said(chat) == [("user", "b"), ("assistant", "two")]


def test_exit_and_stop(loaded: Callable[..., Chat], capsys: pytest.CaptureFixture[str]) -> None:
    chat = loaded("a long answer", typed=["a", "/exit", "never asked"])
    chat.sampler.interrupt_after = 6
    assert main(["chat", "m"]) == 0
    assert "a long (stopped)" in capsys.readouterr().out
    assert len(chat.sampler.prompts) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--temperature", "-1"], '--temperature: is "-1"; expected a number of at least 0'),
        (["--temperature", "nan"], '--temperature: is "nan"; expected a number of at least 0'),
        (["--max-new-tokens", "0"], '--max-new-tokens: is "0"; expected a number of at least 1'),
        (["--max-new-tokens", "x"], "--max-new-tokens: invalid whole number value: 'x'"),
    ],
)
def test_bad_flags(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(["chat", "m", *words]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
