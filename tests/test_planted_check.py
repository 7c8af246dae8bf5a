"""What a score sees of planted faults in copies of pool rows: the sentence, its counts, the stages it takes."""

import json
import re

import pandas
import pytest

from rose.config.choices import Fault
from rose.config.compose import typed
from rose.data import files
from rose.diagnostics.planted import judged, planted_pairs
from rose.errors import RoseError
from rose.run import job


def pairs(**scores: list[float]) -> pandas.DataFrame:
    """A fault → by how much each row scores above its copy."""
    rows = [(fault, above) for fault, values in scores.items() for above in values]
    table = pandas.DataFrame(rows, columns=["subtask", "chosen_score"])
    return table.assign(rejected_score=0.0, prompt=[str(number) for number in range(len(table))])


def test_the_sentence_says_what_is_seen_what_is_preferred_and_what_cannot_be_told():
    finding = judged(pairs(swap=[1.0] * 16, refuse=[-1.0] * 16, padding=[1.0, -1.0] * 8))
    assert "It sees swap (16 of 16)." in finding.sentence
    assert "It prefers the faulty answer of refuse (0 of 16)." in finding.sentence
    assert "It cannot be told from chance on padding (8 of 16)." in finding.sentence
    assert finding.value == 0.5 and finding.suspicious


def test_a_score_that_sees_every_fault_is_not_suspicious():
    finding = judged(pairs(swap=[1.0] * 16, refuse=[2.0] * 15 + [-1.0]))
    assert "It sees refuse (15 of 16), swap (16 of 16)." in finding.sentence
    assert not finding.suspicious and "cannot" not in finding.sentence


def test_ties_tell_nothing():
    finding = judged(pairs(swap=[0.0] * 16))
    assert finding.value == 0.5 and "It cannot be told from chance on swap (0 of 16)." in finding.sentence
    assert finding.details["swap"]["p"] == 1.0


def test_p_is_a_sign_test_s_corrected_over_the_faults():
    # two-sided: 2·(1 + 8)/2⁸ for 7 of 8, 2/2⁸ for 8 of 8; Benjamini and Hochberg: ×2/1 for the least, ×1 for the other
    details = judged(pairs(swap=[1.0] * 8, refuse=[1.0] * 7 + [-1.0])).details
    assert details["swap"]["p"] == pytest.approx(2 / 256 * 2)
    assert details["refuse"]["p"] == pytest.approx(18 / 256)


def test_pairs_are_as_many_of_each_fault_and_none_of_a_planted_row(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    answer = "Row {} has 2 answers with words enough to be cut, shuffled and said again"
    rows = [
        {
            "id": str(n),
            "dataset": "a",
            "messages": [{"role": "user", "content": f"Q{n}"}, {"role": "assistant", "content": answer.format(n)}],
        }
        for n in range(64)
    ]
    rows[5]["planted"] = "swap"
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    planted_pairs(out, list(Fault), 3, 0, tmp_path)
    made = pandas.DataFrame(files.load(out / "test.jsonl"))
    assert made.subtask.value_counts().to_dict() == {str(fault): 3 for fault in Fault}
    assert "5" not in set(made["id"]) and made["id"].is_unique


def test_a_pool_without_any_answer_that_can_be_faulty_is_refused(tmp_path):
    row = {
        "id": "1",
        "dataset": "a",
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": " "}],
    }
    (tmp_path / "pool.jsonl").write_text(json.dumps(row))
    with pytest.raises(RoseError, match="diagnostics.planted: none of the pool's 1 rows can have a fault"):
        planted_pairs(tmp_path, list(Fault), 3, 0, tmp_path)


@pytest.mark.parametrize("method", ["rose_whitened", "perplexity_low", "hidden_contrast", "random"])
def test_until_planted_selects_nothing_and_leaves_its_finding(composed, tmp_path, method):
    overrides = [f"method={method}", "until=planted", "diagnostics.planted_pairs=2", "dataset.world.rows=40"]
    directory = tmp_path / "runs" / method
    job.run(typed(composed(*overrides, *SMALL, f"outputs={tmp_path}")), directory, "test")
    finding = json.loads((directory / "planted.json").read_text())
    stages = json.loads((directory / "stages.json").read_text())
    assert not {"scores", "selection", "finetune"} & set(stages)
    assert (finding["value"] is None) == (method == "random")


def test_the_finding_is_among_the_diagnostics_when_asked_for_and_no_planted_row_is_selected(composed, tmp_path):
    overrides = ["method=longest", "until=diagnostics", "diagnostics.planted=true", "diagnostics.planted_pairs=4"]
    directory = tmp_path / "runs" / "longest"
    job.run(typed(composed(*overrides, "dataset.world.rows=60", *SMALL, f"outputs={tmp_path}")), directory, "test")
    findings = {finding["name"]: finding for finding in json.loads((directory / "diagnostics.json").read_text())}
    # a cut makes an answer shorter: the longest first must see it; shuffled words are as many as before
    details, sentence = findings["planted"]["details"], findings["planted"]["sentence"]
    assert details["truncate"]["lost"] == 0
    assert details["shuffle"]["won"] == details["shuffle"]["lost"] == 0
    assert re.search(r"It cannot be told from chance on [^.]*shuffle \(0 of 4\)", sentence)
    assert set(findings["planted"]["details"]) <= {"swap", "truncate", "shuffle", "repeat"}  # words that it knows
    assert not any("planted" in row for row in files.load(directory / "selected.jsonl"))


SMALL = ["model.base.pretraining.conversations=64", "warmup.epochs=1", "tracking=none", "judge=none"]
