"""What cannot go well is told before anything is trained or measured, once for a whole sweep."""

import json
import re
import shutil

import pytest
from small_job import computed, overrides, rose
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

from rose.config.compose import typed
from rose.data import world
from rose.errors import RoseError
from rose.run import job
from rose.training import trial

LONG = {"warmup", "features", "targets", "finetune", "evaluation", "answers", "tasks", "trial"}  # of no use before
QUESTIONS = [{"question": "2 + 2", "answer": "4"}, {"question": "2 + 3", "answer": "5"}]


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def bad_end(source, out):
    """The same rows, and one that is none."""
    out.write_text(source.read_text() + '{"nothing": 1}\n')
    return out


def stages(outputs):
    return {path.name for path in (outputs / "stages").glob("*") if path.name != ".locks" and any(path.glob("[!.]*"))}


def weights(tokenizer, folder):
    """Two models with 64 absolute positions."""
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    gpt2 = GPT2Config(vocab_size=len(tokenizer), n_positions=64, n_embd=16, n_layer=1, n_head=2, **ids)
    opt = {
        "hidden_size": 16,
        "ffn_dim": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "word_embed_proj_dim": 16,
    }
    opt = OPTConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **opt, **ids)
    for name, model in (("gpt2", GPT2LMHeadModel(gpt2)), ("opt", OPTForCausalLM(opt))):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def absolute(tmp_path_factory):
    return weights(world.tokenizer(), tmp_path_factory.mktemp("absolute"))


@pytest.mark.parametrize("key", ["dataset.path", "preference.path", "preference.test_path", "tasks.path"])
def test_a_bad_line_in_any_file_of_any_job_ends_a_sweep_before_its_first_job(inputs, tmp_path, key):
    good = {"dataset.path": "pool.jsonl", "preference.path": "pairs.jsonl", "preference.test_path": "test.jsonl"}
    lines(tmp_path / "questions.jsonl", QUESTIONS)
    source = inputs / good[key] if key in good else tmp_path / "questions.jsonl"
    bad, out = bad_end(source, tmp_path / "bad.jsonl"), tmp_path / "outputs"
    tasks = ["tasks=local"] if key == "tasks.path" else []
    done = rose("-m", *overrides(inputs, out), *tasks, "method=random", "seed=0,1", f"{key}={source},{bad}")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("rose: ") and "bad.jsonl" in done.stderr
    assert stages(out) <= {"pool", "preferences", "questions"}
    assert not list(out.glob("sweeps/*/*/status.json"))


@pytest.mark.parametrize("key", ["dataset.path", "preference.test_path", "tasks.path"])
def test_a_job_alone_reads_every_file_before_it_loads_a_model(composed, inputs, tmp_path, key):
    lines(tmp_path / "questions.jsonl", QUESTIONS)
    good = {"dataset.path": inputs / "pool.jsonl", "preference.test_path": inputs / "test.jsonl"}
    bad = bad_end(good.get(key, tmp_path / "questions.jsonl"), tmp_path / "bad.jsonl")
    tasks = ["tasks=local"] if key == "tasks.path" else []
    config = typed(composed(*overrides(inputs, tmp_path), "method=random", *tasks, f"{key}={bad}"))
    job.run(config, tmp_path / "job", "test")
    status = json.loads((tmp_path / "job" / "status.json").read_text())
    assert status["state"] == "failed" and "bad.jsonl" in status["error"]
    assert not stages(tmp_path) & LONG


def test_what_is_skipped_before_the_first_job_is_counted_in_the_sweeps_log(inputs, tmp_path):
    bad = bad_end(inputs / "test.jsonl", tmp_path / "bad.jsonl")
    settings = [f"preference.test_path={bad}", "preference.pairs.on_bad_row=skip", "method=random", "until=tokens"]
    done = rose("-m", *overrides(inputs, tmp_path / "o"), *settings, "seed=0,1", "until=leakage")
    assert done.returncode == 0, done.stderr
    (log,) = tmp_path.glob("o/sweeps/*/rose.log")
    assert "preferences: skipped 1 bad rows" in log.read_text()


def test_a_model_is_tried_once_a_sweep_and_before_anything_long(composed, inputs, tmp_path):
    for number, method in enumerate(("random", "bm25", "longest", "rose")):
        config = typed(composed(*overrides(inputs, tmp_path), f"method={method}"))
        job.run(config, tmp_path / "sweep" / method, "test")
        made = computed(json.loads((tmp_path / "sweep" / method / "stages.json").read_text()))
        tried = [name for name in made if name in LONG][:1]
        assert tried == (["trial"] if number in (0, 3) else tried) and made.count("trial") == (number in (0, 3))


