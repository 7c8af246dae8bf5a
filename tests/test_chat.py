"""Chat handling: which tokens are learned, token by token, under every kind of template and truncation."""

import json
from hashlib import sha256

import datasets
import pytest
from chat_templates import (
    CHATML,
    FAMILIES,
    HUMAN,
    LLAMA2,
    MISTRAL,
    PHI,
    QWEN,
    by_character,
    family,
    learned,
    talk,
    text,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rose import pipeline
from rose.config.choices import Manners
from rose.config.compose import typed
from rose.data import files, world
from rose.data.chat import encode, encode_pair, prompt_ids, tokenize, turn_ends
from rose.errors import RoseError
from rose.models import loading


def test_tulu_labels_by_hand():
    tokenizer = by_character()
    row = encode(tokenizer, talk("a", "bc"), 100)
    assert tokenizer.convert_ids_to_tokens(row["input_ids"]) == [
        *"<|user|>Ċa",
        "Ċ",
        *"<|assistant|>Ċbc",
        "</s>",
        "Ċ",
    ]
    assert row["labels"] == [-100] * 25 + row["input_ids"][25:28] + [-100]


@pytest.mark.parametrize(
    ("template", "ends"),
    [
        (None, "</s>"),
        (CHATML, "<|im_end|>"),
        (LLAMA2, " </s>"),
        (MISTRAL, "</s>"),
        (PHI, "<|im_end|>"),
        (QWEN, "<|im_end|>"),
    ],
)
def test_every_answer_and_its_end_are_learned_and_nothing_else(template, ends):
    tokenizer = by_character(template)
    row = encode(tokenizer, talk("Hi?", "Hi!", "Again?", "Hi! Hi!", "Hi!"), 1000)
    assert learned(tokenizer, row) == [f"Hi!{ends}", f"Hi! Hi!{ends}"]


@pytest.mark.parametrize("template", [None, CHATML, LLAMA2, MISTRAL, PHI])
def test_the_text_is_the_templates_own(template):
    tokenizer, messages = by_character(template), talk("Hi?", "Hi!", "More?", "No.")
    row = encode(tokenizer, messages, 1000)
    if template is None:
        assert (
            text(tokenizer, row) == "<|user|>\nHi?\n<|assistant|>\nHi!</s>\n<|user|>\nMore?\n<|assistant|>\nNo.</s>\n"
        )
    else:
        assert row["input_ids"] == tokenizer.apply_chat_template(messages)["input_ids"]


@pytest.mark.parametrize("template", [None, CHATML])
def test_a_system_message_is_not_learned(template):
    tokenizer = by_character(template)
    row = encode(tokenizer, talk("Hi?", "Hi!", system="Hi!"), 1000)
    assert len(learned(tokenizer, row)) == 1 and learned(tokenizer, row)[0].startswith("Hi!")


def test_an_end_that_is_the_last_answers_alone_is_learned_there_and_the_others_before():
    tokenizer = by_character(
        "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}"
        "{{ eos_token if loop.last and m.role == 'assistant' else '<|im_end|>' }}{% endfor %}"
    )
    row = encode(tokenizer, talk("Hi?", "Hi!", "More?", "No."), 1000)
    assert learned(tokenizer, row) == ["Hi!<|im_end|>", "No.</s>"]


def test_outer_white_space_of_an_answer_is_not_learned():
    for template in (None, CHATML, LLAMA2):
        tokenizer = by_character(template)
        plain, padded = (encode(tokenizer, talk("q", answer), 1000) for answer in ("a b", "\n a b \n"))
        assert plain == padded


def test_inner_white_space_and_other_scripts_are_learned():
    tokenizer = by_character(CHATML)
    answer = "a  b\n\n\n  é 你好 🙂"
    assert learned(tokenizer, encode(tokenizer, talk("q", answer), 1000)) == [f"{answer}<|im_end|>"]


def test_a_token_across_the_seam_is_learned():
    tokenizer = by_character("{% for m in messages %}{{ m.role[0] }}:{{ m.content }}{% endfor %}", [(":", "y")])
    row = encode(tokenizer, talk("q", "yes"), 1000)
    assert tokenizer.convert_ids_to_tokens(row["input_ids"]) == ["u", ":", "q", "a", ":y", "e", "s"]
    assert row["labels"] == [-100] * 4 + row["input_ids"][4:]


def test_sentencepiece_word_starts_belong_to_the_answer():
    pieces = ["<s>", "</s>", "<unk>", "▁[INST]", "▁[/INST]", "▁red", "▁blue", "▁"]
    core = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=LLAMA2
    )
    row = encode(tokenizer, talk("red", "blue red"), 100)
    tokens = tokenizer.convert_ids_to_tokens(row["input_ids"])
    assert tokens == ["<s>", "▁[INST]", "▁red", "▁[/INST]", "▁blue", "▁red", "▁", "</s>"]
    assert row["labels"] == [-100] * 4 + row["input_ids"][4:]


