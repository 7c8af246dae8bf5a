"""Verdicts by score, what evaluating stages leave behind, and two jobs against each other."""

import json
from dataclasses import replace
from pathlib import Path

import numpy
import pandas
import pytest
import tokenizers
import torch
from judged_answers import save_reward_model, write_answers
from small_job import overrides, rose
from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

from rose import pipeline
from rose.config.compose import typed
from rose.config.schema import Judge
from rose.data import world
from rose.errors import RoseError
from rose.evaluation import answers as answering
from rose.evaluation import reward_model
from rose.evaluation.contests import by_score, contests
from rose.evaluation.evaluate import preference_metrics
from rose.evaluation.items import Item, merge_items, prompt_text, write_items
from rose.evaluation.verdicts import judge_answers, shares_model
from rose.report.statistics import from_items
from rose.run import callback, job
from rose.run.duel import duel, summary


@pytest.fixture(scope="module")
def reward_folder(tmp_path_factory) -> Path:
    return save_reward_model(tmp_path_factory.mktemp("reward"), pads=True)


@pytest.fixture
def judge(composed, reward_folder) -> Judge:
    own = ["judge=reward_model", f"judge.model={reward_folder}", "judge.dtype=float32"]
    return typed(composed(*own)).judge


def test_the_higher_score_wins_and_equal_ones_tie():
    assert [verdict.win for verdict in by_score([2.0, -1.0, 0.5], [1.0, 3.0, 0.5])] == [1, 0, 0.5]


@pytest.mark.parametrize("pads", [True, False])
def test_a_reward_model_scores_the_chat_alone_and_in_any_batch(judge, tmp_path, pads):
    save_reward_model(tmp_path, pads)
    prompts = [[{"role": "user", "content": text}] for text in ("tomato rope ?", "lantern", "flour anchor easel ?")]
    texts = ["rope", "flour flour anchor pedals", "tomato"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = LlamaForSequenceClassification.from_pretrained(tmp_path).eval()
    expected = []
    for prompt, text in zip(prompts, texts, strict=True):
        ids = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": text}], return_dict=False)
        expected.append(model(torch.tensor([ids])).logits.item())
    assert len(set(expected)) == 3
    for budget in (1, 4096):
        scores = reward_model.score(replace(judge, model=str(tmp_path), batch_tokens=budget), prompts, texts)
        assert scores == pytest.approx(expected, abs=1e-5)


def test_a_conversation_too_long_for_a_reward_model_loses_its_left(judge):
    answer = "rope anchor"
    long, other = ([{"role": "user", "content": f"{word} " * 50}] for word in ("tomato", "flour"))
    cut = replace(judge, max_length=4)
    assert reward_model.score(cut, [long, long], [answer, "easel"])[0] == pytest.approx(
        reward_model.score(cut, [other], [answer])[0], abs=1e-5
    )


def test_without_a_template_the_prompt_makes_room_for_the_answer():
    vocabulary = {word: number for number, word in enumerate(["[CLS]", "[SEP]", *(f"w{i}" for i in range(200))])}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary))
    core.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    core.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 1), ("[CLS]", 0))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
    prompt, answer = ([f"w{i}" for i in numbers] for numbers in (range(50), range(50, 150)))

    def seen(limit: int) -> list[str]:
        row = reward_model._encode(tokenizer, [{"role": "user", "content": " ".join(prompt)}], " ".join(answer), limit)
        return tokenizer.convert_ids_to_tokens(row["input_ids"])

    for limit, kept in ((153, prompt), (120, prompt[-17:]), (104, prompt[-1:]), (103, [])):  # three are the model's own
        assert seen(limit) == ["[CLS]", *kept, "[SEP]", *answer, "[SEP]"]
    assert seen(80) == ["[CLS]", "[SEP]", *answer[:77], "[SEP]"]


def test_a_classifier_with_several_outputs_is_no_reward_model(judge, tmp_path):
    world.tokenizer().save_pretrained(tmp_path)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForSequenceClassification(LlamaConfig(vocab_size=300, num_labels=3, **shape)).save_pretrained(tmp_path)
    with pytest.raises(RoseError, match=r"judge.model=.*has 3 outputs"):
        reward_model.score(replace(judge, model=str(tmp_path)), [[]], [""])


def test_scores_of_single_answers_are_kept_so_that_any_two_models_can_be_compared(judge, tmp_path):
    pairs = [("rope anchor", "flour"), ("tomato", "tomato"), ("easel", "pedals flour flour")]
    answers = write_answers(tmp_path / "answers", pairs)
    out = tmp_path / "out"
    out.mkdir()
    judge_answers(out, judge, "", False, answers, None)
    items = pandas.read_parquet(out / "items.parquet")
    signs = (numpy.sign(items["reward"] - items["opponent_reward"]) + 1) / 2
    assert items["win_rate"].tolist() == signs.tolist()
    assert items["win_rate"][1] == 0.5
    metrics = json.loads((out / "metrics.json").read_text())
    for name in ("win_rate", "reward", "opponent_reward", "answer_length"):
        assert metrics[name] == pytest.approx(items[name].mean())
    assert items["answer_length"].tolist() == [11, 6, 5]


