"""How far a long stage is: a line a minute where there is no terminal, with rows, rate and time left."""

import logging
import sys

import pytest

from rose import progress
from rose.progress import Pace, track
from rose.training.supervised import Bar


@pytest.fixture
def clock(monkeypatch, caplog):
    """clock(seconds) passes so much time."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    caplog.set_level(logging.INFO)

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def test_a_line_a_minute_says_rows_rate_and_time_left(clock, caplog):
    batches = [[0] * 10] * 100  # of 10 rows, 20 seconds each
    for _ in track(batches, "features checkpoint-1"):
        clock(20)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 33  # of 2000 seconds
    assert lines[0] == "features checkpoint-1: 30 of 1,000 rows, 2 s each, about 32 min left"
    assert lines[-1] == "features checkpoint-1: 990 of 1,000 rows, 2 s each, less than a minute left"


def test_what_takes_less_than_a_minute_says_nothing(clock, caplog):
    assert list(track(iter("abc"), "tokens", 3)) == ["a", "b", "c"]
    for _ in track([[1, 2], [3]], "answers"):
        clock(29)
    assert not caplog.records


def test_what_went_on_from_a_checkpoint_does_not_count_as_done_in_no_time(clock, caplog):
    pace = Pace("warmup", 4000, "steps", done=1000)
    clock(100)
    pace.step(50)
    (record,) = caplog.records
    assert record.getMessage() == "warmup: 1,050 of 4,000 steps, 2 s each, about 1 h 38 min left"


def test_replies_are_counted_one_by_one(clock, caplog):
    for _ in track(iter(range(4)), "judge m", 4, "replies"):
        clock(60)
    assert caplog.records[1].getMessage() == "judge m: 2 of 4 replies, 60 s each, about 2 min left"


def test_a_terminal_has_a_bar_and_no_lines(clock, caplog, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(track([[1]], "answers")) == [[1]]
    assert not caplog.records and "answers" in capsys.readouterr().err


def test_of_jobs_that_share_a_terminal_none_draws_a_bar(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert progress.on_terminal()
    monkeypatch.setattr(progress.multiprocessing, "parent_process", lambda: object())
    assert not progress.on_terminal()


def test_trainers_bar_has_the_loss_on_it_and_writes_no_dictionary(capsys):
    class State:
        is_world_process_zero, max_steps, global_step = True, 2, 0

    bar, state = Bar(), State()
    bar.on_train_begin(None, state, None)
    state.global_step = 1
    bar.on_log(None, state, None, {"loss": 1.25, "grad_norm": 3.0})
    bar.on_step_end(None, state, None)
    bar.on_train_end(None, state, None)
    said = capsys.readouterr()
    assert "loss 1.25" in said.err and "{" not in said.out + said.err
