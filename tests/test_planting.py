"""Planted faults: what each does to an answer, by lot among rows that can have it, and pairs from rows kept out."""

import json
from collections import Counter

import numpy
import pandas
import pytest
from method_toys import composed_method, lines, scored
from tiny_models import LORA, NUMERICS, TRAINING

from rose.config.choices import Fault
from rose.config.compose import typed
from rose.config.data import Plant
from rose.data import files, world
from rose.data.chat import tokenize
from rose.data.faults import FAULTS, REFUSALS
from rose.data.planting import pairs_of, plant, set_aside, truth
from rose.data.preferences import read_preferences
from rose.errors import RoseError
from rose.evaluation.evaluate import evaluate
from rose.methods.losses import row_losses
from rose.training.pairs import tune_on_chosen

ANSWER = "One fine day,\nsix small birds  flew 12 miles to 305 Elm Street."
WORDS = ANSWER.split()


def faulty(fault: Fault, answer: str = ANSWER, other: str = "Quite another answer.") -> str | None:
    return FAULTS[fault](answer, other, numpy.random.default_rng(0))


def test_every_fault_changes_the_answer_and_names_itself():
    assert set(FAULTS) == set(Fault)
    for fault in Fault:
        assert faulty(fault) not in (None, ANSWER)


def test_what_each_fault_keeps():
    assert faulty(Fault.swap) == "Quite another answer."
    assert faulty(Fault.truncate) == "One fine day,\nsix"  # 4 of 12 words
    assert Counter(faulty(Fault.shuffle).split()) == Counter(WORDS)
    assert faulty(Fault.repeat).split() == ["One", "fine", "day,", "six"] * 3 + ["One"]
    assert faulty(Fault.refuse) in REFUSALS
    assert faulty(Fault.padding).startswith(ANSWER)
    assert 2 * len(WORDS) <= len(faulty(Fault.padding).split()) < 3 * len(WORDS)
    garbled = faulty(Fault.garble).split()
    assert [(word[0], word[-1], sorted(word)) for word in garbled] == [(w[0], w[-1], sorted(w)) for w in WORDS]


def test_wrong_numbers_are_as_long_and_all_else_stays():
    words = faulty(Fault.wrong_number).split()
    assert [len(word) for word in words] == [len(word) for word in WORDS]
    assert [place for place, word in enumerate(words) if word != WORDS[place]] == [
        WORDS.index("12"),
        WORDS.index("305"),
    ]


@pytest.mark.parametrize("fault", [Fault.shuffle, Fault.repeat, Fault.truncate])
def test_line_breaks_and_spaces_stay_where_they_are(fault):
    assert faulty(fault).split(" ", 2)[2].partition("\n")[1] == "\n"


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        (Fault.truncate, "Five words are too few."),
        (Fault.shuffle, "no no no no no no no"),
        (Fault.repeat, "ha ha ha ha ha ha"),
        (Fault.wrong_number, "No digits here."),
        (Fault.garble, "It is so."),
        (Fault.swap, "Quite another answer."),
    ],
)
def test_an_answer_that_cannot_have_a_fault_is_left(fault, answer):
    assert faulty(fault, answer) is None


def row(number: int, source: str = "a", prompt: str | None = None) -> dict:
    answer = f"Answer {number} of {source} has words enough to be cut and shuffled well"
    question = f"Question {number} of {source}?" if prompt is None else prompt
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": f"{source}{number}", "dataset": source, "messages": messages, "licence": "mine"}