def test_a_finished_job_is_not_tried_again(run):
    directory, stages = run()
    (directory.parents[1] / stages["trial"]["dir"]).rename(directory.parents[1] / "elsewhere")
    again, stages = run()
    assert again == directory and "trial" not in stages and not computed(stages)
    (directory.parents[1] / "elsewhere").rename(directory.parents[1] / "back")


def test_what_fails_one_job_of_a_sweep_is_said_once_and_not_tried_by_the_others(inputs, tmp_path):
    model = shutil.copytree(inputs / "model", tmp_path / "model")
    whole = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    arguments = [
        "-m",
        *overrides(inputs, tmp_path),
        f"model.base.path={model}",
        "method=rose",
        "seed=0,1",
        "until=warmup",
    ]
    done = rose(*arguments, "runtime.workers=2")
    assert done.returncode == 1 and "2 of 2 jobs failed" in done.stderr
    assert done.stderr.count(" failed: ") == 1, done.stderr
    said = {json.loads(path.read_text())["error"] for path in tmp_path.glob("sweeps/*/*/status.json")}
    assert len(said) == 1 and "Safetensor" in said.pop()
    assert not stages(tmp_path) & LONG
    (model / "model.safetensors").write_bytes(whole)
    assert rose(*arguments).returncode == 0


def test_every_model_of_a_sweep_in_one_process_is_tried_before_its_first_job(inputs, tmp_path):
    good, bad, out = inputs / "model", tmp_path / "model", tmp_path / "outputs"
    shutil.copytree(good, bad)
    (bad / "model.safetensors").write_bytes(b"torn")
    done = rose("-m", *overrides(inputs, out), f"model.base.path={good},{bad}", "method=random")
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("rose: Safetensor")
    assert not stages(out) & (LONG - {"trial"}) and not list(out.glob("sweeps/*/*/status.json"))


def test_a_template_that_leaves_no_answer_is_told_before_anything_long(composed, inputs, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(inputs / "model")
    tokenizer.chat_template = "{{ raise_exception('no turns here') }}"
    shutil.copytree(inputs / "model", tmp_path, dirs_exist_ok=True)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(RoseError, match="no turns here"):
        trial.try_out(tmp_path, 48, None, None, False, numerics(composed), tmp_path)


def numerics(composed):
    return typed(composed("model=local", "model.base.path=x", "model.numerics.dtype=float32")).model.numerics


@pytest.mark.parametrize("name", ["gpt2", "opt"])
@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (["model.max_length=65"], "model.max_length=65: the model has absolute positions, 64 of them; say "
         "model.max_length=64 or less"),
        (["model.max_length=60", "judge=reward_model", "judge.model=some/judge", "evaluation.max_new_tokens=5"],
         "model.max_length=60 and evaluation.max_new_tokens=5: the model has absolute positions, 64 of them; say "
         "model.max_length=59 or less, or a smaller evaluation.max_new_tokens"),
    ],
)  # fmt: skip
def test_more_tokens_than_absolute_positions_are_refused_with_both_numbers(
    composed, inputs, absolute, tmp_path, name, settings, fault
):
    targets = {"gpt2": "[c_attn]", "opt": "[q_proj]"}[name]
    changes = [f"model.base.path={absolute}/{name}", f"model.lora.targets={targets}", "method=random"]
    with pytest.raises(RoseError, match=re.escape(fault)):
        job.dry_run(typed(composed(*overrides(inputs, tmp_path), *changes, *settings)))


def test_as_many_tokens_as_absolute_positions_and_more_than_a_rotary_models_go_through(
    composed, inputs, absolute, tmp_path
):
    settings = [f"model.base.path={absolute}/opt", "model.lora.targets=[fc1]", "model.max_length=64", "until=features"]
    pool = lines(tmp_path / "pool.jsonl", [{"prompt": "tomato " * 60, "completion": "rope " * 60}] * 4)
    for changes in (settings, ["model.max_length=4096", "until=tokens"]):
        config = typed(composed(*overrides(inputs, tmp_path), *changes, f"dataset.path={pool}"))
        job.run(config, tmp_path / "job", "test")
        assert json.loads((tmp_path / "job" / "status.json").read_text())["error"] is None
