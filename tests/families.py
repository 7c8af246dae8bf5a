"""A tiny random model of each family that people use: its own class, and a tokenizer and chat template of its shape.

The templates are written anew, as short as they get with the family's own marks, system rule and thinking rule.
`written` is a conversation by hand, as training sees it: what is to be learned stands between ⟦ and ⟧.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from chat_templates import CHATML, GEMMA, GLM, QWEN3, by_character
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    Glm4Config,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Olmo3Config,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)

SYSTEM, TURNS = "Be brief.", ("Hi?", "Yes.", "And?", "No.")
ALTERNATING = (  # roles must alternate, from the user on
    "{% for m in messages if m.role != 'system' %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}"
)
STRICT = (  # likewise, so that there is no system turn either
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}"
)
LLAMA2 = (
    "{% set ns = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}"
    "{% set ns.system = '<<SYS>>\n' ~ m.content ~ '\n<</SYS>>\n\n' %}{% elif m.role == 'user' %}"
    "{{ bos_token }}[INST] {{ ns.system }}{{ m.content | trim }} [/INST]{% set ns.system = '' %}"
    "{% else %} {{ m.content | trim }} {{ eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (  # a first turn of the system's in any case, with the date
    "{% set ns = namespace(system='') %}{% if messages and messages[0].role == 'system' %}"
    "{% set ns.system = messages[0].content | trim %}{% set messages = messages[1:] %}{% endif %}"
    "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nToday: {{ strftime_now('%d %b %Y') }}\n\n"
    "{{ ns.system }}<|eot_id|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
)
MISTRAL = ALTERNATING + (  # the system's before the last message, if that is the user's
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] "
    "{{ messages[0].content ~ '\n\n' if loop.last and messages[0].role == 'system' }}{{ m.content }}[/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
MIXTRAL = STRICT + (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %} [INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
GEMMA3 = (  # puts the system's before the first user turn by itself
    "{% set before = '' %}{% if messages and messages[0].role == 'system' %}"
    "{% set before = messages[0].content ~ '\n\n' %}{% set messages = messages[1:] %}{% endif %}"
    + STRICT
    + "{{ bos_token }}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ before if loop.first }}{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
)
PHI3_MUTE = (  # knows users and assistants, and passes over all else
    "{{ bos_token }}{% for m in messages %}{% if m.role in ('user', 'assistant') %}"
    "<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endif %}{% endfor %}"
)
PHI4 = "{% for m in messages %}<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>{% endfor %}"
PHI4_MINI = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{{ eos_token }}"
SMOLLM3 = (  # a first turn of the system's in any case, with the mode of thought; not thinking, an empty thought
    "{% set ns = namespace(system='') %}{% if messages and messages[0].role == 'system' %}"
    "{% set ns.system = messages[0].content | trim %}{% set messages = messages[1:] %}{% endif %}"
    "{% set mode = '/no_think' if enable_thinking is defined and not enable_thinking else '/think' %}"
    "<|im_start|>system\nToday: {{ strftime_now('%d %B %Y') }}\nMode: {{ mode }}\n\n{{ ns.system }}<|im_end|>\n"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ '<think>\n\n</think>\n' if m.role == 'assistant' and mode == '/no_think' }}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
)
OLMO2 = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}"
    "{{ eos_token if m.role == 'assistant' }}{{ '\n' if not (loop.last and m.role == 'assistant') }}{% endfor %}"
)
OLMO3 = (  # a last answer ends with the end of text
    "{% if not messages or messages[0].role != 'system' %}<|im_start|>system\nBe helpful.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{{ eos_token if m.role == 'assistant' and loop.last else '<|im_end|>\n' }}{% endfor %}"
)
GRANITE = (
    "{% if not messages or messages[0].role != 'system' %}<|start_of_role|>system<|end_of_role|>Today: "
    "{{ strftime_now('%B %d, %Y') }}.<|end_of_text|>\n{% endif %}{% for m in messages %}"
    "<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}<|end_of_text|>\n{% endfor %}"
)
WIDE = {"vocab_size": 384, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
SIZES = WIDE | {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512}
HEADS = SIZES | {"head_dim": 8}
VISION = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
SEPARATE = ("k_proj", "o_proj", "q_proj", "v_proj")


class Family(NamedTuple):
    title: str
    config: PreTrainedConfig
    tokenizer: Callable[[], PreTrainedTokenizerFast]
    written: str
    layers: tuple[str, ...] = SEPARATE  # of its attention


def pieces(template: str, marks: tuple[str, ...] = (), **named: str) -> PreTrainedTokenizerFast:
    """As SentencePiece writes: ▁ for a space, and bytes for what has no piece."""
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"} | named
    characters = [chr(code) for code in range(33, 127)]
    vocabulary = [*named.values(), *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *characters]
    core = Tokenizer(
        models.BPE({t: i for i, t in enumerate(vocabulary)}, [], unk_token=named["unk_token"], byte_fallback=True)
    )
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return special(PreTrainedTokenizerFast(tokenizer_object=core, chat_template=template, **named), marks)


def bytewise(template: str | None, marks: tuple[str, ...] = (), **named: str | None) -> PreTrainedTokenizerFast:
    """As GPT-2's: a token a byte. Without a beginning, as Qwen's, where none is named."""
    return special(by_character(template, **({"bos_token": None} | named)), marks)


def special(tokenizer: PreTrainedTokenizerFast, marks: tuple[str, ...]) -> PreTrainedTokenizerFast:
    tokenizer.add_tokens([AddedToken(mark, special=True) for mark in marks], special_tokens=True)
    return tokenizer


def chatml(*turns: str) -> str:
    return "".join(
        f"<|im_start|>{turn}<|im_end|>⟧\n" if "⟦" in turn else f"<|im_start|>{turn}<|im_end|>\n" for turn in turns
    )


BRIEF = ("system\nBe brief.", "user\nHi?", "assistant\n⟦Yes.", "user\nAnd?", "assistant\n⟦No.")
PLAIN = "<|system|>\nBe brief.\n<|user|>\nHi?\n<|assistant|>\n⟦Yes.{eos}⟧\n<|user|>\nAnd?\n<|assistant|>\n⟦No.{eos}⟧\n"
GEMMAS = (
    "<bos><start_of_turn>user\nBe brief.\n\nHi?<end_of_turn>\n<start_of_turn>model\n⟦Yes.<end_of_turn>⟧\n"
    "<start_of_turn>user\nAnd?<end_of_turn>\n<start_of_turn>model\n⟦No.<end_of_turn>⟧\n"
)
HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"
USER, ASSISTANT = HEADER.format("user"), HEADER.format("assistant")
QWENS = chatml(*BRIEF)[: -len("⟦No.<|im_end|>⟧\n")] + "<think>\n\n</think>\n\n⟦No.<|im_end|>⟧\n"
END = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
GEMMA_MARKS = ("<start_of_turn>", "<end_of_turn>")
GEMMA_NAMED = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>"}
LAYERED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 64}

FAMILIES = {
    "llama2": Family(
        "Llama 2",
        LlamaConfig(**SIZES),
        lambda: pieces(LLAMA2),
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi? [/INST] ⟦Yes. </s>⟧<s>[INST] And? [/INST] ⟦No. </s>⟧",
    ),
    "llama3": Family(
        "Llama 3.1, 3.2",
        LlamaConfig(**HEADS, rope_parameters={"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0,
                    "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}),
        lambda: bytewise(LLAMA3, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
                         bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"),
        "<|begin_of_text|>" + HEADER.format("system") + "Today: 26 Jul 2024\n\nBe brief.<|eot_id|>"
        + f"{USER}Hi?<|eot_id|>{ASSISTANT}⟦Yes.<|eot_id|>⟧{USER}And?<|eot_id|>{ASSISTANT}⟦No.<|eot_id|>⟧",
    ),
    "mistral": Family(
        "Mistral 7B",
        MistralConfig(**HEADS, sliding_window=64),
        lambda: pieces(MISTRAL, ("[INST]", "[/INST]")),
        "<s>[INST] Be brief.\n\nHi?[/INST] ⟦Yes.</s>⟧[INST] And?[/INST] ⟦No.</s>⟧",
    ),
    "mixtral": Family(
        "Mixtral",
        MixtralConfig(**SIZES, num_local_experts=3),
        lambda: pieces(MIXTRAL),
        "<s> [INST] Be brief.\n\nHi? [/INST] ⟦Yes.</s>⟧ [INST] And? [/INST] ⟦No.</s>⟧",
    ),
    "qwen2_5": Family(
        "Qwen 2.5",
        Qwen2Config(**SIZES, tie_word_embeddings=True),
        lambda: bytewise(CHATML, eos_token="<|endoftext|>"),
        chatml(*BRIEF),
    ),
    "qwen2_5_instruct": Family(
        "Qwen 2.5 Instruct", Qwen2Config(**SIZES), lambda: bytewise(CHATML, **END), chatml(*BRIEF)
    ),
    "qwen3": Family("Qwen 3", Qwen3Config(**HEADS), lambda: bytewise(QWEN3, **END), QWENS),
    "qwen3_moe": Family(
        "Qwen 3 MoE",
        Qwen3MoeConfig(**HEADS, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8),
        lambda: bytewise(QWEN3, **END),
        QWENS,
    ),
    "smollm2": Family(
        "SmolLM2",
        LlamaConfig(**SIZES, tie_word_embeddings=True),
        lambda: bytewise(CHATML, bos_token="<|im_start|>", **END),
        chatml(*BRIEF),
    ),
    "smollm3": Family(
        "SmolLM3",
        SmolLM3Config(**SIZES, no_rope_layers=[1, 0], pad_token_id=0),
        lambda: bytewise(SMOLLM3, **END),
        chatml("system\nToday: 26 Jul 2024\nMode: /think\n\nBe brief.", *BRIEF[1:]),
    ),
    "gemma2": Family(
        "Gemma 2",
        Gemma2Config(**HEADS, query_pre_attn_scalar=8, **LAYERED),
        lambda: pieces(GEMMA, GEMMA_MARKS, **GEMMA_NAMED),
        GEMMAS,
    ),
    "gemma3": Family(
        "Gemma 3, text alone",
        Gemma3TextConfig(**HEADS, query_pre_attn_scalar=8, **LAYERED),
        lambda: pieces(GEMMA3, GEMMA_MARKS, **GEMMA_NAMED),
        GEMMAS,
    ),
    "gemma3_sees": Family(
        "Gemma 3, that also sees",
        Gemma3Config(text_config=HEADS | LAYERED | {"query_pre_attn_scalar": 8}, mm_tokens_per_image=1,
                     vision_config=VISION | {"image_size": 28, "patch_size": 14}, image_token_index=3,
                     boi_token_index=4, eoi_token_index=5),
        lambda: pieces(GEMMA3, GEMMA_MARKS, **GEMMA_NAMED),
        GEMMAS,
    ),
    "phi3": Family(
        "Phi-3",
        Phi3Config(**SIZES, pad_token_id=0),
        lambda: pieces(PHI3_MUTE, ("<|user|>", "<|assistant|>", "<|end|>"), eos_token="<|endoftext|>"),
        "<s><|user|>\nBe brief.\n\nHi?<|end|>\n<|assistant|>\n⟦Yes.<|end|>⟧\n"
        "<|user|>\nAnd?<|end|>\n<|assistant|>\n⟦No.<|end|>⟧\n",
        ("o_proj", "qkv_proj"),
    ),
    "phi4": Family(
        "Phi-4",
        Phi3Config(**SIZES, pad_token_id=0),
        lambda: bytewise(PHI4, ("<|im_sep|>",), bos_token="<|endoftext|>", **END),
        "<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|>Hi?<|im_end|>"
        "<|im_start|>assistant<|im_sep|>⟦Yes.<|im_end|>⟧<|im_start|>user<|im_sep|>And?<|im_end|>"
        "<|im_start|>assistant<|im_sep|>⟦No.<|im_end|>⟧",
        ("o_proj", "qkv_proj"),
    ),
    "phi4_mini": Family(
        "Phi-4 mini",
        Phi3Config(**SIZES, pad_token_id=0, tie_word_embeddings=True, partial_rotary_factor=0.75),
        lambda: bytewise(PHI4_MINI, (*ROLES, "<|end|>"), eos_token="<|endoftext|>"),
        "<|system|>Be brief.<|end|><|user|>Hi?<|end|><|assistant|>⟦Yes.<|end|>⟧"
        "<|user|>And?<|end|><|assistant|>⟦No.<|end|>⟧<|endoftext|>",
        ("o_proj", "qkv_proj"),
    ),
    "olmo2": Family(
        "OLMo 2",
        Olmo2Config(**SIZES),
        lambda: bytewise(OLMO2, bos_token="<|endoftext|>", eos_token="<|endoftext|>"),
        "<|endoftext|>" + PLAIN.format(eos="<|endoftext|>").removesuffix("\n"),
    ),
    "olmo3": Family(
        "OLMo 3",
        Olmo3Config(**SIZES, **LAYERED),
        lambda: bytewise(OLMO3, eos_token="<|endoftext|>"),
        chatml(*BRIEF).removesuffix("<|im_end|>⟧\n") + "<|endoftext|>⟧",
    ),
    "granite": Family(
        "Granite 3",
        GraniteConfig(**SIZES, embedding_multiplier=12.0, attention_multiplier=0.1, logits_scaling=8.0),
        lambda: bytewise(GRANITE, ("<|start_of_role|>", "<|end_of_role|>"), eos_token="<|end_of_text|>"),
        "<|start_of_role|>system<|end_of_role|>Be brief.<|end_of_text|>\n"
        "<|start_of_role|>user<|end_of_role|>Hi?<|end_of_text|>\n"
        "<|start_of_role|>assistant<|end_of_role|>⟦Yes.<|end_of_text|>⟧\n"
        "<|start_of_role|>user<|end_of_role|>And?<|end_of_text|>\n"
        "<|start_of_role|>assistant<|end_of_role|>⟦No.<|end_of_text|>⟧\n",
    ),
    "glm4": Family(
        "GLM-4",
        Glm4Config(**HEADS, pad_token_id=0),
        lambda: bytewise(GLM, ("[gMASK]", "<sop>", *ROLES), eos_token="<|endoftext|>"),
        "[gMASK]<sop><|system|>\nBe brief.<|user|>\nHi?<|assistant|>\n<think></think>\n⟦Yes.<|user|>⟧\nAnd?"
        "<|assistant|>\n<think></think>\n⟦No.<|user|>⟧",
    ),
    "gpt_neox": Family(
        "GPT-NeoX, Pythia",
        GPTNeoXConfig(**{name: value for name, value in SIZES.items() if name != "num_key_value_heads"}),
        lambda: bytewise(None, eos_token="<|endoftext|>"),
        PLAIN.format(eos="<|endoftext|>"),
        ("dense", "query_key_value"),
    ),
    "gpt2": Family(
        "GPT-2",
        GPT2Config(vocab_size=384, n_embd=16, n_layer=2, n_head=2, n_positions=512),
        lambda: bytewise(None, bos_token="<|endoftext|>", eos_token="<|endoftext|>"),
        PLAIN.format(eos="<|endoftext|>"),
        ("c_attn", "c_proj"),
    ),
}  # fmt: skip


def save(family: Family, folder: Path) -> None:
    """The model and its tokenizer, as people have them: `save_pretrained`."""
    tokenizer, config = family.tokenizer(), copy.deepcopy(family.config)
    assert len(tokenizer) <= config.get_text_config().vocab_size
    for part in (config, config.get_text_config()):
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            setattr(part, name, getattr(tokenizer, name))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
