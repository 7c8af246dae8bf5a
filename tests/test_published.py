r"""preference.format=published: a transcript's tokens by hand, as the authors' script cuts them (rose/dpo_gradient.py).

There a prompt of SE or SHP, one turn, keeps its first 256 tokens, one of HH-RLHF its last.
"""

import pytest
from chat_templates import CHATML, by_character, talk

from rose.data.published import encode_published
from rose.errors import RoseError


def pair(*prompt, chosen="yes", rejected="no", system=None):
    answers = {
        name: [{"role": "assistant", "content": text}]
        for name, text in {"chosen": chosen, "rejected": rejected}.items()
    }
    return {"id": "0", "subtask": "all", "prompt": talk(*prompt, system=system)} | answers


def tokens(tokenizer, side):
    """What precedes the labels, and what is learned."""
    start = sum(label == -100 for label in side["labels"])
    assert side["labels"] == [-100] * start + side["input_ids"][start:]
    written = tokenizer.convert_ids_to_tokens(side["input_ids"])
    return written[:start], written[start:]


def published(tokenizer, row, max_length):
    return [tokens(tokenizer, side) for side in encode_published(tokenizer, row, max_length)]


@pytest.mark.parametrize("template", [None, CHATML])
def test_a_published_pair_is_a_transcript_whose_prompt_and_answers_end_with_eos_without_bos_or_template(template):
    before = [*"ĊĊHuman:ĠQ?ĊĊAssistant:", "</s>"]
    found = published(by_character(template), pair("Q?"), 100)
    assert found == [(before, [*"Ġyes", "</s>"]), (before, [*"Ġno", "</s>"])]


def test_a_published_prompt_of_several_turns_names_each_speaker():
    before = [*"ĊĊHuman:ĠQ?ĊĊAssistant:ĠA.ĊĊHuman:ĠB?ĊĊAssistant:", "</s>"]
    assert published(by_character(), pair("Q?", "A.", "B?"), 100)[0] == (before, [*"Ġyes", "</s>"])


def test_a_text_that_has_an_eos_token_gets_no_second_one_and_texts_keep_their_white_space():
    found = published(by_character(), pair("Q\n", chosen="a</s>b\n"), 100)
    assert found[0] == ([*"ĊĊHuman:ĠQĊĊĊAssistant:", "</s>"], [*"Ġa", "</s>", *"bĊ"])


def test_a_published_pair_too_long_keeps_the_first_half_of_one_turn_and_the_last_half_of_several():
    tokenizer = by_character()
    one = published(tokenizer, pair("Q?"), 28)  # 24 + 5 are one too many; 14 stay
    assert one == [([*"ĊĊHuman:ĠQ?ĊĊA"], [*"Ġyes", "</s>"]), ([*"ĊĊHuman:ĠQ?ĊĊA"], [*"Ġno", "</s>"])]
    several = published(tokenizer, pair("Q?", "A.", "B?"), 28)
    assert several[0] == ([*"?ĊĊAssistant:", "</s>"], [*"Ġyes", "</s>"])
    assert published(tokenizer, pair("Q?"), 29)[0][0] == [*"ĊĊHuman:ĠQ?ĊĊAssistant:", "</s>"]


def test_a_published_answer_too_long_loses_its_right_and_its_eos_and_the_shorter_one_is_cut_alike():
    chosen, rejected = published(by_character(), pair("Q?", chosen="abcdefgh" * 4, rejected="12345678901234567"), 30)
    assert chosen == ([*"ĊĊHuman:ĠQ?ĊĊAs"], [*"Ġabcdefghabcdef"])
    assert rejected == ([*"ĊĊHuman:ĠQ?ĊĊAs"], [*"Ġ12345678901234"])


def test_a_published_prompt_keeps_256_tokens_where_an_answer_fills_the_rest():
    chosen, _ = published(by_character(), pair("Q" * 3000, chosen="y" * 3000), 2048)
    assert (len(chosen[0]), len(chosen[1])) == (256, 1792)


def test_published_answers_alike_up_to_the_cut_are_no_pair_and_what_a_transcript_cannot_say_is_refused():
    tokenizer = by_character()
    assert encode_published(tokenizer, pair("Q?", chosen="y" * 40 + "a", rejected="y" * 40 + "b"), 30) is None
    with pytest.raises(RoseError, match="role=system has no place"):
        encode_published(tokenizer, pair("Q?", system="Be kind."), 100)
    with pytest.raises(RoseError, match="several turns"):
        encode_published(tokenizer, pair("Q?") | {"chosen": talk("Q?", "A.", "B?", "C.")[1:]}, 100)
    with pytest.raises(RoseError, match="has no EOS token"):
        encode_published(by_character(eos_token=None), pair("Q?"), 100)