def test_the_worlds_labels_are_its_templates_own_generation_mask():
    tokenizer = world.tokenizer()
    for row in world.conversations(20, 0, Manners.phrases):
        encoded = encode(tokenizer, row["messages"], 512)
        own = tokenizer.apply_chat_template(row["messages"], return_assistant_tokens_mask=True, return_dict=True)
        assert encoded["input_ids"] == own["input_ids"]
        assert [int(label != -100) for label in encoded["labels"]] == own["assistant_masks"]


def test_the_date_does_not_come_from_the_clock():
    tokenizer = by_character("{{ strftime_now('%d %b %Y') }}" + CHATML)
    assert text(tokenizer, encode(tokenizer, talk("q", "a"), 1000)).startswith("26 Jul 2024")


def test_a_bos_comes_first_where_the_tokenizer_puts_one():
    from tokenizers.processors import TemplateProcessing

    tokenizer = by_character()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    row = encode(tokenizer, talk("q", "a"), 1000)
    assert text(tokenizer, row).startswith("<s><|user|>") and row["input_ids"].count(0) == 1


def test_truncation_keeps_the_left_and_never_a_row_without_labels():
    tokenizer = by_character()
    whole = encode(tokenizer, talk("a", "bc"), 100)
    cut = encode(tokenizer, talk("a", "bc"), 26)
    assert cut == {name: values[:26] for name, values in whole.items()} and learned(tokenizer, cut) == ["b"]
    assert encode(tokenizer, talk("a", "bc"), 25) is None
    assert encode(tokenizer, talk("a"), 100) is None


@pytest.mark.parametrize(
    ("template", "messages", "reason"),
    [
        (LLAMA2, talk("q", "a", system="s"), "refuses this conversation .no system role"),
        (QWEN, talk("q", "<think>hm</think>a", "q", "b"), "changes or leaves out an answer"),
        (CHATML, talk("q", "a \ufdd0 b"), "changes or leaves out an answer"),
    ],
)
def test_what_a_template_cannot_print_whole_is_refused(template, messages, reason):
    with pytest.raises(RoseError, match=reason):
        encode(by_character(template), messages, 1000)


def test_without_template_and_eos_there_is_no_answer_to_end():
    with pytest.raises(RoseError, match="neither a chat template nor an EOS token"):
        encode(by_character(eos_token=None), talk("q", "a"), 100)


