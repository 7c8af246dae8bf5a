"""Chat templates of every kind, and a tokenizer of one token a character to see them by."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

CHATML = (  # with a default system prompt, as SmolLM2's
    "{% for m in messages %}"
    "{% if loop.first and m.role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (  # strips, and ends a turn with a space and EOS
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}[INST] {{ m.content | trim }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content | trim }} {{ eos_token }}"
    "{% else %}{{ raise_exception('no system role') }}{% endif %}{% endfor %}"
)
MISTRAL = (  # puts the system prompt into the last message if that is the user's
    "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}"
    "{% if m.role == 'system' %}{% set ns.system = m.content %}"
    "{% elif m.role == 'user' %}[INST] {% if loop.last %}{{ ns.system }}\n\n{% endif %}{{ m.content }}[/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
PHI = (  # an EOS after the whole conversation besides the end of turn
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
QWEN = (  # earlier answers lose their thoughts, the last one gets an empty one
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% if loop.last %}<think></think>{% endif %}{{ m.content.split('</think>')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]


def by_character(template=None, merges=(), **options):
    """One token an ASCII character or special token, besides what `merges` joins."""
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [*SPECIAL, *characters, *("".join(merge) for merge in merges)]
    core = Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, list(merges)))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    named = {"bos_token": "<s>", "eos_token": "</s>", "additional_special_tokens": SPECIAL[2:], **options}
    return PreTrainedTokenizerFast(tokenizer_object=core, chat_template=template, **named)


def talk(*texts, system=None):
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    return ([{"role": "system", "content": system}] if system else []) + turns


def text(tokenizer, row):
    return tokenizer.decode(row["input_ids"])


def learned(tokenizer, row):
    """The text of each run of labelled tokens."""
    assert len(row["labels"]) == len(row["input_ids"])
    runs, open_run = [], False
    for token, label in zip(row["input_ids"], row["labels"], strict=True):
        assert label in (-100, token)
        if label != -100:
            runs = runs if open_run else [*runs, []]
            runs[-1].append(token)
        open_run = label != -100
    return [tokenizer.decode(run) for run in runs]
