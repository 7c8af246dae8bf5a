"""Invariants of the embedded world's tokenizer and chat template."""

import pytest
from transformers import AutoTokenizer

from rose.config.choices import Manners
from rose.config.data import WorldPairs, WorldPool
from rose.data.world import conversations, pairs, pool, tokenizer

QUESTION = "Any baking tips with flour and oven?"


@pytest.mark.parametrize("manners", list(Manners))
def test_every_word_of_the_world_is_known_and_decoding_gives_it_back(manners):
    words = tokenizer(manners)
    targets, _ = pairs(WorldPairs(seed=0, manners=manners, targets=100, tests=0, overlap=0.5, distractor=0.5))
    rows = conversations(200, 0, manners) + pool(WorldPool(0, manners, rows=200, useful=0.2, distractor=0.5))
    turns = [turn for row in rows for turn in row["messages"]] + [turn for row in targets for turn in row["rejected"]]
    for turn in turns:
        ids = words(turn["content"])["input_ids"]
        assert words.unk_token_id not in ids
        assert words.decode(ids, skip_special_tokens=True) == turn["content"]


MULTI_TURN = [
    {"role": "system", "content": "let us try"},
    {"role": "user", "content": QUESTION},
    {"role": "assistant", "content": "Certainly! Enjoy!"},
    {"role": "user", "content": "what now?"},
    {"role": "assistant", "content": "Enjoy!"},
]


def test_a_rendered_beginning_is_a_prefix_of_the_rendered_whole():
    words = tokenizer(Manners.phrases)
    whole = words.apply_chat_template(MULTI_TURN, return_dict=False)
    for turns in range(1, len(MULTI_TURN) + 1):
        start = words.apply_chat_template(MULTI_TURN[:turns], return_dict=False)
        assert whole[: len(start)] == start
        if turns < len(MULTI_TURN) and MULTI_TURN[turns]["role"] == "assistant":
            asked = words.apply_chat_template(MULTI_TURN[:turns], add_generation_prompt=True, return_dict=False)
            assert whole[: len(asked)] == asked == [*start, words.convert_tokens_to_ids("<|assistant|>")]


def test_the_assistants_tokens_are_its_content_and_the_end():
    words = tokenizer(Manners.phrases)
    encoded = words.apply_chat_template(MULTI_TURN, return_dict=True, return_assistant_tokens_mask=True)
    marked = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    tokens = words.convert_ids_to_tokens([token for token, mark in marked if mark])
    assert tokens == ["▁Certainly", "!", "▁Enjoy", "!", "<|eos|>", "▁Enjoy", "!", "<|eos|>"]


def test_a_saved_tokenizer_is_the_same(tmp_path):
    words = tokenizer(Manners.phrases)
    words.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == words.get_vocab()
    assert (again.pad_token_id, again.eos_token_id) == (words.pad_token_id, words.eos_token_id)
    rendered = again.apply_chat_template(MULTI_TURN, return_dict=False)
    assert rendered == words.apply_chat_template(MULTI_TURN, return_dict=False)
    text = "Certainly! Briefly, please consider yeast, oven and dough."
    assert again.decode(again(text)["input_ids"], skip_special_tokens=True) == text