def pair(prompt, chosen, rejected):
    return {
        "prompt": talk(*prompt),
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


@pytest.mark.parametrize("template", [None, CHATML, LLAMA2, PHI])
def test_of_a_pair_only_the_response_is_learned(template):
    tokenizer = by_character(template)
    row = pair(["Hi?", "Hi!", "Again?"], "Good.", "Bad answer.")
    chosen, rejected = encode_pair(tokenizer, row, 1000)
    assert [len(learned(tokenizer, side)) for side in (chosen, rejected)] == [1, 1]
    assert learned(tokenizer, chosen)[0].startswith("Good.") and learned(tokenizer, rejected)[0].startswith(
        "Bad answer."
    )
    assert chosen["input_ids"] == encode(tokenizer, row["prompt"] + row["chosen"], 1000)["input_ids"]


def test_a_long_prompt_is_cut_on_the_left_alike_for_both_answers():
    tokenizer = by_character("{{ bos_token }}{% for m in messages %}{{ m.content }}|{% endfor %}")
    row = pair(["0123456789"], "good", "bad answer")  # with their bars: 12 with BOS, 5, 11
    chosen, rejected = encode_pair(tokenizer, row, 18)
    assert (text(tokenizer, chosen), text(tokenizer, rejected)) == ("<s>56789|good|", "<s>56789|bad answer|")
    assert (learned(tokenizer, chosen), learned(tokenizer, rejected)) == (["good|"], ["bad answer|"])


def test_an_answer_too_long_leaves_the_prompt_a_quarter():
    tokenizer = by_character("{{ bos_token }}{% for m in messages %}{{ m.content }}|{% endfor %}")
    chosen, rejected = encode_pair(tokenizer, pair(["0123456789"], "good", "bad" * 10), 16)
    assert (text(tokenizer, chosen), text(tokenizer, rejected)) == ("<s>89|good|", "<s>89|" + "bad" * 4)
    short, _ = encode_pair(tokenizer, pair(["0"], "good" * 9, "bad"), 16)
    assert text(tokenizer, short) == "<s>0|" + "good" * 3 + "g"


def test_answers_that_differ_beyond_the_cut_are_no_pair():
    tokenizer = by_character(CHATML)
    row = pair(["q"], "same " * 50 + "good", "same " * 50 + "bad")
    assert encode_pair(tokenizer, row, 150) is None and encode_pair(tokenizer, row, 1000) is not None


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("texts", [("Hi?",), ("Hi?", "Yes.", "And?")])
def test_the_generation_prompt_is_what_an_answer_follows(name, texts):
    tokenizer = family(name)
    prompt = prompt_ids(tokenizer, talk(*texts), 1000)
    for answer in ("Hi!", "no", "0"):
        messages = talk(*texts, answer)
        (chosen, _) = encode_pair(
            tokenizer, {"prompt": messages[:-1], "chosen": messages[-1:], "rejected": talk("q", "x")[1:]}, 1000
        )
        assert chosen["input_ids"][: len(prompt)] == prompt
        assert chosen["labels"][: len(prompt)] == [-100] * len(prompt) and chosen["labels"][len(prompt)] != -100
        assert learned(tokenizer, chosen)[0].startswith(answer)
    assert prompt_ids(tokenizer, talk(*texts), 5)[-4:] == prompt[-4:]


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("chatml", "<|im_end|>\n<|im_start|>assistant\n"),
        ("qwen3", "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"),
        ("gemma", "<end_of_turn>\n<start_of_turn>model\n"),
        ("glm", "<|assistant|>\n<think></think>\n"),
        ("llama3", "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"),
    ],
)
def test_the_generation_prompt_ends_as_the_family_is_known_to(name, end):
    tokenizer = family(name)
    assert tokenizer.decode(prompt_ids(tokenizer, talk("Hi?"), 1000)).endswith(f"Hi?{end}")


def test_a_space_that_the_answer_takes_into_its_first_token_is_not_prompted():
    tokenizer = by_character(HUMAN, [("Ġ", "I"), ("Ġ", "n")])
    assert tokenizer.decode(prompt_ids(tokenizer, talk("Hi?"), 1000)).endswith("Assistant:")


@pytest.mark.parametrize(
    ("name", "ids", "texts"),
    [
        ("tulu", ["</s>"], []),
        ("chatml", ["<|im_end|>"], []),
        ("llama2", ["</s>"], []),
        ("gemma", ["<end_of_turn>"], []),
        ("phi3", ["<|end|>"], []),
        ("llama3", ["<|eot_id|>"], []),
        ("glm", ["<|user|>"], []),
        ("human", [], ["\n\nHuman:"]),
        ("sections", [], ["\n### End"]),
    ],
)
def test_a_turn_ends_with_what_is_learned_as_its_end_or_with_the_next_ones_mark(name, ids, texts):
    tokenizer = family(name)
    found, written = turn_ends(tokenizer)
    assert list(dict.fromkeys(tokenizer.convert_ids_to_tokens(found))) == ids
    assert written[:1] == texts[:1]