def test_the_worlds_reward_judges_the_answers_it_ranks(composed, tmp_path):
    _, tests = world.pairs(typed(composed()).preference.pairs.world)
    folder = tmp_path / "answers"
    folder.mkdir()
    rows = [
        {"id": pair["id"], "subtask": pair["subtask"], "prompt": pair["prompt"]}
        | {"answer": pair["rejected"][0]["content"], "reference": pair["chosen"][0]["content"]}
        for pair in tests[:5]
    ]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    out.mkdir()
    judge_answers(out, typed(composed()).judge, "", True, folder, None)
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["win_rate"], metrics["reward"], metrics["opponent_reward"]) == (0, 0, 1)
    assert metrics["judge_shares_model"] == 1


def test_answers_to_other_prompts_cannot_be_compared(tmp_path):
    one = write_answers(tmp_path / "one", [("a", "b"), ("c", "d")])
    two = write_answers(tmp_path / "two", [("x", "b"), ("y", "d")])
    assert [(each.answer, each.opponent) for each in contests(one, two)] == [("a", "x"), ("c", "y")]
    with pytest.raises(RoseError, match="1 of 2 ids differ"):
        contests(one, write_answers(tmp_path / "three", [("x", "b")]))


def test_win_rate_at_equal_lengths_is_the_win_rate_a_prompt_weighing_the_same_in_file_report_and_duel(judge, tmp_path):
    """Four wins to one prompt and one loss each to two others are a third, not two thirds."""
    pairs, prompts = [("tomato", "anchor")] * 4 + [("anchor", "tomato")] * 2, ["p", "p", "p", "p", "q", "r"]
    answers, out = write_answers(tmp_path / "answers", pairs), tmp_path / "out"
    rows = [json.loads(line) for line in (answers / "answers.jsonl").read_text().splitlines()]
    for row, prompt in zip(rows, prompts, strict=True):
        row["prompt"] = [{"role": "user", "content": prompt}]
    (answers / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out.mkdir()
    judge_answers(out, judge, "", False, answers, None)
    metrics, items = json.loads((out / "metrics.json").read_text()), pandas.read_parquet(out / "items.parquet")
    assert sorted(items["win_rate"]) in ([0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1])  # whichever the reward model likes
    third = 2 / 3 if items["win_rate"].iloc[-1] == 1 else 1 / 3
    for name in ("win_rate", "win_rate_length_controlled"):
        assert metrics[name] == pytest.approx(third, abs=1e-9)
    assert summary(out).startswith(f"win rate {third:.3f} ")
    shown = from_items(items[["win_rate"]].to_numpy().T, pandas.factorize(items["prompt"])[0])
    assert shown.mean == pytest.approx(metrics["win_rate"])


def test_a_metric_is_the_mean_of_its_prompts_means_of_known_values(tmp_path):
    items = [Item("a", "p", "s"), Item("b", "p", "s"), Item("c", "q", "s")]
    columns = {"m": [1.0, float("nan"), 0.0], "k": [1.0, 0.0, 0.0], "none": [float("nan")] * 3}
    write_items(tmp_path, items, columns, {"n": 3})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"m": 0.5, "k": 0.25, "n": 3}


def test_merged_items_are_the_union_of_rows(tmp_path):
    for name, items in (("x", "ab"), ("y", "bc")):
        (tmp_path / name).mkdir()
        write_items(tmp_path / name, [Item(i, "p", "s") for i in items], {name: [1.0, 2.0]}, {})
    merged = merge_items([tmp_path / "x" / "items.parquet", tmp_path / "y" / "items.parquet"]).set_index("id")
    assert merged.loc[["a", "b", "c"], ["x", "y"]].fillna(-1).to_numpy().tolist() == [[1, -1], [2, 1], [-1, 2]]


def test_a_prompt_of_several_messages_keeps_its_roles():
    assert prompt_text([{"role": "user", "content": "a"}]) == "a"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert prompt_text(turns) == "user: a\n\nassistant: b\n\nuser: c"


