"""What becomes of the unfinished work of processes that were stopped, on this host and on others."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from stage_processes import computing, other, parts, resuming, start
from waiting import until

from rose.stages import leases
from rose.stages.build import build
from rose.stages.graph import Node
from rose.stages.unfinished import private, read

pytestmark = pytest.mark.usefixtures("short_lease")
DAY = 86400.0


def test_what_another_host_left_is_gone_on_with_in_a_copy(tmp_path):
    node = Node(resuming, str(tmp_path))
    owner = computing(tmp_path, node, host="elsewhere.cluster")
    owner.kill()
    owner.join()
    (left,) = parts(tmp_path)
    os.utime(left / "lines", (time.time() + DAY, time.time() + DAY))  # its process was slow rather than dead
    (tmp_path / "go").touch()
    path = build(node, tmp_path / "outputs")
    assert (path / "lines").read_text() == "begun\nbegun\n"
    assert (left / "lines").read_text() == "begun\n"


def left_by(target: Path, owner: leases.Owner, text: str, age: float) -> Path:
    left = target.with_name(f".{target.name}.{owner.host}.{owner.pid}.{owner.start}-{abs(age):06.0f}.part")
    left.mkdir(parents=True)
    (left / "lines").write_text(text)
    for path in (left / "lines", left):
        os.utime(path, (time.time() - age, time.time() - age))
    return left


def test_of_what_several_left_the_newest_that_need_not_be_copied_is_gone_on_with_and_the_others_go(tmp_path):
    (tmp_path / "go").touch()
    node = Node(resuming, str(tmp_path))
    target, here = node.path(tmp_path / "outputs"), leases.me()
    left_by(target, leases.Owner("elsewhere", 1, "1"), "newer, elsewhere\n", 100)
    left_by(target, here._replace(start="1"), "older\n", 300)  # its container was restarted
    left_by(target, leases.Owner("released", 0, ""), "newer\n", 200)
    living = left_by(target, here, "alive\n", 400)
    writing = left_by(target, leases.Owner("elsewhere", 2, "1"), "writing\n", -DAY)  # and will be for a while
    path = build(node, tmp_path / "outputs")
    assert (path / "lines").read_text() == "newer\nbegun\n"
    assert set(parts(tmp_path)) == {living, writing}


def test_what_an_older_version_left_here_is_another_hosts(tmp_path):
    target = Node(resuming, str(tmp_path)).path(tmp_path / "outputs")
    host = leases.host().rpartition("-")[0]  # its names of hosts told nothing of the boot
    left = left_by(target, leases.Owner(host, 2**22 + 1, "1"), "begun\n", 100)
    assert read(left).owner.host == host and not read(left).free
    assert (private(target, resumable=True) / "lines").read_text() == "begun\n" and left.exists()


def test_what_cannot_be_taken_over_costs_only_itself(tmp_path, monkeypatch):
    (tmp_path / "go").touch()
    node = Node(resuming, str(tmp_path))
    for age in (100, 200):
        left_by(node.path(tmp_path / "outputs"), leases.Owner("elsewhere", 1, "1"), f"{age}\n", age)
    copy = shutil.copyfile

    def lost(source: Path, place: Path) -> None:
        monkeypatch.setattr(shutil, "copyfile", copy)
        raise OSError(5, "Input/output error", str(source))

    monkeypatch.setattr(shutil, "copyfile", lost)
    path = build(node, tmp_path / "outputs")
    assert (path / "lines").read_text() == "200\nbegun\n"


@pytest.mark.faults
def test_another_users_unfinished_work_is_gone_on_with(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can act as two users")
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o011)
    outputs, node = tmp_path / "outputs", Node(resuming, str(tmp_path))
    build(Node(other, str(tmp_path)), tmp_path / "warm")  # imports what another user may not be able to read
    before = os.umask(0)
    try:
        owner = computing(tmp_path, node)
    finally:
        os.umask(before)
    owner.kill()
    owner.join()
    (tmp_path / "go").touch()
    process = start(node, outputs, first=nobody)
    process.join()
    assert process.exitcode == 0
    (path,) = outputs.glob("stages/resuming/*")
    assert (path / "lines").read_text() == "begun\nbegun\n" and (path / "lines").stat().st_uid == 65534
    assert not parts(tmp_path)


def nobody() -> None:
    os.umask(0)
    os.setgid(65534)
    os.setuid(65534)


def test_a_process_that_was_taken_for_dead_finds_the_work_done(tmp_path):
    node = Node(resuming, str(tmp_path))
    slow = computing(tmp_path, node, host="elsewhere")
    os.kill(slow.pid, signal.SIGSTOP)
    (left,) = parts(tmp_path)
    until(lambda: time.time() - left.stat().st_mtime > 2 * leases.LEASE)
    (tmp_path / "go").touch()
    path = build(node, tmp_path / "outputs")
    assert not parts(tmp_path)
    lines = (path / "lines").read_text()
    os.kill(slow.pid, signal.SIGUSR1)  # the first that it hears of when it goes on
    os.kill(slow.pid, signal.SIGCONT)
    slow.join()
    assert slow.exitcode == 0 and (path / "lines").read_text() == lines and not parts(tmp_path)


def test_what_a_stopped_process_released_is_taken_over_by_any_host(tmp_path):
    node = Node(resuming, str(tmp_path))
    owner = computing(tmp_path, node, host="elsewhere")
    owner.terminate()
    owner.join()
    (tmp_path / "go").touch()
    path = build(node, tmp_path / "outputs")
    assert (path / "lines").read_text() == "begun\nbegun\n"
    assert not parts(tmp_path)


def test_a_copy_that_was_cut_short_is_gone_on_from_by_nobody(tmp_path, monkeypatch):
    target = Node(resuming, str(tmp_path)).path(tmp_path / "outputs")
    left = left_by(target, leases.Owner("elsewhere", 1, "1"), "begun\n", 100)
    (left / "more").write_text("more")
    copy = shutil.copyfile

    def killed(source: Path, place: Path) -> None:
        if source.name == "more":
            raise KeyboardInterrupt
        copy(source, place)

    monkeypatch.setattr(shutil, "copyfile", killed)
    with pytest.raises(KeyboardInterrupt):
        private(target, resumable=True)
    assert len(parts(tmp_path)) == 2 and [part for part in parts(tmp_path) if read(part)] == [left]
    monkeypatch.setattr(shutil, "copyfile", copy)
    assert (private(target, resumable=True) / "more").read_text() == "more"
