"""Who computes a stage that several processes need, on one host and on several."""

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rose.stages import leases
from rose.stages.build import build
from rose.stages.graph import Node, stage

FORK = multiprocessing.get_context("fork")


@stage("begin", version=1)
def begin(out: Path, folder: str, seconds: float) -> None:
    (Path(folder) / f"begin-{os.getpid()}").touch()
    time.sleep(seconds)


@stage("other", version=1)
def other(out: Path, folder: str) -> None:
    (out / "begin was running").write_text(str(not list(Path(folder).glob("outputs/stages/begin/[!.]*"))))


@stage("both", version=1)
def both(out: Path, first: Path, second: Path) -> None:
    (out / "done").touch()


@pytest.fixture(autouse=True)
def short_lease(monkeypatch):
    monkeypatch.setattr(leases, "LEASE", 1.5)


def fail(*_) -> None:
    raise RuntimeError("a file is not where it was")


def start(
    node: Node, outputs: Path, host: str | None = None, first: Callable[[], None] = lambda: None
) -> multiprocessing.Process:
    """A process that builds `node`, on `host` for all that it can tell."""

    def work() -> None:
        if host:
            socket.gethostname = lambda: host
        signal.signal(signal.SIGTERM, lambda *_: exit(1))
        signal.signal(signal.SIGUSR1, fail)
        first()
        build(node, outputs)

    process = FORK.Process(target=work)
    process.start()
    return process


def until(holds) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def parts(folder: Path) -> list[Path]:
    return list(folder.glob("outputs/stages/*/.*.part"))


def begun(folder: Path) -> list[Path]:
    return list(folder.glob("begin-*"))


def computing(folder: Path, node: Node, host: str | None = None) -> multiprocessing.Process:
    process = start(node, folder / "outputs", host)
    until(lambda: [path for part in parts(folder) for path in part.iterdir() if path.stat().st_size] or begun(folder))
    return process


def test_a_job_that_would_wait_computes_what_else_is_missing_first(tmp_path):
    slow = Node(begin, str(tmp_path), 2.0)
    owner = computing(tmp_path, slow)
    path = build(Node(both, slow, node := Node(other, str(tmp_path))), tmp_path / "outputs")
    owner.join()
    assert (node.path(tmp_path / "outputs") / "begin was running").read_text() == "True"
    assert (path / "done").exists()
    assert len(begun(tmp_path)) == 1


def test_a_dead_owner_of_this_host_is_noticed_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "LEASE", 600)
    owner = computing(tmp_path, Node(begin, str(tmp_path), 0.1))
    owner.kill()
    owner.join()
    began = time.monotonic()
    build(Node(begin, str(tmp_path), 0.1), tmp_path / "outputs")
    assert time.monotonic() - began < 20


def test_a_dead_owner_elsewhere_is_noticed_within_the_lease_and_a_living_one_left_alone(tmp_path):
    node = Node(begin, str(tmp_path), 4.0)
    owner = computing(tmp_path, node, host="elsewhere")
    build(node, tmp_path / "outputs")  # longer than two leases
    assert len(begun(tmp_path)) == 1
    owner.join()

    node = Node(begin, str(tmp_path), 4.5)
    dead = start(node, tmp_path / "outputs", host="elsewhere")
    until((tmp_path / f"begin-{dead.pid}").exists)
    dead.kill()
    dead.join()
    began = time.monotonic()
    second = start(node, tmp_path / "outputs")
    until((tmp_path / f"begin-{second.pid}").exists)
    assert 1.4 < time.monotonic() - began < 15
    second.kill()
    second.join()


def test_a_lease_that_nobody_touches_holds_nobody_up_whatever_it_says(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "LEASE", 0.3)
    written = " ".join(map(str, (*leases.me(), "token")))  # of a process that lives, and has lost its way
    for text in ("", "torn", f"elsewhere 1 1 {'f' * 32}", written):
        marker = tmp_path / "some.lease"
        marker.write_text(text)
        lease = leases.Lease(marker)
        assert lease.acquire() is None
        time.sleep(0.2)
        os.utime(marker)
        assert lease.acquire() is None
        time.sleep(0.2)
        assert lease.acquire() is None and marker.read_text() == text
        time.sleep(0.15)
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


def test_who_waits_for_a_lease_says_so_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(leases, "POLL", 0.05)
    marker = tmp_path / "some.lease"
    caplog.set_level("INFO")

    def wait() -> None:
        with leases.held(marker):
            pass

    waiting = threading.Thread(target=wait)
    with leases.held(marker):
        assert not caplog.messages
        waiting.start()
        time.sleep(0.5)
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