def test_preference_metrics_are_as_worked_out_by_hand():
    own = pandas.DataFrame(
        {"chosen": [-2.0, -6.0, -3.0], "rejected": [-3.0, -4.0, -3.0]}
        | {"chosen_tokens": [2, 6, 3], "rejected_tokens": [1, 1, 3]}
    )
    base = own.assign(chosen=[-4.0, -9.0, -3.0], rejected=[-3.0, -4.0, -3.0])
    metrics = {name: values.tolist() for name, values in preference_metrics(own, base).items()}
    assert metrics["preference_accuracy"] == [1, 0, 0.5]
    assert metrics["preference_accuracy_per_token"] == [1, 1, 0.5]  # -1 > -3, -1 > -4, -1 = -1
    assert metrics["longer_wins"] == [1, 1, 0.5]
    assert metrics["chosen_loss"] == [1, 1, 1]
    assert metrics["log_ratio_margin"] == [2, 3, 0]  # (-2+4) - 0, (-6+9) - 0, 0
    assert metrics["preference_accuracy_vs_base"] == [1, 1, 0.5]
    assert metrics["log_ratio_margin_per_token"] == [1, 0.5, 0]  # 2/2 - 0, 3/6 - 0, 0
    assert not [name for name in preference_metrics(own, None) if name.startswith("log_ratio_margin")]


def test_at_matched_length_only_pairs_within_a_fifth_are_measured():
    own = pandas.DataFrame(
        {"chosen": [-1.0] * 5, "rejected": [-9.0] * 5}
        | {"chosen_tokens": [10, 12, 13, 10, 10], "rejected_tokens": [10, 10, 10, 12, 13]}
    )
    margin = preference_metrics(own, own.assign(chosen=-4.0))["log_ratio_margin_matched"]
    assert numpy.isnan(margin).tolist() == [False, False, True, False, True]  # 12 is 1.2 times 10
    assert numpy.nanmean(margin) == 3


@pytest.mark.parametrize(
    ("judge_model", "base", "shared"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "outputs/models/smollm2_135m_instruct/", True),
        ("gpt-x", "outputs/models/smollm2_135m", False),
        ("gpt-x", None, False),
    ],
)
def test_a_judge_that_is_the_model_itself_is_known(composed, judge, judge_model, base, shared):
    own = typed(composed()).model.base
    assert shares_model(replace(judge, model=judge_model), replace(own, path=base)) is shared


def test_a_judge_that_is_not_independent_is_named(composed):
    assert "judge=reward_world" in callback.judge_warning(composed())
    llm = ["judge=llm", "judge.base_url=x", "model=local", "model.base.path=a/M-1"]
    assert "judge.model=m_1" in callback.judge_warning(composed(*llm, "judge.model=m_1"))
    assert callback.judge_warning(composed(*llm, "judge.model=m_2")) == ""


def test_one_prompt_is_answered_once_whatever_its_pairs(tmp_path, monkeypatch, composed):
    monkeypatch.setattr(answering, "load", lambda *_: (None, None))
    asked = []
    monkeypatch.setattr(answering, "generate", lambda m, t, prompts, *_: asked.extend(prompts) or ["x", "y"])
    rows = [{"id": str(i), "subtask": "s", "prompt": [{"role": "user", "content": "pq"[i == 2]}]} for i in range(4)]
    rows = [row | {"chosen": [{"role": "assistant", "content": f"c{row['id']}"}]} for row in rows]
    rows[3]["chosen"] += [{"role": "user", "content": "And?"}, {"role": "assistant", "content": "later"}]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answering.answer(tmp_path, None, None, 0, None, None, tmp_path)
    said = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert len(asked) == 2
    assert [(row["answer"], row["reference"]) for row in said] == [("x", "c0"), ("x", "c1"), ("y", "c2"), ("x", "c3")]


def names(composed, *extra: str) -> dict[str, str]:
    return {name: node.name for name, node in pipeline.stages(typed(composed(*extra))).items()}


def test_greedy_answers_do_not_depend_on_the_seed_and_sampled_ones_do(composed):
    greedy = [names(composed, "evaluation.temperature=0", f"evaluation.seed={seed}")["answers"] for seed in (0, 1)]
    sampled = [names(composed, f"evaluation.seed={seed}")["answers"] for seed in (0, 1)]
    assert greedy[0] == greedy[1] and sampled[0] != sampled[1]


def test_how_a_judge_is_asked_reaches_no_key_and_whose_it_is_does(composed):
    llm = ["judge=llm", "judge.model=m", "judge.base_url=http://a"]
    moved = ["judge.retries=9", "judge.timeout=1", "judge.concurrency=1"]
    moved += ["judge.key_variable=OTHER", "judge.cache=/elsewhere", "judge.dtype=float16"]
    assert names(composed, *llm) == names(composed, *llm, *moved)
    mirror = ["judge.base_url=http://b", "judge.endpoint=http://a"]
    assert names(composed, *llm) == names(composed, *llm, *mirror) != names(composed, *llm, mirror[0])
    asked = names(composed, *llm, "judge.request.temperature=0.7")
    changed = [name for name, node in names(composed, *llm).items() if asked[name] != node]
    assert changed == ["verdicts", "zero_shot_verdicts"]


