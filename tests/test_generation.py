"""Generated answers end where a turn does, whatever token or text the template ends it with."""

import pytest
from chat_templates import FAMILIES, family, talk
from tiny_models import llama
from transformers import GenerationConfig, LlamaForCausalLM

from rose.config.schema import Evaluation
from rose.evaluation.answers import generate
from rose.training.supervised import answer_loss

OWN = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token if m.role == 'assistant' }}\n{% endfor %}"
GREEDY = Evaluation(batch_tokens=4096, max_new_tokens=60, temperature=0.0, seed=0)


class Reciter(LlamaForCausalLM):
    """Says `script`, a list of tokens for each row of a batch, whatever it is asked."""

    script: list[list[int]]

    def forward(self, input_ids=None, **options):
        outputs = super().forward(input_ids=input_ids, **options)
        outputs.logits[:] = 0.0
        for row, tokens in enumerate(self.script):
            outputs.logits[row, -1, tokens.pop(0) if tokens else 9] = 1.0
        return outputs


def reciter(tokenizer, *texts: str, eos: int | None = 1) -> Reciter:
    model = Reciter(llama(vocab_size=len(tokenizer), max_position_embeddings=512)).eval()
    model.generation_config = GenerationConfig(eos_token_id=eos)
    model.script = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return model


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("eos", ["<s>", None])  # not what any of the templates ends a turn with
def test_an_answer_ends_where_the_template_ends_the_turn(name, eos):
    tokenizer = family(name, pad_token="</s>")
    first, second = (tokenizer.apply_chat_template(talk("?", f"good {x}", "what", "bye"), tokenize=False,
                     chat_template=tokenizer.chat_template or OWN) for x in "ab")  # fmt: skip
    runs_on = [text[text.index("good") :] for text in (first, second)]
    assert all("bye" in text for text in runs_on)
    model = reciter(tokenizer, *runs_on, eos=None if eos is None else tokenizer.convert_tokens_to_ids(eos))
    assert generate(model, tokenizer, [talk("?"), talk("?")], 512, GREEDY) == ["good a", "good b"]


def test_the_models_own_end_token_ends_an_answer_too():
    tokenizer = family("chatml", pad_token="</s>")
    model = reciter(tokenizer, "good</s>bye", eos=tokenizer.eos_token_id)
    assert generate(model, tokenizer, [talk("?")], 512, GREEDY) == ["good"]


def test_rows_of_a_batch_end_each_in_its_own_place():
    tokenizer = family("sections", pad_token="</s>")
    model = reciter(tokenizer, "a\n### End\n### user\nwhat", "a ### End or\n### Enough\n### End\nbye")
    assert generate(model, tokenizer, [talk("?"), talk("?")], 512, GREEDY) == ["a", "a ### End or\n### Enough"]


@pytest.mark.parametrize("name", ["chatml", "human"])
def test_a_padding_token_without_an_embedding_pads_all_the_same(name):
    tokenizer = family(name)
    texts = ["a<|im_end|>bye", "bb<|im_end|>bye"] if name == "chatml" else ["a\n\nHuman: bye", "bb\n\nHuman: bye"]
    model = reciter(tokenizer, *texts, eos=None)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    assert tokenizer.pad_token_id >= model.get_input_embeddings().num_embeddings
    assert generate(model, tokenizer, [talk("longer?"), talk("?")], 512, GREEDY) == ["a", "bb"]


def test_a_batch_in_training_is_padded_with_what_has_an_embedding():
    tokenizer = family("chatml")
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    rows = [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, {"input_ids": [8], "labels": [8]}]
    batch = answer_loss(tokenizer).collator(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 6, 7], [8, -100, -100]]
