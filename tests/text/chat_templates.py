"""Chat templates as models carry them, each with a byte tokenizer that has its special tokens."""

from dataclasses import dataclass, field
from functools import cached_property

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from accord.text import Template
from fakes import CHATML

LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
PHI3 = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
# As Qwen 3 with thinking switched off: an empty thought is written for the model before it speaks, and before the last
# turn of a finished conversation; thoughts are taken out of earlier turns.
QWEN_THINK = (
    "{% for message in messages %}{% set content = message['content'] %}"
    "{% if message['role'] == 'assistant' %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if loop.last %}{% set content = '<think>\n\n</think>\n\n' + content %}{% endif %}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}{% endif %}"
)
HERMES_TOOLS = (  # a default system message, and tool answers wrapped into user turns
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{% if message['role'] == 'tool' %}"
    "{{ '<|im_start|>user\n<tool_response>\n' + message['content'] + '\n</tool_response><|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """A template with its special tokens.

    Attributes:
        chat_template: None stands for a base model.
        end: the token that ends an assistant turn.
        special: further special tokens.
        eos: the tokenizer's end of sequence.
        bos: its start token; with one the tokenizer puts it before every text, as Llama's and Gemma's do.
        prints_bos: the template writes it too.
        system: takes a system message.
    """

    chat_template: str | None
    end: str
    special: tuple[str, ...] = ()
    eos: str = "<|endoftext|>"
    bos: str | None = None
    prints_bos: bool = False
    system: bool = True
    merges: tuple[tuple[str, str], ...] = field(default=())

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A fresh one: `Template` may change it."""
        special = list(dict.fromkeys(["<|pad|>", self.eos, self.end, *([self.bos] if self.bos else []), *self.special]))
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        words = special + alphabet + ["".join(pair) for pair in self.merges]
        backend = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=list(self.merges)))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens(special)
        if self.bos:
            backend.post_processor = processors.TemplateProcessing(
                single=f"{self.bos} $A", pair=f"{self.bos} $A $B", special_tokens=[(self.bos, words.index(self.bos))]
            )
        return PreTrainedTokenizerFast(
            tokenizer_object=backend,
            eos_token=self.eos,
            pad_token="<|pad|>",
            bos_token=self.bos,
            chat_template=self.chat_template,
        )

    @cached_property
    def template(self) -> Template:
        return Template(self.tokenizer())


# Merges across places where segments meet: newline + newline, newline + "a", "." + newline, space + "a".
MERGES = (("Ċ", "Ċ"), ("Ċ", "a"), (".", "Ċ"), ("Ġ", "a"), (">", "Ċ"), (":", "Ġ"))
_HEADERS = ("<|start_header_id|>", "<|end_header_id|>")
TURNS = ("<start_of_turn>",)
ROLES = ("<|user|>", "<|assistant|>", "<|system|>")

FAMILIES = {
    "chatml": Family(CHATML, "<|im_end|>", ("<|im_start|>",), merges=MERGES),
    "llama3": Family(
        LLAMA3, "<|eot_id|>", _HEADERS, eos="<|end_of_text|>", bos="<|begin_of_text|>", prints_bos=True, merges=MERGES
    ),
    "gemma": Family(GEMMA, "<end_of_turn>", TURNS, eos="<eos>", bos="<bos>", prints_bos=True, system=False),
    "mistral": Family(MISTRAL, "</s>", ("[INST]", "[/INST]"), eos="</s>", bos="<s>", prints_bos=True, system=False),
    "zephyr": Family(ZEPHYR, "</s>", ("<s>",), eos="</s>", merges=MERGES),
    "phi3": Family(PHI3, "<|end|>", ROLES),
    "qwen-think": Family(QWEN_THINK, "<|im_end|>", ("<|im_start|>",), eos="<|im_end|>", merges=MERGES),
    "hermes-tools": Family(HERMES_TOOLS, "<|im_end|>", ("<|im_start|>",)),
    "base": Family(None, "</s>", eos="</s>", merges=MERGES),
    "base-bos": Family(None, "<eos>", eos="<eos>", bos="<bos>", prints_bos=True),
}
