"""What a report says of where it comes from and of what the models said, and how its numbers are shown."""

import json
from pathlib import Path

import numpy
import pytest
import torch
from hydra import initialize_config_dir
from report_jobs import row_of, text_of, write_items, write_job, write_selection

from rose.config import CONF
from rose.config.compose import sweep
from rose.report.answers import read_answers
from rose.report.comparison import compare
from rose.report.drawing import styles
from rose.report.figures import cost_against_quality, curve
from rose.report.headlines import is_it_real, who_won
from rose.report.metrics import HEADLINE, MORE, meaning
from rose.report.origin import links, origin, question
from rose.report.report import write_report
from rose.report.results import read_jobs
from rose.report.statistics import Estimate
from rose.report.suspicions import ArmFinding, read_findings, shared
from rose.report.text import interval
from rose.report.training import training
from rose.run import provenance

MADE = {
    "began": "2026-11-29T14:00:00+00:00",
    "ended": "2026-11-29T14:30:59+00:00",
    "commit": "0123456789ab-dirty",
    "versions": {"rose-select": "0.2.0", "torch": "2.13.0", "peft": "0.21.2"},
    "machine": {"system": "Linux x86_64", "cores": 2, "memory": 8 * 2**30, "gpus": ["A", "A"]},
}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A sweep that asked for rose before less; less began before midnight, and ended on the next day."""
    for method in ("less", "rose"):
        write_job(tmp_path / method, {"reward": 0.5, "zero_shot/reward": 0.4}, method=method)
        (tmp_path / method / "provenance.json").write_text(json.dumps(MADE))
    late = MADE | {"began": "2026-11-29T23:50:00+00:00", "ended": "2026-11-30T00:10:00+00:00"}
    (tmp_path / "less" / "provenance.json").write_text(json.dumps(late))
    asked = {"jobs": ["rose", "less"], "question": "Is <it> so?", "command": "rose -m method=rose,less"}
    (tmp_path / "sweep.json").write_text(json.dumps(asked))
    return tmp_path


def test_a_report_has_its_question_at_the_head_and_what_made_it_at_the_foot(made: Path):
    said = origin(made, read_jobs(made))
    assert said["Command"] == "rose -m method=rose,less"
    assert said["Run"] == "2026-11-29 14:00 to 2026-11-30 00:10 UTC"
    assert said["Code"] == "Rose 0.2.0, commit 0123456789ab, with changes"
    assert said["Libraries"] == "peft 0.21.2, torch 2.13.0"
    assert said["Machine"] == "Linux x86_64, 2 cores, 8 GiB of memory, 2 × A"
    assert said["Seeds"].startswith("One seed")
    page = write_report(made).path.read_text()
    head, foot = page[: page.index("</header>")], page[page.index("<footer>") :]
    assert "Is &lt;it&gt; so?" in head and "Is <it> so?" in (made / "report.md").read_text()
    assert "<code>rose -m method=rose,less</code>" in foot and "commit 0123456789ab, with changes" in foot


def test_jobs_of_an_older_version_do_not_say_what_made_them(tmp_path: Path):
    write_job(tmp_path / "rose", {"reward": 0.5})
    said = origin(tmp_path, read_jobs(tmp_path))
    assert question(tmp_path) == "" and all("not written down" in said[name] for name in ("Command", "Run", "Machine"))
    alone = origin(tmp_path / "rose", read_jobs(tmp_path / "rose"))
    assert alone["Command"] == "rose method=rose model=tiny selection.ratio=0.05 seed=0"


def test_what_a_job_writes_of_itself_is_what_a_report_reads(tmp_path: Path):
    write_job(tmp_path / "rose", {"reward": 0.5})
    (tmp_path / "rose" / "provenance.json").write_text(json.dumps(provenance.of_job(provenance.begun())))
    said = origin(tmp_path, read_jobs(tmp_path))
    assert said["Run"].endswith(" UTC") and "torch" in said["Libraries"] and " core" in said["Machine"]
    assert torch.backends.cpu.get_cpu_capability() in said["Machine"]


@pytest.mark.parametrize(
    "arguments, asked", [(["experiments=demo"], "Does selection by reward beat"), (["seed=1,2"], "")]
)
def test_a_sweep_s_question_is_its_experiment_s_first_line(arguments: list[str], asked: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        found = provenance.question(sweep(arguments))
    assert found.startswith(asked) and bool(found) is bool(asked)


def test_jobs_are_listed_in_the_sweep_s_order_with_the_files_that_they_have(made: Path):
    (made / "rose" / "rose.log").write_text("")
    (made / "rose" / "adapter").mkdir()
    rose, less = links(made, read_jobs(made))
    assert (rose.name, rose.address, rose.state) == ("rose", "rose/", "done")
    assert rose.files == {"log": "rose/rose.log", "adapter": "rose/adapter", "metrics.json": "rose/metrics.json"}
    assert list(less.files) == ["metrics.json"]
    assert links(made / "rose", read_jobs(made / "rose"))[0].files["log"] == "rose.log"


def test_methods_stand_in_the_order_of_the_sweep_the_base_model_first(made: Path):
    assert [arm.method for arm in compare(read_jobs(made)).arms] == ["zero_shot", "rose", "less"]
    (made / "sweep.json").unlink()
    assert [arm.method for arm in compare(read_jobs(made)).arms] == ["zero_shot", "less", "rose"]


@pytest.mark.parametrize(
    ("three", "shown"),
    [
        ((12.0, 9.435, 14.5), "12.0 (9.4–14.5)"),
        ((0.9, -5.1234, 12.3), "0.9 (−5.1 to 12.3)"),
        ((10.83, 10.81, 10.85), "10.83 (10.81–10.85)"),
        ((950.0, 880.0, 1020.0), "950 (880–1,020)"),
        ((0.5, 0.25, 0.75), "0.500 (0.250–0.750)"),
        ((-0.0001, -0.0002, 0.4), "0.000 (0.000 to 0.400)"),
    ],
)
def test_mean_and_interval_have_equally_many_decimals_and_enough(three: tuple[float, float, float], shown: str):
    assert interval(Estimate(3, 10, *three)) == shown


def beside_base(folder: Path, base: float, **rewards: float) -> list[str]:
    for seed in range(2):
        for method, reward in rewards.items():
            metrics = {"reward": reward + 0.2 * seed, "zero_shot/reward": base + 0.2 * seed}
            write_job(folder / f"{method}-{seed}", metrics, method=method, seed=seed)
    return who_won(compare(read_jobs(folder)))


def test_nobody_wins_who_is_not_ahead_of_the_base_model(tmp_path: Path):
    (tied,) = beside_base(tmp_path / "tied", 0.35, rose=0.35, random=0.25)
    assert tied.startswith("No method is ahead of the base model; two seeds cannot tell: zero_shot and rose share")
    assert "0.450" in tied and "before random with 0.350" in tied and "wins" not in tied
    (behind,) = beside_base(tmp_path / "behind", 0.4, rose=0.35, random=0.25)
    assert behind.startswith("No method is ahead of the base model; two seeds cannot tell: zero_shot has the highest")
    assert is_it_real(compare(read_jobs(tmp_path / "behind")))[0].startswith("rose, better than random")
    (level,) = beside_base(tmp_path / "level", 0.1, rose=0.35, less=0.35, random=0.25)
    assert level.startswith("Nobody leads; two seeds cannot tell: less and rose share the highest reward")


def test_what_is_found_of_all_methods_alike_is_said_once():
    leak, mix = ("leakage", (0.5,), "warn", "leaks"), ("mix", (0.1,), "pass", "mixed")
    found = [ArmFinding(name, arm, *rest, ()) for name, *rest in (mix, leak) for arm in ("rose", "less", "random")]
    found[0] = ArmFinding("mix", "rose", (0.2,), "pass", "mixed otherwise", ())
    assert [(row.name, row.arm, row.values) for row in shared(found)] == [
        ("leakage", "all methods", (0.5,)),
        ("mix", "rose", (0.2,)),
        ("mix", "less, random", (0.1,)),
    ]


def test_a_sentence_s_minus_is_one_and_a_range_s_hyphen_stays(tmp_path: Path):
    write_job(tmp_path / "rose", {"reward": 0.5})
    entry = {"name": "x", "state": "pass", "sentence": "correlation is -0.63 of checkpoint-1, 3-4"}
    (tmp_path / "rose" / "diagnostics.json").write_text(json.dumps([entry]))
    jobs = read_jobs(tmp_path)
    (finding,) = read_findings(compare(jobs).arms, jobs, [])
    assert finding.sentence == "correlation is −0.63 of checkpoint-1, 3-4"


def write_answers(outputs: Path, job: Path, stage: str, answers: list[str], prefix: str = "prompt") -> None:
    folder = outputs / "stages" / "answers" / f"{job.name}-{stage}"
    folder.mkdir(parents=True)
    rows = [
        {
            "id": str(i),
            "prompt": [{"role": "user", "content": f"{prefix} {i}"}],
            "answer": text,
            "reference": f"best {i}",
        }
        for i, text in enumerate(answers)
    ]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stages = json.loads((job / "stages.json").read_text())
    (job / "stages.json").write_text(json.dumps(stages | {stage: {"dir": f"stages/answers/{folder.name}"}}))


def test_answers_of_all_who_were_asked_the_same_stand_side_by_side(tmp_path: Path):
    sweep = tmp_path / "sweeps" / "demo"
    for method, prefix in (("rose", "prompt"), ("less", "prompt"), ("other", "question")):
        write_job(sweep / method, {"reward": 0.5}, method=method)
        write_answers(tmp_path, sweep / method, "answers", [f"{method} <b>{i}" for i in range(28)], prefix)
    write_answers(tmp_path, sweep / "rose", "zero_shot_answers", [f"base {i}" for i in range(28)])
    (sweep / "sweep.json").write_text(json.dumps({"jobs": ["rose", "less", "other"]}))
    jobs = read_jobs(sweep)
    found = read_answers(compare(jobs), jobs)
    assert [prompt[0]["content"] for prompt, _ in found.prompts] == [f"prompt {3 * i}" for i in range(10)]
    assert list(found.prompts[1][1].items()) == [
        ("chosen", "best 3"),
        ("zero_shot", "base 3"),
        ("rose", "rose <b>3"),
        ("less", "less <b>3"),
    ]
    assert found.left_out == 1
    page = write_report(sweep).path.read_text()
    assert "rose &lt;b&gt;27" in page and "1 further methods are left out" in page


def test_a_training_curve_is_drawn_once_for_all_who_share_it(tmp_path: Path):
    for method in ("rose", "less", "random"):
        write_job(tmp_path / method, {"reward": 0.5}, method=method)
        own = {"finetune": {"dir": f"finetune/{method}"}}
        shared = {} if method == "random" else {"warmup": {"dir": "warmup/one"}}
        (tmp_path / method / "stages.json").write_text(json.dumps(own | shared))
        steps = [{"stage": s, "step": n, "loss": 3.0 - n} for s in (*own, *shared) for n in (1, 2)]
        (tmp_path / method / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    jobs, problems = read_jobs(tmp_path), []
    arms = compare(jobs).arms
    warmup, finetune = training(arms, jobs, problems)
    (line,) = warmup.figure.axes[0].get_lines()
    assert line.get_label() == "less and rose" and line.get_xydata().tolist() == [[1.0, 2.0], [2.0, 1.0]]
    assert [line.get_label() for line in finetune.figure.axes[0].get_lines()] == ["less", "random", "rose"]
    assert [line.get_color() for line in finetune.figure.axes[0].get_lines()] == [
        styles(arms)[a.label]["color"] for a in arms
    ]
    assert (warmup.name, warmup.folded, problems) == ("training_warmup", True, [])
    (tmp_path / "rose" / "metrics.jsonl").write_text("[1]\n")
    list(training(arms, jobs, problems))
    assert len(problems) == 1 and problems[0].startswith("rose/metrics.jsonl cannot be read")


def test_what_stands_aside_in_a_swept_figure_is_all_in_sight(tmp_path: Path):
    for method, reward in (("random", 1), ("rose", 3)):
        for ratio in (0.05, 0.1, 1.0):
            for seed in range(2):
                metrics = {"reward": reward + ratio + seed}
                write_job(tmp_path / f"{method}-{ratio}-{seed}", metrics, method=method, ratio=ratio, seed=seed)
    comparison = compare(read_jobs(tmp_path))
    drawing = curve(comparison, "reward", "ratio")
    assert drawing
    low, high = drawing.figure.axes[0].get_ylim()
    estimates = comparison.estimates["reward"].values()
    least, most = min(e.low for e in estimates), max(e.high for e in estimates)
    assert low < least and most < high and (high - low) < 1.3 * (most - least)
    assert drawing.figure.axes[0].get_xlim()[0] == pytest.approx(0.05, rel=0.2)


def test_names_in_the_cost_figure_stand_in_its_legend_off_the_error_bars(tmp_path: Path):
    for method, seconds in (("random", 1.0), ("rose", 3.0)):
        write_job(tmp_path / method, {"reward": seconds}, method=method)
        stages = {"finetune": {"dir": method, "seconds": seconds}, "evaluation": {"dir": f"e/{method}"}}
        (tmp_path / method / "stages.json").write_text(json.dumps(stages))
    drawing = cost_against_quality(compare(read_jobs(tmp_path)), "reward")
    assert drawing
    axes = drawing.figure.axes[0]
    legend = axes.get_legend()
    assert legend and [text.get_text() for text in legend.get_texts()] == ["random", "rose"]
    assert not axes.texts


def test_every_column_of_the_table_has_a_meaning():
    assert all(meaning(f"{name}gsm8k" if name.endswith("_") else name) for name in (*HEADLINE, *MORE))
    assert meaning("auc_swap") != meaning("auc") and meaning("never_heard_of") == ""


def test_the_page_names_the_rows_that_nobody_saw_and_colours_lengths_by_method(tmp_path: Path):
    sweep = tmp_path / "sweeps" / "demo"
    pool = [
        {"id": f"r{i}", "dataset": "d", "messages": [{"role": "user", "content": "x" * (i + 1)}]} for i in range(20)
    ]
    for ratio in (0.1, 0.2):
        for method in ("rose", "less"):
            job = sweep / f"{method}-{ratio}"
            write_job(job, {"reward": 0.5}, method=method, ratio=ratio)
            write_items(job / "items.parquet", {"reward": numpy.linspace(0, 1, 10).tolist()})
            write_selection(tmp_path, job, pool, {row["id"]: float(i) for i, row in enumerate(pool)}, 4)
    write_report(sweep)
    svg = (sweep / "figures" / "lengths.svg").read_text()
    assert all(color in svg for color in ("#d55e00", "#0072b2"))  # rose's and LESS's own
    assert row_of(text_of(sweep), "rose", "0.1")
