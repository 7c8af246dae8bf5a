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
QWEN3 = (  # a thought before the answers since the last question; asked to answer, it writes none
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.index0 > ns.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
GEMMA = (  # answers under another role's name; knows no system prompt
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('a system prompt') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PHI3 = (  # as PHI without line break before the question ends
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GLM = (  # nothing ends a turn but the mark of the next role; an empty thought in training alone
    "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n"
    "{% if m.role == 'assistant' %}<think></think>\n{% endif %}{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
HUMAN = (  # the same in plain text
    "{% for m in messages %}{{ '\n\n' + ('Assistant' if m.role == 'assistant' else 'Human') }}: {{ m.content }}"
    "{% endfor %}"
    "{{ '\n\nAssistant:' if add_generation_prompt }}"
)
SECTIONS = (  # a turn ends with a text of several tokens
    "{% for m in messages %}### {{ m.role }}\n{{ m.content }}\n### End\n{% endfor %}"
    "{% if add_generation_prompt %}### assistant\n{% endif %}"
)
FAMILIES = {
    "tulu": None,
    "chatml": CHATML,
    "llama2": LLAMA2,
    "mistral": MISTRAL,
    "phi": PHI,
    "qwen": QWEN,
    "qwen3": QWEN3,
    "gemma": GEMMA,
    "phi3": PHI3,
    "llama3": LLAMA3,
    "glm": GLM,
    "human": HUMAN,
    "sections": SECTIONS,
}
MARKS = {  # special tokens beside SPECIAL
    "gemma": ["<start_of_turn>", "<end_of_turn>"],
    "phi3": ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
    "llama3": ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "glm": ["[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"],
}
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


def family(name, **options):
    """A tokenizer whose template is of a family's shape."""
    return by_character(FAMILIES[name], additional_special_tokens=[*SPECIAL[2:], *MARKS.get(name, [])], **options)


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
