"""`accord data inspect`: the trainer's own marks, cuts and duplicates counted, nothing drives the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from accord.cli import main
from accord.cli.console import output_console
from accord.cli.inspect_data import Totals, guess_kind, inspect_rows, print_row
from accord.cli.token_text import token_text
from accord.data import read
from accord.data.batches import demonstration_trees, preferences
from accord.records import Comparison, Demonstration, Message, Ranking
from accord.text import Template
from fakes import CHATML, tiny_tokenizer


@pytest.fixture(scope="module")
def template() -> Template:
    return Template(tiny_tokenizer())


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def writer(*rows: Any, name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return path

    return writer


COMPARISON = {"prompt": "2+2=", "chosen": "4", "rejected": "5!"}


def test_a_comparison_by_hand(template: Template) -> None:
    (row,) = inspect_rows([Comparison(**COMPARISON)], [1], template, 1024, "f")
    # prompt: <s>user\n 2+2= <e>\n <s>assistant\n, one token per byte; responses: one and two bytes with their ends
    assert len(row.tree.prompt) == (1 + 5 + 4 + 1 + 1) + (1 + 10)
    assert (row.labels, row.trained, row.tokens, row.cut) == (("chosen", "rejected"), 5, 28, 0)
    assert (row.same_as, row.differences) == (None, ())


def test_only_the_assistants_turns_of_a_conversation_are_trained_on(template: Template) -> None:
    turns = (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "de"))
    record = Demonstration(messages=tuple(Message(role=role, content=text) for role, text in turns))
    (row,) = inspect_rows([record], [1], template, 1024, "f")
    assert row.labels == ("dialogue",)
    assert row.trained == len("b") + len("de") + 2


def test_rankings_say_their_places(template: Template) -> None:
    record = Ranking(prompt="x", responses=("a", "b", "c"), ranks=(2, 1, None))
    assert inspect_rows([record], [1], template, 1024, "f")[0].labels == ("rank 2", "rank 1", "failed")


@pytest.mark.parametrize("limit", [1024, 40, 30, 26, 10])
def test_totals_are_what_the_trainer_counts(template: Template, limit: int) -> None:
    comparisons = [Comparison(prompt="q" * n, chosen="a" * (n % 5 + 1), rejected="c") for n in (1, 2, 3, 9, 20, 9)]
    rows = inspect_rows(comparisons, range(1, 7), template, limit, "f")
    totals, trainers = Totals.of(rows), preferences(comparisons, template, limit)[1]
    assert (totals.rows, totals.tokens, totals.trained) == (trainers.rows, trainers.tokens, trainers.trained_tokens)
    assert (totals.cut, totals.cut_tokens) == (trainers.cut_prompts, trainers.cut_tokens)
    assert totals.left_out == len(trainers.left_out)
    assert totals.duplicates == 1
    assert rows[5].same_as == 4
    demonstrations = [Demonstration(prompt=record.prompt, response=record.chosen) for record in comparisons]
    totals = Totals.of(inspect_rows(demonstrations, range(1, 7), template, limit, "f"))
    trainers = demonstration_trees(demonstrations, template, limit)[1]
    assert (totals.tokens, totals.trained, totals.cut_tokens) == (
        trainers.tokens,
        trainers.trained_tokens,
        trainers.cut_tokens,
    )


def test_a_cut_prompt_keeps_its_start_token_and_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = tiny_tokenizer("{{ bos_token }}" + CHATML)
    tokenizer.bos_token = "<|endoftext|>"
    template = Template(tokenizer)
    (row,) = inspect_rows([Comparison(prompt="q" * 30, chosen="a", rejected="b")], [1], template, 40, "f")
    assert (row.start, row.cut) == (1, len(row.tree.prompt) + 2 - 40)
    assert row.kept is not None
    console = output_console()
    print_row(console, row, tokenizer, colour=False)
    assert "<|endoftext|>~<|im_start|>user" in capsys.readouterr().out
    assert row.kept.prompt == (row.tree.prompt[0], *row.tree.prompt[1 + row.cut :])


def test_where_the_templates_own_rendering_differs_is_said(template: Template) -> None:
    plain = inspect_rows([Comparison(**COMPARISON)], [1], template, 1024, "f")[0]
    odd = Comparison(prompt="2+2=", chosen="4<|im_end|>", rejected="5")
    (row,) = inspect_rows([odd], [1], template, 1024, "f")
    assert plain.differences == ()
    assert len(row.differences) == 1
    assert "the template's whole text gives" in row.differences[0]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (COMPARISON, "preference"),
        ({"prompt": "x", "responses": ["a", "b"], "ranks": [1, 2]}, "preference"),
        ({"prompt": "x", "response": "y"}, "demonstration"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "demonstration"),
        ({"prompt": "x"}, "prompts"),
    ],
)
def test_the_kind_is_guessed_from_the_first_row(write: Callable[..., Path], row: dict[str, Any], kind: str) -> None:
    path = write("no json", row)
    assert guess_kind(path) == kind
    assert read(path, kind, skip_bad_rows=True).records  # type: ignore[call-overload]


def test_a_file_of_no_kind_is_an_error(write: Callable[..., Path]) -> None:
    with pytest.raises(
        ValueError, match="the first row is no preference, no feedback, no demonstration, no prompts; --kind KIND"
    ):
        guess_kind(write({"a": 1}))


# -- tokens as text ----------------------------------------------------------------------------------------------------


def test_plain_text_has_brackets_around_runs_of_trained_tokens() -> None:
    tokenizer = tiny_tokenizer()
    tokens = [1, *tokenizer("ab\tc\n").input_ids, 2]
    marks = ["cut", "given", "given", "trained", "trained", "trained", "trained"]
    text = token_text(tokenizer, tokens, marks, colour=False)  # type: ignore[arg-type]
    assert text.plain == "~<|im_start|>~ab⟦⇥c↵\n<|im_end|>⟧"
    assert not text.spans


def test_colours_show_what_is_trained_on_and_special_tokens() -> None:
    tokenizer = tiny_tokenizer()
    text = token_text(
        tokenizer, [1, *tokenizer("ab").input_ids, 2], ["given", "given", "trained", "trained"], colour=True
    )
    styles = {text.plain[span.start : span.end]: str(span.style) for span in text.spans}
    assert text.plain == "<|im_start|>ab<|im_end|>"
    assert styles["<|im_start|>"] == "magenta"
    assert styles["a"] == "dim"
    assert "green" in styles["b"]
    assert "yellow" in styles["<|im_end|>"]
    assert "green" in styles["<|im_end|>"]


def test_a_character_over_several_tokens_stays_whole() -> None:
    tokenizer = tiny_tokenizer()
    tokens = tokenizer("é日😀").input_ids
    assert len(tokens) == 2 + 3 + 4
    assert token_text(tokenizer, tokens, ["given"] * 9, colour=False).plain == "é日😀"


def test_tokens_that_are_no_text_end_somewhere() -> None:
    tokenizer = tiny_tokenizer()
    tokens = tokenizer("é").input_ids[:1] * 30
    assert "\ufffd" in token_text(tokenizer, tokens, ["given"] * 30, colour=False).plain


def test_data_cannot_drive_the_terminal() -> None:
    tokenizer = tiny_tokenizer()
    tokens = tokenizer("\x1b[31mred\x07").input_ids
    assert token_text(tokenizer, tokens, ["given"] * len(tokens), colour=True).plain == "\\x1b[31mred\\x07"


# -- through the command -----------------------------------------------------------------------------------------------


def test_the_command_prints_rows_and_totals(
    write: Callable[..., Path], tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = {"prompt": "p" * 40, "chosen": "good", "rejected": "bad"}
    path = write(COMPARISON, "", {"prompt": "x", "chosen": "y"}, long, COMPARISON)
    words = ["data", "inspect", str(path), "--model", str(tiny_folder), "--max-length", "48", "--width", "120"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0] == f"{path} as preference, with the template of {tiny_folder}"
    assert "row 1  28 tokens, 5 trained on (18%)" in lines
    assert "chosen    ⟦4<|im_end|>⟧" in [line.rstrip() for line in lines]
    assert "row 4  68 tokens, 9 trained on (13%)  the oldest 16 tokens of the prompt are cut off" in lines
    assert "row 5  28 tokens, 5 trained on (18%)  the same as row 1" in lines
    assert any(line.startswith("row 3 cannot be read: ") for line in lines)
    facts = {line.split("  ")[1].strip(): line[15:].strip() for line in lines[lines.index("totals") + 1 :]}
    assert facts["rows"] == "3"
    assert facts["prompts cut"] == "1 at 48 tokens, 16 tokens lost"
    assert facts["duplicates"].startswith("1 ")
    assert facts["bad rows"].startswith("1 ")


def test_the_command_shows_prompts_without_anything_trained_on(
    write: Callable[..., Path], tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "inspect", str(write({"prompt": "x"})), "--model", str(tiny_folder), "--rows", "1"]) == 0
    printed = capsys.readouterr().out
    assert "row 1  20 tokens\n" in printed
    assert "trained on 0" in printed
    assert "⟦" not in printed.split("\n", 3)[3]
