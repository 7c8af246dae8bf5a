"""Who computes a stage that several processes need, on one host and on several."""

import os
import subprocess
import threading
import time
from pathlib import Path

import psutil
import pytest
from stage_processes import begin, begun, computing, other
from waiting import until

from rose.stages import leases
from rose.stages.build import build
from rose.stages.graph import Node, stage

pytestmark = pytest.mark.usefixtures("short_lease")


@stage("both", version=1)
def both(out: Path, first: Path, second: Path) -> None:
    (out / "done").touch()


class Clock:
    """Stands in for the module `time` in `leases`: it goes on only when a test, or a look at it, moves it."""

    def __init__(self, monkeypatch, step: float = 0.0):
        self.now, self.step, self.sleeps = 0.0, step, 0
        monkeypatch.setattr(leases, "time", self)

    def monotonic(self) -> float:
        self.now += self.step
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps += 1
        time.sleep(0.01)


def test_a_job_that_would_wait_computes_what_else_is_missing_first(tmp_path):
    slow = Node(begin, str(tmp_path))
    owner = computing(tmp_path, slow)
    path = build(Node(both, slow, node := Node(other, str(tmp_path))), tmp_path / "outputs")
    owner.join()
    assert (node.path(tmp_path / "outputs") / "begin was running").read_text() == "True"
    assert (path / "done").exists()
    assert len(begun(tmp_path)) == 1


def test_a_dead_owner_of_this_host_is_noticed_whatever_its_lease_says(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "LEASE", 1e6)
    owner = computing(tmp_path, Node(begin, str(tmp_path)))
    owner.kill()
    owner.join()
    (tmp_path / "end").touch()
    build(Node(begin, str(tmp_path)), tmp_path / "outputs")
    assert len(begun(tmp_path)) == 2


def test_a_living_owner_elsewhere_is_left_alone(tmp_path, monkeypatch):
    node = Node(begin, str(tmp_path))
    owner = computing(tmp_path, node, host="elsewhere")
    marker, touches = leases.marker(node.path(tmp_path / "outputs")), set()

    class Touches(Clock):
        """Counts the owner's touches, three a lease: so a slow machine's owner is as quick as any."""

        def monotonic(self) -> float:
            touches.add(marker.stat().st_mtime_ns)
            if len(touches) > 7:
                (tmp_path / "end").touch()
            return len(touches) * leases.LEASE / 3

    Touches(monkeypatch)
    build(node, tmp_path / "outputs")  # longer than two leases
    owner.join()
    assert len(begun(tmp_path)) == 1 and len(touches) > 7


def test_a_dead_owner_elsewhere_is_noticed_when_its_lease_is_over(tmp_path, monkeypatch):
    node = Node(begin, str(tmp_path))
    dead = computing(tmp_path, node, host="elsewhere")
    dead.kill()
    dead.join()
    (tmp_path / "end").touch()
    clock = Clock(monkeypatch, step=leases.LEASE / 8)
    build(node, tmp_path / "outputs")
    assert leases.LEASE <= clock.now <= leases.LEASE + 3 * clock.step
    assert len(begun(tmp_path)) == 2


def test_a_lease_that_nobody_touches_holds_nobody_up_whatever_it_says(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "LEASE", 30)
    clock = Clock(monkeypatch)
    written = " ".join(map(str, (*leases.me(), "token")))  # of a process that lives, and has lost its way
    for text in ("", "torn", f"elsewhere 1 1 {'f' * 32}", written):
        marker = tmp_path / "some.lease"
        marker.write_text(text)
        lease = leases.Lease(marker)
        assert lease.acquire() is None
        clock.now += 20
        os.utime(marker, (1, 1))
        assert lease.acquire() is None
        clock.now += 20
        assert lease.acquire() is None and marker.read_text() == text
        clock.now += 15
        with lease.acquire():
            assert marker.read_text() != text
        assert not list(tmp_path.iterdir())


def test_a_living_owner_on_another_machine_of_the_same_name_is_left_alone(tmp_path, monkeypatch):
    marker, other_boot = tmp_path / "some.lease", tmp_path / "boot_id"
    other_boot.write_text("ffffffff-0000-4000-8000-000000000000\n")
    with monkeypatch.context() as there:
        there.setattr(leases, "BOOT_ID", other_boot)
        owner = leases.me()._replace(pid=2**22 + 1)  # no process here has such a number
    marker.write_text(" ".join(map(str, (*owner, "token"))))
    assert not leases.gone(owner)
    assert leases.Lease(marker).acquire() is None

    monkeypatch.setattr(leases, "BOOT_ID", tmp_path / "none")  # not Linux, or hidden
    assert not leases.gone(leases.me())


def test_a_number_given_again_is_not_the_process_that_had_it(tmp_path):
    assert not leases.gone(leases.me())
    assert leases.gone(leases.me()._replace(start="1"))
    assert not leases.gone(leases.me()._replace(start="1", host="elsewhere"))
    marker = tmp_path / "some.lease"
    marker.write_text(" ".join(map(str, (*leases.me()._replace(start="1"), "token"))))
    with leases.held(marker):
        assert leases.Lease(marker).acquire() is None


def test_a_zombie_owner_has_ended():
    """As after a kill in a container whose first process collects nobody."""
    ended = subprocess.Popen(["sleep", "1e6"])
    owner = leases.me()._replace(pid=ended.pid, start=leases._start(ended.pid))
    assert not leases.gone(owner)
    ended.kill()
    until(lambda: psutil.Process(ended.pid).status() == psutil.STATUS_ZOMBIE)
    assert leases.gone(owner)
    ended.wait()


def test_who_waits_for_a_lease_says_so_once(tmp_path, monkeypatch, caplog):
    clock, marker = Clock(monkeypatch), tmp_path / "some.lease"
    caplog.set_level("INFO")

    def wait() -> None:
        with leases.held(marker):
            pass

    waiting = threading.Thread(target=wait)
    with leases.held(marker):
        assert not caplog.messages
        waiting.start()
        until(lambda: clock.sleeps > 3)
    waiting.join()
    assert caplog.messages == [f"waiting for {marker}, which another process holds"]


def test_a_successors_lease_is_put_back_by_who_was_late_to_see_it(tmp_path, monkeypatch):
    marker = tmp_path / "some.lease"
    marker.write_text(" ".join(map(str, (*leases.me()._replace(start="1"), "token"))))
    rename = Path.rename

    def late(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        path.unlink()
        path.write_text("successor")
        return path.rename(target)

    monkeypatch.setattr(Path, "rename", late)
    assert leases.Lease(marker).acquire() is None
    assert [path.read_text() for path in tmp_path.iterdir()] == ["successor"]
