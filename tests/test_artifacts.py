"""The store's promises: exists = complete, one computation a key, failures never cached."""

import errno
import importlib.metadata
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from stage_processes import FORK, resuming, start, wait_for
from waiting import until

from rose.stages import build as building
from rose.stages import checksums, disk, inventory, unfinished
from rose.stages.build import build
from rose.stages.graph import Node, plan, stage


@dataclass
class Settings:
    value: int


@stage("count", version=1)
def count(out: Path, settings: Settings) -> None:
    (out / "value").write_text(str(settings.value))


@stage("double", version=1)
def double(out: Path, upstream: Path) -> None:
    (out / "value").write_text(str(2 * int((upstream / "value").read_text())))


@stage("slow", version=1)
def slow(out: Path, marks: str) -> None:
    """Leaves one mark a computation outside, to be counted; lasts until there is a file `go` beside the marks."""
    (Path(marks) / f"{os.getpid()}-{time.monotonic_ns()}").touch()
    (out / "first").write_text("x")
    wait_for(Path(marks).with_name("go"))
    (out / "last").write_text("x")


@stage("failing", version=1)
def failing(out: Path, settings: Settings) -> None:
    (out / "half").write_text("x")
    raise ValueError("no")


def no_leftovers(outputs: Path) -> bool:
    return not list((outputs / "stages").glob("*/.*.part"))


def test_a_stage_is_computed_once_and_then_reused(tmp_path):
    node = Node(double, Node(count, Settings(21), label="a"))
    heard = []
    for _ in range(2):
        path = build(node, tmp_path, lambda node, built: heard.append((node.stage.name, built.state)))
    assert (path / "value").read_text() == "42"
    assert heard == [("count", "computed"), ("double", "computed"), ("count", "reused"), ("double", "reused")]


def test_the_name_follows_from_values_version_and_upstream_alone(tmp_path):
    assert Node(count, Settings(1)).name == Node(count, Settings(1)).name
    assert Node(count, Settings(1)).name != Node(count, Settings(2)).name
    assert Node(double, Node(count, Settings(1))).name != Node(double, Node(count, Settings(2))).name
    again = stage("count", version=2)(lambda out, settings: None)
    assert Node(again, Settings(1)).name != Node(count, Settings(1)).name


def test_inputs_json_holds_the_whole_key_and_the_versions_that_are_no_part_of_it(tmp_path):
    node = Node(double, Node(count, Settings(3), label="a"))
    path = build(node, tmp_path)
    key = json.loads((path / "inputs.json").read_text())
    assert key.pop("versions") == building.installed()
    assert building.installed()["torch"] == importlib.metadata.version("torch")
    assert key == node.key == {"stage": "double", "version": 1, "inputs": {"upstream": node.upstream[0].name}}
    assert node.name.startswith("double/a-")


def test_what_other_versions_made_is_read_and_said_once(tmp_path, monkeypatch, caplog):
    nodes = [Node(double, Node(count, Settings(value))) for value in range(4)]
    older = build(nodes[0].upstream[0], tmp_path) / "inputs.json"
    record = json.loads(older.read_text())
    del record["versions"]  # as artifacts were before
    write_published(older, record)
    monkeypatch.setattr(building, "installed", lambda: {"torch": "1.0.0", "rose": "0.1.0"})
    for node in nodes[1:3]:
        build(node.upstream[0], tmp_path)
    monkeypatch.setattr(building, "installed", lambda: {"torch": "2.0.0", "rose": "0.1.0", "peft": "9.9.9"})
    for node in nodes:
        build(node, tmp_path)
    assert caplog.messages == ["a stage reads count, made with torch 1.0.0 (now 2.0.0)"]
    assert inventory.artifacts(tmp_path)  # reads inputs.json too


def test_what_is_being_written_has_a_name_that_gc_knows(tmp_path):
    names = []

    def write(part: Path) -> None:
        names.append(part.name)
        part.touch()

    disk.replace(tmp_path / "metrics.json", write)
    assert disk.TEMPORARY.fullmatch(names[0]) and not disk.TEMPORARY.fullmatch("metrics.json")


def write_published(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))
    checksums.record(path.parent)


def test_what_is_upstream_of_a_finished_stage_is_not_needed(tmp_path):
    node = Node(double, Node(count, Settings(4)))
    build(node, tmp_path)
    node.upstream[0].path(tmp_path).rename(tmp_path / "elsewhere")
    assert [state for _, state in plan(node, tmp_path)] == ["gone", "ready"]
    build(node, tmp_path)
    assert not node.upstream[0].path(tmp_path).exists()


