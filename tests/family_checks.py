"""What every family must pass: a column of docs/MODELS.md each. An outcome is YES, or what one would not expect."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pandas
import pytest
import torch
from chat_templates import learned, talk
from families import FAMILIES, SYSTEM, TURNS, Family, save
from fixtures_models import in_float64
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from peft import PeftModel
from safetensors.torch import load_file
from small_job import TOPICS, overrides
from tiny_models import LORA, NUMERICS, distance, engine_gradients, loop_gradients, slow_log_probs
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from rose.__main__ import ROOT
from rose.config.compose import typed
from rose.config.schema import Evaluation
from rose.data.chat import encode, encode_pair, prompt_ids
from rose.data.template_gaps import refuses_system
from rose.errors import RoseError
from rose.evaluation.answers import generate
from rose.models import loading
from rose.models.batching import Encoded
from rose.run import job

YES = "✓"
WHOLE = 1000  # tokens: more than any of these conversations has
TALK = talk(*TURNS, system=SYSTEM)
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]  # the default targets


class Worked(NamedTuple):
    """A family's model after a job with it."""

    family: Family
    model: Path  # as people have it
    base: Path  # the artifact
    job: Path
    tokenizer: PreTrainedTokenizerBase  # as stages load it


def work(name: str, folder: Path) -> Worked:
    """Runs the default job's stages on the family's model and some twenty rows; what has no model in it is shared."""
    write_data(folder)
    family, model, directory = FAMILIES[name], folder / name, folder / "runs" / name
    save(family, model)
    config = _config(folder).copy()
    OmegaConf.update(config, "model.base.path", str(model))
    job.run(typed(config), directory, "test")
    status = json.loads((directory / "status.json").read_text())
    assert status == {"state": "done", "error": None}, status
    base = folder / json.loads((directory / "stages.json").read_text())["base"]["dir"]
    return Worked(family, model, base, directory, loading.load_tokenizer(base))


@cache  # composing takes half a second
def _config(folder: Path) -> DictConfig:
    settings = ["model.max_length=320", "warmup.epochs=1", "until=evaluation"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", [*overrides(folder, folder), *settings], return_hydra_config=True)


def write_data(folder: Path) -> None:
    """20 rows of one or two answers and 6 pairs, some of each with a system turn."""
    rows = [
        {"id": f"row{i}", "messages": talk(f"{TOPICS[i % 6]} {i}", TOPICS[i % 5], *TURNS[2 * (i % 2) :],
                                           system=(None, SYSTEM)[i % 4 == 0])}
        for i in range(20)
    ]  # fmt: skip
    pairs = [
        {"prompt": talk(*([f"about {topic}"], [*TURNS[:2], f"{topic}?"])[i % 2], system=(None, SYSTEM)[i % 3 == 0]),
         "chosen": f"{topic} rope", "rejected": "flour", "subtask": "ab"[i == 0]}
        for i, topic in enumerate(TOPICS)
    ]  # fmt: skip
    for name, given in (("pool.jsonl", rows), ("pairs.jsonl", pairs), ("test.jsonl", pairs)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in given))


def a_whole_job(worked: Worked) -> str:
    stages = json.loads((worked.job / "stages.json").read_text())
    outputs = worked.base.parents[2]
    for stage in ("tokens", "targets", "evaluation"):
        assert not (outputs / stages[stage]["dir"] / "dropped.jsonl").read_text(), stage
    scores = pandas.read_parquet(worked.job / "scores.parquet")["score"]
    assert len(scores) == 20 and scores.notna().all() and scores.nunique() > 1
    weights = load_file(worked.job / "adapter" / "adapter_model.safetensors")
    assert any(weight.any() for name, weight in weights.items() if "lora_B" in name)
    return YES


def per_example_gradients(worked: Worked) -> str:
    """Equal a batch-one loop through the unchanged model."""
    rows = [
        encode(worked.tokenizer, messages, WHOLE) for messages in (TALK, talk("a", "b"), talk("Hi?", "No.", "c", "d"))
    ]
    with pytest.MonkeyPatch.context() as patch:
        in_float64(patch)
        base = AutoModelForCausalLM.from_pretrained(worked.model, dtype=torch.float64).requires_grad_(False)
        if hasattr(base.config, "num_experts_per_tok"):
            base.set_experts_implementation("eager")  # the others know no float64
        model = loading.new_adapter(base, replace(LORA, targets=ATTENTION), seed=0).double().eval()
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.2)
        assert distance(engine_gradients(model, rows), loop_gradients(model, rows)) < 1e-10
    return YES