def saved(tmp_path, rows, template=CHATML):
    base, pool = tmp_path / "base", tmp_path / "pool"
    base.mkdir(exist_ok=True)
    pool.mkdir(exist_ok=True)
    by_character(template).save_pretrained(base)
    (pool / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return base, pool


def pool_row(name, *texts, system=None):
    return {"id": name, "dataset": "d", "messages": talk(*texts, system=system)}


def test_the_stage_keeps_every_row_or_says_why(tmp_path):
    rows = [pool_row("a", "q", "x"), pool_row("b", "q" * 99, "x"), pool_row("c", "q", "y", "z", "w")]
    base, pool = saved(tmp_path, rows)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        tokenize(tmp_path / name, 90, base, pool)
    found = datasets.load_from_disk(str(tmp_path / "one/rows"))
    assert found["id"] == ["a", "c"] and found["dataset"] == ["d", "d"]
    assert learned(by_character(CHATML), found[1]) == ["y<|im_end|>", "w<|im_end|>"]
    assert list(files.load(tmp_path / "one/dropped.jsonl")) == [
        {"id": "b", "reason": "no answer token within 90 tokens"}
    ]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["dropped.jsonl", "rows"]
    one, two = (
        {path.name: sha256(path.read_bytes()).hexdigest() for path in (tmp_path / name).rglob("*") if path.is_file()}
        for name in ("one", "two")
    )
    assert one == two


def test_a_row_its_template_refuses_is_dropped_with_the_reason(tmp_path):
    base, pool = saved(tmp_path, [pool_row("a", "q", "x"), pool_row("b", "q", "x", system="s")], LLAMA2)
    tokenize(tmp_path, 90, base, pool)
    (dropped,) = files.load(tmp_path / "dropped.jsonl")
    assert dropped["id"] == "b" and "no system role" in dropped["reason"]


def test_a_pool_of_which_nothing_is_left_is_refused(tmp_path):
    base, pool = saved(tmp_path, [pool_row("a", "q" * 99, "x")])
    with pytest.raises(RoseError, match="model.max_length=9: no row of the pool is left"):
        tokenize(tmp_path, 9, base, pool)


def test_what_a_template_is_told_reaches_every_render_and_else_nothing_is_named_anew(tmp_path):
    template = "{% if style is defined %}[{{ style }}{% if deep %}!{% endif %}]{% endif %}" + CHATML
    by_character(template).save_pretrained(tmp_path)
    plain = loading.load_tokenizer(tmp_path)
    (tmp_path / loading.TOLD).write_text(json.dumps({"style": "it's", "deep": True}))
    told = loading.load_tokenizer(tmp_path)
    row = {"prompt": talk("q"), "chosen": talk("q", "a")[1:], "rejected": talk("q", "b")[1:]}
    for tokenizer, head in ((plain, ""), (told, "[it's!]")):
        pair = encode_pair(tokenizer, row, 1000)
        ids = [encode(tokenizer, talk("q", "a"), 1000)["input_ids"], prompt_ids(tokenizer, talk("q"), 1000)]
        for each in (*ids, *(side["input_ids"] for side in pair)):
            assert tokenizer.decode(each).startswith(f"{head}<|im_start|>system")
    for name in ("stile", "messages"):
        (tmp_path / loading.TOLD).write_text(json.dumps({name: 1}))
        with pytest.raises(RoseError, match=rf"model\.chat_template_kwargs\.{name}=1: "):
            loading.load_tokenizer(tmp_path)


def test_a_template_that_is_told_something_makes_another_base(composed):
    own = ["model=local", "model.base.path=some/model", "projection=sketch"]
    names = [
        {kind: node.name for kind, node in pipeline.stages(typed(composed(*own, *more))).items()}
        for more in ([], ["model.chat_template_kwargs={}"], ["+model.chat_template_kwargs={enable_thinking: false}"])
    ]
    assert names[0] == names[1] and names[0]["base"] != names[2]["base"] and names[0]["answers"] != names[2]["answers"]
