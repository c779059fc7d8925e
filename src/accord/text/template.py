"""A conversation and a chat template -> token ids and training marks, in one pass that cannot let them drift apart.

The template renders what the model is given before each assistant turn, as it does when the model is to speak, with a
placeholder where it spoke before. That cuts the text into segments: what the model is given, and what it is to say.
Each segment is encoded once, alone. So a prompt is a prefix of prompt + response by construction, no template needs
generation marks, and the end token of every assistant turn is scored: the model has to learn to stop. Where this
differs from the template's own rendering encoded in one go, `difference` shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from transformers import AddedToken

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

_SLOT = "\u2402accord-slot\u2403"


class Template:
    """Encodes conversations for one tokenizer.

    Args:
        tokenizer: a transformers tokenizer. If it has no chat template it is given `PLAIN`, so that the finished model
            carries the template it was trained with. If its end token is an ordinary added token it is made a special
            one, so that a response cannot spell it.

    Attributes:
        end_id: the token that ends an assistant turn, found by rendering one.
        end_ids: every token at which a sampler should stop: `end_id` and the tokenizer's end of sequence.
        bos_id: the token that begins a sequence, or None.

    Raises: ValueError: nothing ends an assistant turn, or the template fails.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        if not tokenizer.chat_template:
            begins = tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
            self._require_eos("it has no chat template that would write another")
            tokenizer.chat_template = ("{{ bos_token }}" if begins else "") + PLAIN
        self.end_id = self._find_end()
        added = tokenizer.added_tokens_decoder.get(self.end_id)
        if added is not None and not added.special:
            end = AddedToken(tokenizer.convert_ids_to_tokens(self.end_id), special=True, normalized=False)
            tokenizer.add_tokens([end], special_tokens=True)
        ends = {self.end_id, tokenizer.eos_token_id} - {None}
        self.end_ids: tuple[int, ...] = tuple(sorted(ends))
        self.bos_id: int | None = tokenizer.bos_token_id

    # -- encoding ------------------------------------------------------------------------------------------------------

    def prompt(self, messages: Conversation) -> tuple[int, ...]:
        """Ids of a conversation up to where the assistant is to speak."""
        return self._encode(self._render(messages, add_generation_prompt=True))

    def response(self, text: str, *, finished: bool = True) -> tuple[int, ...]:
        """Ids of what the assistant says, with its end token unless it was cut off.

        Special tokens spelled out in the text stay text: a response cannot end itself or open another turn.
        """
        said = self._encode(self._lead + text, split_special_tokens=True)
        return (*said, self.end_id) if finished else said

    def text(self, text: str) -> tuple[int, ...]:
        """Ids of a plain text, of no conversation, without what begins or ends a sequence.

        Special tokens spelled out in the text stay text.
        """
        return self._encode(text, split_special_tokens=True)

    @cached_property
    def text_begin_id(self) -> int | None:
        """The token that the tokenizer itself puts before a plain text, or None.

        Not every beginning-of-sequence token is one: in SmolLM2-Instruct it opens a turn of a conversation.
        """
        return self.bos_id if self.tokenizer("a").input_ids[:1] == [self.bos_id] else None

    def tree(
        self, messages: Conversation, responses: Sequence[str], finished: Sequence[bool] | None = None
    ) -> PromptTree:
        """A prompt with its responses, every response token and end token scored.

        A response that was cut off by length is not `finished` and has no end token (none given: all are finished); one
        without a text was ended at once.
        """
        marks = finished or [True] * len(responses)
        branches = (self.response(text, finished=mark or not text) for text, mark in zip(responses, marks, strict=True))
        return PromptTree(self.prompt(messages), tuple(map(Branch.response, branches)))

    def conversation(self, messages: Conversation) -> PromptTree:
        """A whole conversation as a tree of one branch: every assistant turn scored, everything else not.

        Raises: ValueError: the conversation has no assistant turn, or begins with one.
        """
        turns = [number for number, message in enumerate(messages) if message.role == "assistant"]
        if not turns:
            raise ValueError("the conversation has no assistant turn, so there is nothing to train on")
        if turns[0] == 0:
            raise ValueError("the conversation begins with an assistant turn: put the turn before it that it answers")
        tokens: list[int] = []
        scored: list[bool] = []
        for before, turn in zip([None, *turns], turns, strict=False):
            given = () if before is None else self._encode(self._between(messages, before, turn))
            said = self.response(messages[turn].content)
            tokens += [*given, *said]
            scored += [False] * len(given) + [True] * len(said)
        return PromptTree(self.prompt(messages[: turns[0]]), (Branch(tuple(tokens), tuple(scored)),))

    # -- decoding ------------------------------------------------------------------------------------------------------

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of a sampled response: special tokens dropped."""
        # Cleaning up would take spaces before punctuation away from what was said.
        text: str = self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text.removeprefix(self._lead)

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """One printable string per token, special tokens spelled out."""
        return [self.tokenizer.decode([token], skip_special_tokens=False) for token in tokens]

    def difference(self, messages: Conversation) -> str | None:
        """Where our ids of a conversation part from the template's own text encoded in one go; None if they do not."""
        tree = self.conversation(messages)
        ours = tree.prompt + tree.branches[0].tokens
        theirs = self._encode(self._render(messages, add_generation_prompt=False))
        if theirs[: len(ours)] == ours:
            return None  # a template may write more behind the last end token; nothing is trained there
        shared = min(len(ours), len(theirs))
        at = next((i for i in range(shared) if ours[i] != theirs[i]), shared)
        mine, its = ("|".join(self.pieces(ids[max(0, at - 3) : at + 5])) for ids in (ours, theirs))
        return f"token {at}: segments encoded one by one give {mine!r}, the template's whole text gives {its!r}"

    # -- inside --------------------------------------------------------------------------------------------------------

    @cached_property
    def _lead(self) -> str:
        """The plain template separates "Assistant:" from the response by a space that belongs to the response."""
        return " " if str(self.tokenizer.chat_template).endswith(PLAIN) else ""

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

    def _encode(self, text: str, **how: bool) -> tuple[int, ...]:
        # Not verbose: what is longer than the model's limit is cut and counted in `data.batches`, not lamented here.
        return tuple(self.tokenizer(text, add_special_tokens=False, verbose=False, **how).input_ids)

    def _between(self, messages: Conversation, before: int, turn: int) -> str:
        """The text from the end token of one assistant turn to where the next is to speak, as a sampler gets it."""
        slot = _SLOT
        while any(slot in message.content for message in messages):
            slot += slot
        history = (*messages[:before], Message(role="assistant", content=slot), *messages[before + 1 : turn])
        _, found, after = self._render(history, add_generation_prompt=True).partition(slot)
        if not found:
            raise ValueError("the chat template does not print every assistant turn of the conversation as it is")
        return self._after_end(after)

    def _after_end(self, text: str) -> str:
        end = self.tokenizer.convert_ids_to_tokens(self.end_id)
        before, found, after = text.partition(end)
        return after if found and not before.strip() else text

    def _find_end(self) -> int:
        ask, say = Message(role="user", content="a"), Message(role="assistant", content=_SLOT)
        tail = self._render((ask, say), add_generation_prompt=False).partition(_SLOT)[2]
        special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)
        for token in self._encode(tail):
            if token in special:
                return int(token)
        return self._require_eos("its chat template writes no special token behind an assistant turn")

    def _require_eos(self, besides: str) -> int:
        if self.tokenizer.eos_token_id is None:
            raise ValueError(
                f"the tokenizer has no end-of-sequence token, and {besides}: the model could never learn to stop; "
                "set tokenizer.eos_token"
            )
        return int(self.tokenizer.eos_token_id)
