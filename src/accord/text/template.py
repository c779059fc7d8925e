"""A conversation and a chat template -> token ids and training marks, in one pass that cannot let them drift apart.

The template renders the conversation once, with a placeholder where each assistant turn stands. That cuts the text
into segments: what the model is given, and what it is to say. Each segment is encoded once, alone. So a prompt is a
prefix of prompt + response by construction, no template needs generation marks, and the end token of every assistant
turn is scored: the model has to learn to stop. Where this differs from the template's own rendering encoded in one go,
`difference` shows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from accord.records import Conversation, Message
from accord.trees import Branch, PromptTree

__all__ = ["PLAIN", "Template"]

PLAIN = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'Human: ' + message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token + '\n\n' }}"
    "{% else %}{{ message['content'] + '\n\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""Given to a base model that has no chat template of its own (the transcript form of Anthropic's HH data)."""

_SLOT = "\u2402accord-slot-{}\u2403"


class Template:
    """Encodes conversations for one tokenizer.

    Args:
        tokenizer: a transformers tokenizer. If it has no chat template it is given `PLAIN`, so that the finished model
            carries the template it was trained with.

    Attributes:
        end_id: the token that ends an assistant turn, found by rendering one.
        end_ids: every token at which a sampler should stop: `end_id` and the tokenizer's end of sequence.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.plain = not tokenizer.chat_template
        if self.plain:
            begins = tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
            tokenizer.chat_template = ("{{ bos_token }}" if begins else "") + PLAIN
        self.end_id = self._find_end()
        ends = {self.end_id, tokenizer.eos_token_id} - {None}
        self.end_ids: tuple[int, ...] = tuple(sorted(ends))

    # -- encoding ------------------------------------------------------------------------------------------------------

    def prompt(self, messages: Conversation) -> tuple[int, ...]:
        """Ids of a conversation up to where the assistant is to speak."""
        return self._context(self._render(messages, add_generation_prompt=True))

    def response(self, text: str, *, finished: bool = True) -> tuple[int, ...]:
        """Ids of what the assistant says, with its end token unless it was cut off.

        Special tokens spelled out in the text stay text: a response cannot end itself or open another turn.
        """
        said = self.tokenizer(self._lead + text, add_special_tokens=False, split_special_tokens=True).input_ids
        return (*said, self.end_id) if finished else tuple(said)

    def tree(self, messages: Conversation, responses: Iterable[str]) -> PromptTree:
        """A prompt with its responses, every response token and end token scored."""
        return PromptTree(self.prompt(messages), tuple(Branch.response(self.response(text)) for text in responses))

    def conversation(self, messages: Conversation) -> PromptTree:
        """A whole conversation as a tree of one branch: every assistant turn scored, everything else not.

        Raises: ValueError: the conversation has no assistant turn, or starts with one and nothing before it.
        """
        turns = [message.content for message in messages if message.role == "assistant"]
        if not turns:
            raise ValueError("the conversation has no assistant turn, so there is nothing to train on")
        if len(turns) == 1 and messages[-1].role == "assistant" and len(messages) > 1:
            return self.tree(messages[:-1], turns)
        contexts = self._contexts(messages)
        tokens: list[int] = []
        scored: list[bool] = []
        for index, turn in enumerate(turns):
            given = self._context(contexts[index]) if index else ()
            said = self.response(turn)
            tokens += [*given, *said]
            scored += [False] * len(given) + [True] * len(said)
        return PromptTree(self._context(contexts[0]), (Branch(tuple(tokens), tuple(scored)),))

    # -- decoding ------------------------------------------------------------------------------------------------------

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of a sampled response: special tokens dropped."""
        text: str = self.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text.removeprefix(self._lead)

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """One printable string per token, special tokens spelled out."""
        return [self.tokenizer.decode([token], skip_special_tokens=False) for token in tokens]

    def difference(self, messages: Conversation) -> str | None:
        """Where our ids of a conversation part from the template's own text encoded in one go; None if they do not."""
        tree = self.conversation(messages)
        ours = tree.prompt + tree.branches[0].tokens
        theirs = tuple(self._context(self._render(messages, add_generation_prompt=False)))
        if theirs[: len(ours)] == ours:
            return None  # a template may write more behind the last end token; nothing is trained there
        shared = min(len(ours), len(theirs))
        at = next((i for i in range(shared) if ours[i] != theirs[i]), shared)
        mine, its = ("".join(self.pieces(ids[max(0, at - 3) : at + 5])) for ids in (ours, theirs))
        return f"token {at}: segments encoded one by one give {mine!r}, the template's whole text gives {its!r}"

    # -- inside --------------------------------------------------------------------------------------------------------

    @cached_property
    def _lead(self) -> str:
        """The plain template separates "Assistant:" from the response by a space that belongs to the response."""
        return " " if self.plain else ""

    def _render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        rows = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text: str = self.tokenizer.apply_chat_template(
                rows, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except Exception as error:  # jinja2 errors, raised by the template's author in any form
            roles = ", ".join(message.role for message in messages)
            raise ValueError(f"the model's chat template refuses a conversation of roles [{roles}]: {error}") from error
        return text

    def _context(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)

    def _contexts(self, messages: Conversation) -> list[str]:
        """The text before each assistant turn, without the end token of the turn before (that is part of the turn)."""
        count = 0
        slotted = []
        for message in messages:
            if message.role == "assistant":
                message = Message(role="assistant", content=_SLOT.format(count))
                count += 1
            slotted.append(message)
        text = self._render(slotted, add_generation_prompt=False)
        contexts: list[str] = []
        for index in range(count):
            before, found, text = text.partition(_SLOT.format(index))
            if not found:
                raise ValueError("the chat template does not print every assistant turn of the conversation as it is")
            contexts.append(before if index == 0 else self._after_end(before))
        return [context.removesuffix(self._lead) if self._lead else context for context in contexts]

    def _after_end(self, text: str) -> str:
        end = self.tokenizer.convert_ids_to_tokens(self.end_id)
        before, found, after = text.partition(end)
        return after if found and not before.strip() else text

    def _find_end(self) -> int:
        ask, say = Message(role="user", content="a"), Message(role="assistant", content=_SLOT.format(0))
        tail = self._render((ask, say), add_generation_prompt=False).partition(_SLOT.format(0))[2]
        special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)
        for token in self._context(tail):
            if token in special:
                return int(token)
        if self.tokenizer.eos_token_id is None:
            raise ValueError(
                "the tokenizer has no end-of-sequence token and its chat template writes no special token behind an "
                "assistant turn: the model could never learn to stop; set tokenizer.eos_token"
            )
        return int(self.tokenizer.eos_token_id)
