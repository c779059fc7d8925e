"""Prompts letter by letter, and replies as models give them."""

import pytest

from accord.data.self_instruct import prompts
from accord.data.self_instruct.examples import CLASSIFIED
from accord.data.self_instruct.seeds import Instance, Seed


def test_the_prompt_of_step_one():
    context = ["Name three\n rivers:", "write to the USA office"]
    assert prompts.instruction_prompt(context) == (
        "Come up with a series of tasks:\n1. Name three rivers\n2. Write to the USA office\n3."
    )
    assert prompts.instruction_prompt(["a b"], classification=True).startswith(
        "Come up with a series of classification"
    )


def test_only_the_first_letter_is_raised():
    assert prompts.tidy(" explain  NATO and iPhones to a child: ") == "Explain NATO and iPhones to a child"


def test_a_reply_is_split_at_the_next_number_only():
    reply = " Name a fruit.\n10. Sort these: 3. a, 1. b\n1. first\n2. second\n11. Add 7."
    assert prompts.read_instructions(reply, 9, cut=False) == [
        "Name a fruit.",
        "Sort these: 3. a, 1. b 1. first 2. second",
        "Add 7.",
    ]


def test_of_a_reply_that_was_cut_off_only_the_last_goes():
    assert prompts.read_instructions(" One.\n10. Two.\n11. Thr", 9, cut=True) == ["One.", "Two."]
    assert prompts.read_instructions(" On", 9, cut=True) == []


def test_a_number_said_again_is_no_part_of_the_instruction():
    """The prompt ends with "9."; chat models begin with it once more."""
    assert prompts.read_instructions("9. One.\n10. Two.", 9, cut=False) == ["One.", "Two."]
    assert prompts.read_instructions("\n 9) One.", 9, cut=False) == ["One."]
    assert prompts.read_instructions(" Say:\n9. is odd", 9, cut=False) == ["Say: 9. is odd"]


def test_the_prompt_of_step_three():
    prompt = prompts.classification_prompt("Is it red?")
    assert prompt.count("Is it classification? Yes") + prompt.count("Is it classification? No") == len(CLASSIFIED) == 31
    assert prompt.endswith("\n\nTask: Is it red?\nIs it classification?")


def test_instances_input_first():
    reply = "Example 1\nList: 3, 1\nOutput: 1, 3\n\nExample 2\nInput: 9\nOutput: 9\nExample 3\nOutput: none"
    assert prompts.read_instances(reply, classification=False, cut=False) == [
        Instance("List: 3, 1", "1, 3"),
        Instance("9", "9"),
        Instance("", "none"),
    ]
    assert prompts.read_instances("Output: A poem.\nOf two lines.", classification=False, cut=False) == [
        Instance("", "A poem.\nOf two lines.")
    ]
    assert len(prompts.read_instances(reply, classification=False, cut=True)) == 2


def test_instances_output_first():
    reply = "Class label: yes\nInput: a dog\n\nClass label: no\nN/A"
    assert prompts.read_instances(reply, classification=True, cut=False) == [
        Instance("a dog", "yes"),
        Instance("", "no"),
    ]


@pytest.mark.parametrize("classification", [False, True])
def test_the_prompt_of_step_four_ends_in_the_task(classification):
    assert prompts.instance_prompt("Do it.", classification=classification).endswith("\n\nTask: Do it.\n")


def test_alpacas_form_there_and_back():
    seeds = [Seed("s", "name a colour:", (Instance("", "red"),), False)]
    prompt = prompts.alpaca_prompt(seeds)
    assert prompt.endswith(
        "###\n1. Instruction: Name a colour\n1. Input:\n<noinput>\n1. Output:\nred\n###\n2. Instruction:"
    )
    reply = " Add.\n2. Input:\n1 and 2\n2. Output:\n3\n###\n3. Instruction: no form\n"
    reply += "###\n4. Instruction: x\n4. Input:\n<noinput>"
    first, second, third = prompts.read_alpaca(reply, 2, cut=False)
    assert first == prompts.Task("Add.", Instance("1 and 2", "3"))
    assert second is third is None
    assert len(prompts.read_alpaca(reply, 2, cut=True)) == 2
