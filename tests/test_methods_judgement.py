"""Methods that take another's word: a reward model's, and a number that is in the rows."""

import json
import math
from pathlib import Path

import pandas
import pytest
import torch
from judged_answers import save_reward_model
from method_toys import composed_method, rows_table
from transformers import AutoTokenizer, LlamaForSequenceClassification

from rose import keys
from rose.config.compose import typed
from rose.errors import RoseError
from rose.evaluation import rewards
from rose.methods import influence
from rose.methods.rules import RULES
from rose.pipeline import stages


def pool(path: Path, rows: list[dict]) -> Path:
    path.mkdir()
    turns = [{"role": "user", "content": "tomato rope ?"}, {"role": "assistant", "content": "rope"}]
    lines = [{"id": f"r{place}", "dataset": "s", "messages": turns} | row for place, row in enumerate(rows)]
    (path / "pool.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_rows_come_by_the_number_in_their_column_and_those_without_one_have_no_score(tmp_path):
    method = composed_method("column", "method.column=quality")
    folder = pool(tmp_path / "pool", [{"quality": 2}, {"quality": None}, {"quality": 3.5}, {}, {"quality": -1}])
    rows = rows_table(5).iloc[::-1].reset_index(drop=True)  # the tokens' rows: another order than the pool's
    found = influence.column(method, rows, folder)
    assert found.values[:, 0].tolist() == pytest.approx([-1, math.nan, 3.5, math.nan, 2], nan_ok=True)
    assert RULES[method.rule](method, rows, found)[1].rank(ascending=False).tolist()[2] == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("good", "method.column=quality: row r0 has 'good'"),
        (True, "row r0 has True"),
        (None, "no row of the pool has it"),
    ],
)
def test_a_column_without_numbers_is_refused(tmp_path, value, message):
    folder = pool(tmp_path / "pool", [{"quality": value, "other": 1}])
    with pytest.raises(RoseError, match=message):
        influence.column(composed_method("column", "method.column=quality"), rows_table(1), folder)


@pytest.fixture
def reward_folder(tmp_path) -> Path:
    return save_reward_model(tmp_path / "reward", pads=True)


def test_the_pool_is_ranked_by_the_reward_of_each_row_s_last_answer(composed, reward_folder, tmp_path):
    config = typed(composed("method=reward", f"method.reward_model={reward_folder}", "judge.dtype=float32"))
    turns = [("user", "tomato rope ?"), ("assistant", "rope"), ("user", "lantern"), ("assistant", "flour anchor")]
    messages = [{"role": role, "content": content} for role, content in turns]
    (out := tmp_path / "out").mkdir()
    folder = pool(tmp_path / "pool", [{"messages": messages}, {}])
    rewards.pool_rewards(out, keys.ranking(config.method, config.judge), "", folder)
    model = LlamaForSequenceClassification.from_pretrained(reward_folder)
    tokenizer = AutoTokenizer.from_pretrained(reward_folder)
    ids = [tokenizer.apply_chat_template(each, return_dict=False) for each in (messages, messages[:2])]
    expected = [model(torch.tensor([each])).logits.item() for each in ids]
    assert pandas.read_parquet(out / "rewards.parquet").reward.tolist() == pytest.approx(expected, abs=1e-5)
    found = influence.rewards(config.method, rows_table(2).iloc[::-1], out)
    assert found.values[:, 0].tolist() == pytest.approx(expected[::-1], abs=1e-5)


def test_a_judge_that_ranked_the_pool_is_said_to_have(composed, reward_folder):
    def shared(*method: str) -> bool:
        config = typed(composed(*method, "judge=reward_model", f"judge.model={reward_folder}"))
        return stages(config)["verdicts"].inputs["shares_model"]

    assert shared("method=reward") and shared("method=reward", f"method.reward_model={reward_folder}/")
    assert not shared("method=reward", "method.reward_model=another/model") and not shared("method=random")


def test_which_reward_model_ranks_has_to_be_said(composed):
    with pytest.raises(RoseError, match="method.reward_model=null: representation=reward needs"):
        typed(composed("method=reward"))


def test_which_column_ranks_has_to_be_said(composed):
    with pytest.raises(RoseError, match="method.column=null: representation=column needs"):
        typed(composed("method=column"))