def planted(tmp_path, rows, faults=tuple(Fault), share=0.5, aside=0, seed=0, name="out"):
    pool, out = tmp_path / "pool", tmp_path / name
    pool.mkdir(exist_ok=True), out.mkdir()
    (pool / "pool.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    if aside:
        set_aside(out, aside, seed, pool)
    plant(out, Plant(list(faults), share, aside, seed), out if aside else pool)
    return list(files.load(out / "pool.jsonl")), list(files.load(out / "aside.jsonl")) if aside else []


def test_in_each_source_the_share_has_a_fault_and_as_many_could_have_had_it(tmp_path):
    rows = [row(number, source) for source in "ab" for number in range(32)]
    pool, aside = planted(tmp_path, rows)
    assert not aside and [each["id"] for each in pool] == [each["id"] for each in rows]
    for source in "ab":
        kinds = Counter((each.get("planted"), each.get("control")) for each in pool if each["dataset"] == source)
        assert kinds == {(str(f), None): 2 for f in Fault} | {(None, str(f)): 2 for f in Fault}


def test_intact_rows_are_as_they_were_and_a_planted_one_keeps_its_prompt_and_columns(tmp_path):
    rows = {each["id"]: each for each in (row(number) for number in range(40))}
    for each in planted(tmp_path, list(rows.values()))[0]:
        was = rows[each["id"]]
        marks = {name: each.pop(name) for name in ("planted", "control") if name in each}
        assert len(marks) == 1
        if "control" in marks:
            assert each == was
        else:
            assert each["messages"][:-1] == was["messages"][:-1] and each["messages"][-1] != was["messages"][-1]
            assert each["licence"] == "mine"


def test_rows_that_cannot_have_their_fault_are_neither_planted_nor_controls(tmp_path):
    rows = [row(number) for number in range(10)]
    rows[3]["messages"][-1]["content"] = "Too short."
    pool, _ = planted(tmp_path, rows, [Fault.truncate])
    assert not {"planted", "control"} & pool[3].keys()
    table = truth(tmp_path / "out")
    assert table.fault.isna().tolist() == [number == 3 for number in range(10)]
    assert table.intact.sum() == 5  # half of nine, rounded up, have a fault


def test_another_seed_plants_other_rows_and_the_same_seed_the_same(tmp_path):
    rows = [row(number) for number in range(40)]
    first, again, other = (
        planted(tmp_path, rows, seed=seed, name=name)[0] for name, seed in (("x", 0), ("y", 0), ("z", 1))
    )
    assert first == again != other


def test_no_prompt_is_both_in_the_pool_and_in_the_pairs(tmp_path):
    rows = [row(number, prompt=f"Question {number // 2}?") for number in range(40)]  # each prompt twice
    pool, aside = planted(tmp_path, rows, aside=8)
    assert len(aside) == 8 and len(pool) == 40 - 2 * 8
    assert not {json.dumps(r["messages"][:-1]) for r in pool} & {json.dumps(r["messages"][:-1]) for r in aside}
    assert len({json.dumps(r["messages"][:-1]) for r in aside}) == 8


def test_a_planted_pair_is_a_row_s_own_answer_over_a_faulty_one(tmp_path):
    rows = [row(number, source) for source in "ab" for number in range(16)]
    pairs = pairs_of(rows, list(Fault), 0)
    by_id = {each["id"]: each for each in rows}
    assert Counter(pair["planted"] for pair in pairs) == {str(fault): 4 for fault in Fault}
    for pair in pairs:
        assert pair["prompt"] + pair["chosen"] == by_id[pair["id"]]["messages"]
        assert pair["subtask"] == by_id[pair["id"]]["dataset"] and pair["rejected"] != pair["chosen"]


def test_pairs_of_another_kind_than_the_pool_s_are_made_when_asked_for(tmp_path, composed):
    config = typed(composed("plant=swap", "preference=planted", "preference.pairs.faults=[truncate]", "judge=none"))
    planted(tmp_path, [row(number) for number in range(60)], [Fault.swap], aside=30)
    out = tmp_path / "pairs"
    out.mkdir()
    read_preferences(out, config.preference.pairs, "planted", [Fault.truncate], tmp_path / "out")
    pairs = [*files.load(out / "target.jsonl"), *files.load(out / "test.jsonl")]
    assert {pair["planted"] for pair in pairs} == {"truncate"} and len(pairs) == 30
    assert all(pair["chosen"][0]["content"].startswith(pair["rejected"][0]["content"]) for pair in pairs)


def test_what_cannot_be_planted_is_refused_with_the_key(tmp_path):
    rows = [row(number) for number in range(4)]
    with pytest.raises(RoseError, match=r"plant.aside=4: must be fewer than the 4 rows of the pool with an answer"):
        planted(tmp_path, rows, aside=4)
    for each in rows:
        each["messages"][-1]["content"] = "Yes."
    with pytest.raises(RoseError, match=r"plant.share=0.5, plant.faults=\['truncate'\]: no row can have one"):
        planted(tmp_path, rows, [Fault.truncate], name="other")


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault not in (Fault.refuse, Fault.swap, Fault.padding)])
def test_white_space_around_an_answer_is_no_fault(fault):
    for answer in ("\n It is so. \n", "Yes.\n"):
        assert faulty(fault, answer) is None


