"""rose.stages: damage is found before it is read, and nothing that a job uses is ever removed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rose.errors import RoseError
from rose.stages import __main__ as store
from rose.stages import checksums, inventory, leases
from rose.stages.build import build
from rose.stages.graph import Node, stage


@stage("first", version=1)
def first(out: Path, value: int) -> None:
    (out / "sub").mkdir()
    (out / "sub" / "value").write_text(str(value) * 1000)


@stage("second", version=1)
def second(out: Path, upstream: Path) -> None:
    (out / "value").write_text((upstream / "sub" / "value").read_text()[:1])


@stage("reader", version=1)
def reader(out: Path, upstream: Path) -> None:
    json.loads((upstream / "sub" / "value").read_text() + "]")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def job(outputs: Path, name: str, *used: Node, running: tuple[Node, ...] = ()) -> Path:
    folder = outputs / name
    folder.mkdir(parents=True)
    status = {"state": "running" if running else "done", "error": None}
    if running:
        (folder / "claims.json").write_text(json.dumps([node.name for node in running]))
    (folder / "status.json").write_text(json.dumps(status))
    stages = {node.stage.name: {"dir": f"stages/{node.name}", "state": "computed"} for node in used}
    (folder / "stages.json").write_text(json.dumps(stages))
    return folder


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """command("gc", "--yes") -> (exit code, what was printed)"""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["rose.stages", "--outputs", str(tmp_path), *arguments])
        try:
            code, error = store.main(), ""
        except SystemExit as ended:
            code, error = 1, f"{ended.code}\n"
        said = capsys.readouterr()
        return code, said.out + said.err + error

    return run


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_checksum_is_xxh3_of_the_bytes(tmp_path):
    (tmp_path / "empty").touch()
    assert checksums.checksum(tmp_path / "empty") == "99aa06d3014798d86001c324468d497f"  # xxHash's own test vector


@pytest.mark.parametrize(
    ("harm", "word"), [(truncate, "999 bytes, published with 1000"), (flip, "changed"), (Path.unlink, "missing")]
)
def test_verify_finds_and_removes_what_is_damaged_and_the_next_run_mends_it(tmp_path, command, harm, word):
    nodes = [Node(first, value) for value in (1, 2)]
    paths = [build(node, tmp_path) for node in nodes]
    assert command("verify") == (0, "2 artifacts, 0 damaged\n")
    harm(paths[0] / "sub" / "value")
    code, said = command("verify")
    assert code == 1 and f"{nodes[0].name}: sub/value: " in said and word in said and nodes[1].name not in said
    assert command("verify", nodes[1].name)[0] == 0
    assert command("verify", "--remove")[0] == 0
    assert [path.exists() for path in paths] == [False, True]
    build(nodes[0], tmp_path)
    assert command("verify")[0] == 0


@pytest.mark.parametrize("harm", [truncate, flip, Path.unlink])
def test_nothing_is_computed_from_a_damaged_artifact_and_the_remedy_is_said(tmp_path, harm):
    node = Node(first, 1)
    harm(build(node, tmp_path) / "sub" / "value")
    with pytest.raises(RoseError, match=f"damaged .*verify --remove {node.name}") as error:
        build(Node(second, node), tmp_path)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "stages" / "second").glob("*"))


def test_a_torn_artifact_is_not_reused(tmp_path):
    node = Node(first, 1)
    truncate(build(node, tmp_path) / "sub" / "value")
    with pytest.raises(RoseError, match="damaged"):
        build(node, tmp_path)


def test_what_fails_on_an_artifact_too_large_to_read_twice_is_blamed_on_its_damage(tmp_path, monkeypatch):
    monkeypatch.setattr(checksums, "CHECKED_BYTES", 10)
    node = Node(first, 1)
    path = build(node, tmp_path)
    with pytest.raises(json.JSONDecodeError):
        build(Node(reader, node), tmp_path)  # whole, so the stage itself is to blame
    flip(path / "sub" / "value")
    with pytest.raises(RoseError, match=r"sub/value: contents have changed.*verify --remove"):
        build(Node(reader, node), tmp_path)


def test_checksums_that_are_damaged_themselves_are_damage_and_older_artifacts_have_none(tmp_path, command):
    path = build(Node(first, 1), tmp_path)
    truncate(path / "checksums.json")
    assert command("verify")[0] in (0, 1)
    (path / "checksums.json").write_text('{"a": ')
    assert command("verify") == (1, f"first/{path.name}: checksums.json: cannot be read\n1 artifacts, 1 damaged\n")
    (path / "checksums.json").unlink()
    assert command("verify") == (0, "1 artifacts, 0 damaged, 1 without recorded checksums\n")


def test_gc_removes_orphans_and_keeps_what_jobs_use_will_use_or_rest_on(tmp_path, command):
    nodes = {name: Node(first, number) for number, name in enumerate(("upstream", "running", "elsewhere", "orphan"))}
    used = Node(second, nodes["upstream"])
    paths = {name: build(node, tmp_path) for name, node in nodes.items()} | {"used": build(used, tmp_path)}
    job(tmp_path, "sweeps/demo/a", used)  # names the second stage alone
    job(tmp_path, "runs/b", running=(nodes["running"],))
    away = job(tmp_path.with_name(f"{tmp_path.name}-away"), "c", nodes["elsewhere"])
    (tmp_path / "stages" / ".jobs").mkdir()
    (tmp_path / "stages" / ".jobs" / "1").write_text(str(away))

    code, said = command("gc")
    assert code == 0 and nodes["orphan"].name in said and "nothing was removed" in said and "1 entries" in said
    assert all(path.exists() for path in paths.values())
    assert command("gc", "--yes")[0] == 0
    assert {name for name, path in paths.items() if not path.exists()} == {"orphan"}

    shutil.rmtree(away)
    assert nodes["elsewhere"].name in command("gc")[1]
    listed = {line.split()[0]: line for line in command("ls")[1].splitlines()}
    assert listed[used.name].endswith("sweeps/demo (1)")
    assert listed[nodes["upstream"].name].endswith("what was made from it")
    assert listed[nodes["elsewhere"].name].endswith("nobody")


def test_gc_removes_what_dead_processes_left_and_leaves_the_living_alone(tmp_path, command):
    node = Node(first, 1)
    path = build(node, tmp_path)
    job(tmp_path, "runs/a", node)
    host = leases.host()
    parts = {
        pid: path.with_name(f".{path.name}.{host}.{pid}.-abcdef.part") for pid in (dead_process(), os.getpid(), "other")
    }
    parts["other"] = path.with_name(f".{path.name}.another.host-1.1.abcdef.part")
    for part in parts.values():
        part.mkdir()
        (part / "half").write_text("x")
    dead, alive, other = parts.values()
    command("gc", "--yes")
    assert (dead.exists(), alive.exists(), other.exists()) == (False, True, True)
    for left in (other, other / "half"):
        os.utime(left, (0, 0))
    command("gc", "--yes")
    assert (alive.exists(), other.exists(), path.exists()) == (True, False, True)


def test_gc_leaves_what_another_host_writes_nothing_into_as_long_as_its_lease_is_touched(
    tmp_path, command, monkeypatch
):
    target = build(Node(first, 1), tmp_path)
    part = target.with_name(f".{target.name}.another.host-1.1.5-abcdef.part")
    part.mkdir()
    os.utime(part, (0, 0))
    marker = leases.lease(target).marker
    marker.write_text("another.host-1 1 5 token")
    monkeypatch.setattr("time.time", lambda: 4e9)  # this host's clock is decades ahead of the file server's
    command("gc", "--yes")
    assert part.exists()
    os.utime(marker, (1e9, 1e9))
    command("gc", "--yes")
    assert not part.exists()


def test_gc_leaves_what_a_job_that_was_stopped_in_order_will_go_on_from(tmp_path, command):
    used, unused = Node(first, 1), Node(first, 2)
    build(Node(first, 3), tmp_path)
    job(tmp_path, "runs/a", running=(used,))
    parts = [
        node.path(tmp_path).with_name(f".{node.path(tmp_path).name}.released.0.abcdef.part") for node in (used, unused)
    ]
    for part in parts:
        part.mkdir()
    command("gc", "--yes")
    assert [part.exists() for part in parts] == [True, False]


def test_an_artifact_that_a_job_claims_while_gc_runs_goes_back(tmp_path, monkeypatch):
    node = Node(first, 1)
    path = build(node, tmp_path)
    real = inventory.set_aside

    def set_aside(outputs, found):  # after it was found to be garbage
        job(tmp_path, "runs/late", running=(node,))
        return real(outputs, found)

    monkeypatch.setattr(inventory, "set_aside", set_aside)
    store.gc(tmp_path, yes=True)
    assert (tmp_path / "runs" / "late").exists() and (path / "sub" / "value").exists()


def test_gc_stops_where_it_cannot_know_what_a_job_uses(tmp_path, command):
    path = build(Node(first, 1), tmp_path)
    (job(tmp_path, "runs/a") / "stages.json").write_text('{"first": ')
    code, said = command("gc", "--yes")
    assert code == 1 and "runs/a" in said and "run the job again" in said and path.exists()


def test_du_adds_up(tmp_path, command):
    build(Node(first, 1), tmp_path)
    code, said = command("du")
    files = [path for path in (tmp_path / "stages" / "first").rglob("*") if path.is_file()]
    assert code == 0 and store.size(sum(path.stat().st_size for path in files)) in said
    assert [store.size(count) for count in (0, 1023, 1536, 5 << 40)] == ["0 B", "1023 B", "1.5 KiB", "5.0 TiB"]


@pytest.mark.parametrize("words", [("ls", "outputs={}"), ("outputs={}", "ls"), ("--outputs", "{}", "ls")])
def test_the_folder_is_named_as_everywhere_else_or_as_it_used_to_be(tmp_path, monkeypatch, capsys, words):
    build(Node(first, 1), tmp_path)
    monkeypatch.setattr(sys, "argv", ["rose stages", *(word.format(tmp_path) for word in words)])
    assert store.main() == 0 and "first/" in capsys.readouterr().out


def test_a_wrong_folder_or_name_is_said_in_one_line(tmp_path, command):
    assert command("ls") == (
        1,
        f"rose: outputs={tmp_path}: holds no stages; give the folder that jobs were run with as outputs=\n",
    )
    build(Node(first, 1), tmp_path)
    code, said = command("verify", "first/none-123456789abc")
    assert code == 1 and "no such artifact" in said and said.count("\n") == 1