def test_a_failure_leaves_nothing_and_is_not_cached(tmp_path):
    node = Node(failing, Settings(1))
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            build(node, tmp_path)
    assert not node.path(tmp_path).exists()
    assert no_leftovers(tmp_path)


def test_eight_racing_processes_compute_one_stage_once(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    ready = FORK.Barrier(9)
    processes = [start(Node(slow, str(marks)), tmp_path / "outputs", first=ready.wait) for _ in range(8)]
    ready.wait()
    until(lambda: list(marks.iterdir()))
    (tmp_path / "go").touch()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 8
    assert len(list(marks.iterdir())) == 1
    assert no_leftovers(tmp_path / "outputs")


def killed_while_computing(node: Node, outputs: Path) -> None:
    process = start(node, outputs)
    until(lambda: [path for path in (outputs / "stages").glob("*/.*.part/*") if path.stat().st_size], process)
    process.kill()
    process.join()


def test_a_killed_writer_publishes_nothing_and_the_next_one_cleans_up(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    node = Node(slow, str(marks))
    killed_while_computing(node, tmp_path / "outputs")
    assert not node.path(tmp_path / "outputs").exists()
    (tmp_path / "go").touch()
    path = build(node, tmp_path / "outputs")
    assert {"first", "last"} <= {file.name for file in path.iterdir()}
    assert no_leftovers(tmp_path / "outputs")


def test_a_resumable_stage_finds_what_a_killed_process_left(tmp_path):
    node = Node(resuming, str(tmp_path))
    killed_while_computing(node, tmp_path / "outputs")
    (tmp_path / "go").touch()
    path = build(node, tmp_path / "outputs")
    assert (path / "lines").read_text() == "begun\nbegun\n"
    assert no_leftovers(tmp_path / "outputs")


def test_what_another_published_unseen_is_reused(tmp_path, monkeypatch):
    """A network file system may say for a while that it is not there, until its folder is listed."""
    node = Node(count, Settings(1))
    target, seen = node.path(tmp_path), []
    build(Node(count, Settings(1)), tmp_path)
    exists, listdir = Path.exists, os.listdir
    monkeypatch.setattr(Path, "exists", lambda path: (path != target or path.parent in seen) and exists(path))
    monkeypatch.setattr(os, "listdir", lambda path: seen.append(path) or listdir(path))
    heard = []
    build(node, tmp_path, lambda node, built: heard.append(built.state))
    assert heard == ["reused"] and no_leftovers(tmp_path)


def test_what_another_publishes_while_leftovers_are_taken_over_is_not_computed_again(tmp_path, monkeypatch):
    node, private = Node(count, Settings(1)), unfinished.private

    def late(target: Path, resumable: bool) -> Path:
        private(target, resumable).rename(target)
        (target / "cost.json").write_text("{}")
        return private(target, resumable)

    monkeypatch.setattr(unfinished, "private", late)
    heard = []
    path = build(node, tmp_path, lambda node, built: heard.append(built.state))
    assert heard == ["reused"] and not (path / "value").exists() and no_leftovers(tmp_path)


def test_a_publication_whose_answer_was_lost_counts(tmp_path, monkeypatch):
    rename = Path.rename

    def lost(path: Path, target: Path) -> None:
        rename(path, target)
        raise FileNotFoundError(2, "No such file or directory", str(path))  # what is said to the second attempt

    monkeypatch.setattr(Path, "rename", lost)
    assert (build(Node(count, Settings(1)), tmp_path) / "value").read_text() == "1"


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (OSError(errno.EIO, "Input/output error"), True),
        (KeyboardInterrupt(), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), False),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), False),
        (OSError("not a checkpoint"), False),
        (ValueError("no"), False),
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), True),
    ],
)
def test_work_outlives_what_says_nothing_against_it(tmp_path, monkeypatch, error, kept):
    (tmp_path / "go").touch()
    node, sync = Node(resuming, str(tmp_path)), disk.sync

    def fail(part: Path) -> None:
        raise error

    monkeypatch.setattr(disk, "sync", fail)
    with pytest.raises(type(error)):
        build(node, tmp_path)
    assert no_leftovers(tmp_path) is not kept
    monkeypatch.setattr(disk, "sync", sync)
    assert (build(node, tmp_path) / "lines").read_text() == "begun\n" * (1 + kept)
    assert no_leftovers(tmp_path)