def labels(worked: Worked) -> str:
    """The text is as written by hand, and what is learned are the answers and their ends."""
    tokenizer, written = worked.tokenizer, worked.family.written
    assert marked(tokenizer, encode(tokenizer, TALK, WHOLE)) == written
    passed_over = [message | {"train": message["content"] != "Yes."} for message in TALK]
    once = written.replace("⟦", "", 1).replace("⟧", "", 1)
    assert marked(tokenizer, encode(tokenizer, passed_over, WHOLE)) == once
    mark = ends(worked)[1]
    unmended = by_its_own(worked)
    if mark in marked(unmended, encode(unmended, TALK[1:], WHOLE)).rpartition("⟦")[2]:
        return YES
    return f"with `{mark}`, which begins the next turn and nothing else would teach"


def generation_prompt(worked: Worked) -> str:
    """What an answer is generated after is what precedes a last answer in training."""
    tokenizer, written = worked.tokenizer, worked.family.written
    before = written.rpartition("⟦")[0].replace("⟦", "").replace("⟧", "")
    assert tokenizer.decode(prompt_ids(tokenizer, TALK[:-1], WHOLE)) == before
    first = tokenizer.decode(prompt_ids(tokenizer, TALK[:2], WHOLE))
    assert marked(tokenizer, encode(tokenizer, TALK[:3], WHOLE)).startswith(first + "⟦")
    earlier = written.partition("⟦")[0]
    return YES if earlier == first else f"only a last answer stands after `{''.join(first[len(earlier) :].split())}`"


def stops(worked: Worked) -> str:
    """A model that goes on with the next turn has answered before it."""
    tokenizer, texts = worked.tokenizer, re.split("[⟦⟧]", worked.family.written)
    script = tokenizer("".join(texts[1:]), add_special_tokens=False)["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(worked.model).eval()

    def recite(module: torch.nn.Module, args: tuple, output: Any) -> None:
        output.logits[:] = 0.0
        output.logits[:, -1, script.pop(0) if script else 1] = 1.0

    model.register_forward_hook(recite)
    greedy = Evaluation(batch_tokens=4096, max_new_tokens=60, temperature=0.0, seed=0)
    assert generate(model, tokenizer, [TALK[:2]], WHOLE, greedy) == ["Yes."]
    return YES


def lora_targets(worked: Worked) -> str:
    """The default is all linear layers of every layer's attention, and no others."""
    names = load_file(worked.job / "adapter" / "adapter_model.safetensors")
    layers = {name.rpartition(".lora_")[0] for name in names}
    seeing = {name for name in layers if "vision" in name}
    depth = worked.family.config.get_text_config().num_hidden_layers
    assert {name.rpartition(".")[2] for name in layers - seeing} == set(worked.family.layers)
    assert len(layers - seeing) == depth * len(worked.family.layers)
    assert not any("mlp" in name or "expert" in name for name in layers - seeing)
    if seeing:
        return "also what sees, with gradients of zero: `model.lora.exclude='.*vision_tower.*'`"
    return (
        YES if set(worked.family.layers) == set(ATTENTION) else ", ".join(f"`{name}`" for name in worked.family.layers)
    )


def adapter(worked: Worked) -> str:
    """Loaded by PEFT, merged, saved and loaded again it gives the log-probabilities that it has here."""
    row = encode(worked.tokenizer, TALK, WHOLE)
    ours = loading.load_adapter(loading.load_model(worked.base, NUMERICS, "cpu"), worked.job / "adapter")
    expected = slow_log_probs(ours, row)
    theirs = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(worked.model), worked.job / "adapter"
    ).eval()
    found = [slow_log_probs(theirs, row)]
    with theirs.disable_adapter():
        assert not torch.allclose(slow_log_probs(theirs, row), expected, atol=1e-5)
    merged = theirs.merge_and_unload()
    merged.save_pretrained(folder := worked.job / "merged")
    found += [slow_log_probs(merged, row), slow_log_probs(AutoModelForCausalLM.from_pretrained(folder).eval(), row)]
    for each in found:
        torch.testing.assert_close(each, expected, atol=1e-5, rtol=0)
    return YES