@pytest.mark.parametrize("share", [0.1, 0.4, 0.5])
def test_many_small_sources_have_the_share_of_faults_too(tmp_path, share):
    rows = [row(number, f"source{source}") for source in range(50) for number in range(8)]
    pool, _ = planted(tmp_path, rows, share=share)
    kinds = Counter(each["planted"] for each in pool if "planted" in each)
    assert kinds.total() == share * 400 and set(kinds) == set(map(str, Fault))


def test_rows_without_a_prompt_or_of_a_source_that_no_subtask_may_be_called_are_not_set_aside(tmp_path):
    rows = [row(number, "score") for number in range(9)] + [row(number) for number in range(9)]
    rows[12]["messages"] = rows[12]["messages"][1:]
    _, aside = planted(tmp_path, rows, aside=7)
    assert {each["dataset"] for each in aside} == {"a"} and all(len(each["messages"]) == 2 for each in aside)


def test_a_useful_row_with_a_fault_is_useful_no_more(tmp_path):
    rows = [row(number) | {"useful": True} for number in range(40)]
    assert all(each["useful"] == ("planted" not in each) for each in planted(tmp_path, rows)[0])


def test_a_planted_row_s_scores_name_its_fault_and_another_s_none(tmp_path):
    rows = [{"id": f"r{n}", "dataset": "s", "messages": []} for n in range(3)]
    lines(tmp_path / "pool" / "pool.jsonl", [rows[0] | {"planted": "swap"}, rows[1] | {"control": "swap"}, rows[2]])
    table = scored(tmp_path, composed_method("longest"), planted=tmp_path / "pool")
    assert table["planted"].fillna("").tolist() == ["swap", "", ""]
    assert "planted" not in scored(tmp_path / "plain", composed_method("longest"))


def test_after_fine_tuning_planted_pairs_give_margin_accuracy_and_the_loss_on_intact_rows_kept_out(
    tmp_path, base, composed
):
    config = typed(composed("plant=swap", "preference=planted", "judge=none", "dataset.world.rows=60"))
    _, aside = planted(tmp_path, world.pool(config.dataset.world), [Fault.swap], aside=40)
    folders = {name: tmp_path / name for name in ("pairs", "tuned", "before", "after", "kept", "tokens", "losses")}
    for folder in folders.values():
        folder.mkdir()
    read_preferences(folders["pairs"], config.preference.pairs, "planted", [Fault.swap], tmp_path / "out")
    tune_on_chosen(folders["tuned"], TRAINING, LORA, NUMERICS, 128, base, folders["pairs"])
    for name, adapter, zero_shot in (("before", None, None), ("after", folders["tuned"], folders["before"])):
        evaluate(folders[name], 512, NUMERICS, 128, base, adapter, zero_shot, folders["pairs"])
    (folders["kept"] / "pool.jsonl").write_text("".join(json.dumps(each) + "\n" for each in aside))
    tokenize(folders["tokens"], 128, base, folders["kept"])
    row_losses(folders["losses"], NUMERICS, base, folders["tuned"], folders["tokens"])
    items = pandas.read_parquet(folders["after"] / "items.parquet").set_index("id")
    intact = pandas.read_parquet(folders["losses"] / "losses.parquet").set_index("id")["loss"]
    assert len(items) == 36  # nine of ten
    assert items["chosen_loss"].to_numpy() == pytest.approx(intact[items.index].to_numpy(), rel=1e-4)
    sums = [pandas.read_parquet(folders[name] / "log_probs.parquet") for name in ("after", "before")]
    after, before = (each.chosen - each.rejected for each in sums)
    metrics = json.loads((folders["after"] / "metrics.json").read_text())
    assert metrics["preference_accuracy"] == pytest.approx((after > 0).mean())
    assert metrics["log_ratio_margin"] == pytest.approx((after - before).mean())
    assert metrics["test_pairs"] == 36 and metrics["test_pairs_matched"] == items["log_ratio_margin_matched"].count()