def test_another_opponent_judges_the_same_answers(composed):
    reference, base = names(composed), names(composed, "judge.opponent=zero_shot")
    assert [name for name in base if base[name] != reference[name]] == ["verdicts", "zero_shot_verdicts"]


JUDGED = ["judge=reward_model", "judge.dtype=float32", "evaluation.max_new_tokens=8"]


def test_two_jobs_meet_in_a_duel(composed, inputs, outputs, reward_folder, tmp_path):
    jobs = []
    for method in ("reward", "zero_shot"):
        own = [*overrides(inputs, outputs), f"method={method}", *JUDGED, f"judge.model={reward_folder}"]
        directory = outputs / "duels_jobs" / method
        job.run(typed(composed(*own, "judge.opponent=zero_shot")), directory, "test")
        (directory / ".hydra").mkdir(exist_ok=True)
        (directory / ".hydra" / "overrides.yaml").write_text("".join(f"- {text}\n" for text in own))
        jobs.append(directory)
    folder = duel(*jobs, [])
    items = [pandas.read_parquet(directory / "items.parquet").set_index("id") for directory in jobs]
    met = pandas.read_parquet(folder / "items.parquet").set_index("id")
    expected = (numpy.sign(items[0]["reward"] - items[1]["reward"]) + 1) / 2
    assert met["win_rate"].to_dict() == expected.to_dict()
    assert items[0]["win_rate"].to_dict() == expected.to_dict()  # its opponent was the same model
    assert (items[1]["win_rate"] == 0.5).all()  # itself
    assert summary(folder).startswith(f"win rate {expected.mean():.3f} (95 % interval ")
    for pair, shared in ((jobs, 1), (jobs[::-1], 1), ((jobs[1], jobs[1]), 0)):  # the judge ranked one job's rows
        metrics = json.loads((duel(*pair, []) / "metrics.json").read_text())
        assert metrics["judge_shares_model"] == shared
    with pytest.raises(RoseError, match="is no job's folder"):
        duel(jobs[0], tmp_path, [])


def test_five_wins_of_five_leave_room_for_doubt_and_a_prompt_counts_once(tmp_path):
    items = [Item(str(number), f"p{number % 5}", "a") for number in range(10)]
    write_items(tmp_path, items, {"win_rate": [1.0] * 10}, {"win_rate_length_controlled": 1.0})
    least = 0.025 ** (1 / 5)  # Clopper and Pearson: five wins of five come by chance then
    assert summary(tmp_path) == (
        f"win rate 1.000 (95 % interval {least:.3f} to 1.000) over 5 prompts, length-controlled 1.000"
    )
    pairs = [Item(str(number), f"p{max(0, number - 6)}", "a") for number in range(10)]  # seven pairs of p0
    write_items(tmp_path, pairs, {"win_rate": [1.0] * 7 + [0.0] * 3}, {})
    assert summary(tmp_path).startswith("win rate 0.250 ") and summary(tmp_path).endswith("nan")


def test_a_judge_that_is_down_costs_the_win_rate_alone(composed, inputs, outputs):
    down = ["judge=llm", "judge.model=m", "judge.base_url=http://127.0.0.1:9/v1", "judge.retries=0"]
    config = typed(composed(*overrides(inputs, outputs), "method=random", "evaluation.max_new_tokens=8", *down))
    directory = outputs / "runs" / "down"
    job.run(config, directory, "test")
    status = json.loads((directory / "status.json").read_text())
    assert status["state"] == "failed" and status["error"].startswith("judge.base_url=http://127.0.0.1:9/v1")
    metrics = json.loads((directory / "metrics.json").read_text())
    assert {"preference_accuracy", "zero_shot/preference_accuracy", "selected_rows"} <= set(metrics)
    assert "win_rate" not in metrics
    assert "preference_accuracy" in pandas.read_parquet(directory / "items.parquet")
    stages = json.loads((directory / "stages.json").read_text())
    assert "answers" in stages and "verdicts" not in stages
    assert (directory / "adapter" / "adapter_config.json").exists()


def test_a_sweep_whose_judge_is_down_still_reports_and_shows_the_gap(inputs, tmp_path):
    down = ["judge=llm", "judge.model=m", "judge.base_url=http://127.0.0.1:9/v1", "judge.retries=0"]
    done = rose("-m", *overrides(inputs, tmp_path), "method=random,longest", "evaluation.max_new_tokens=8", *down)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "2 of 2 jobs failed" in done.stderr
    (folder,) = (tmp_path / "sweeps").iterdir()
    table = pandas.read_csv(folder / "results.csv")
    assert table["preference_accuracy"].notna().all() and "win_rate" not in table
    assert (folder / "report.md").read_text().count("judge.base_url=http://127.0.0.1:9/v1") == 2