def system_turn(worked: Worked) -> str:
    """It is in the text once, and not learned; where the template takes none, refusing it refuses the row."""
    row, own = encode(worked.tokenizer, TALK, WHOLE), by_its_own(worked)
    assert marked(worked.tokenizer, row).count(SYSTEM) == 1
    assert not any(SYSTEM in answer for answer in learned(worked.tokenizer, row))
    reason = refuses_system(own)
    if reason is None:
        return "kept"
    with pytest.raises(RoseError):
        encode(own, TALK, WHOLE)
    return "folded: the template leaves it out" if "leaves it out" in reason else "folded: the template refuses it"


def pair_of_several_turns(worked: Worked) -> str:
    """The answers after the prompt are learned in both, each with its end, and the prompt is the same."""
    (yes, no), tokenizer = ends(worked), worked.tokenizer
    more = talk("Why?", "So.")
    row = {"prompt": TALK[:-1], "chosen": [TALK[-1], *more], "rejected": talk("", "Never.")[1:]}
    chosen, rejected = encode_pair(tokenizer, row, WHOLE)
    assert learned(tokenizer, chosen) == [f"No.{yes}", f"So.{no}"]
    assert learned(tokenizer, rejected) == [f"Never.{no}"]
    assert marked(tokenizer, rejected).startswith(
        worked.family.written.rpartition("⟦")[0].replace("⟦", "").replace("⟧", "")
    )
    return YES


def truncation(worked: Worked) -> str:
    """A row loses its right; a pair the left of its prompt, after a BOS token, in both alike, and no answer."""
    tokenizer = worked.tokenizer
    whole = encode(tokenizer, TALK, WHOLE)
    first = next(place for place, label in enumerate(whole["labels"]) if label != -100)
    for length in range(1, len(whole["input_ids"])):
        cut = encode(tokenizer, TALK, length)
        assert cut == ({key: ids[:length] for key, ids in whole.items()} if length > first else None)
    row = {"prompt": TALK[:-1], "chosen": TALK[-1:], "rejected": talk("", "Never.")[1:]}
    prompt, sides = len(prompt_ids(tokenizer, TALK[:-1], WHOLE)), encode_pair(tokenizer, row, WHOLE)
    begins = sides[0]["input_ids"][:1] == [tokenizer.bos_token_id]
    for gone in (1, prompt // 2):
        for side, cut in zip(sides, encode_pair(tokenizer, row, len(sides[1]["input_ids"]) - gone), strict=True):
            for key in ("input_ids", "labels"):
                assert cut[key] == side[key][:begins] + side[key][begins + gone :]
    asked = prompt_ids(tokenizer, talk(*TURNS[:3]), WHOLE)
    head = tokenizer.convert_ids_to_tokens(asked[0])
    if begins or head not in tokenizer.get_added_vocab() or asked.count(asked[0]) > 1:
        return YES
    return f"a prompt that is cut loses `{head}` too"


CHECKS: dict[str, Callable[[Worked], str]] = {
    "system turn": system_turn,
    "labels": labels,
    "prompt": generation_prompt,
    "stops": stops,
    "pairs": pair_of_several_turns,
    "truncation": truncation,
    "LoRA": lora_targets,
    "gradients": per_example_gradients,
    "adapter": adapter,
    "job": a_whole_job,
}


def marked(tokenizer: PreTrainedTokenizerBase, row: Encoded) -> str:
    """The text of an encoded row, ⟦what is learned⟧ in brackets."""
    runs = groupby(zip(row["input_ids"], row["labels"], strict=True), key=lambda token: token[1] != -100)
    texts = [(ours, tokenizer.decode([token for token, _ in run])) for ours, run in runs]
    return "".join(f"⟦{text}⟧" if ours else text for ours, text in texts)


def by_its_own(worked: Worked) -> PreTrainedTokenizerBase:
    """The tokenizer as it came, without what its template lacks."""
    return AutoTokenizer.from_pretrained(worked.model)


def ends(worked: Worked) -> tuple[str, str]:
    """What ends an answer before others, and the last."""
    return re.search("⟦Yes.(.*?)⟧", worked.family.written)[1], re.search("⟦No.(.*?)⟧", worked.family.written)[1]
