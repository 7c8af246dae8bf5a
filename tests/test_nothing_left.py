"""What a test begins ends with it, also what hides."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from nothing_left import lives

LEAVING = """
import multiprocessing, os, signal, subprocess, sys, time
from pathlib import Path

DAEMON = '''
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(sys.argv[1], "w").write(str(os.getpid()))
        time.sleep(1e6)
'''

def sleep(file):
    Path(file).write_text(str(os.getpid()))
    time.sleep(1e6)

def begin(folder):
    subprocess.Popen([sys.executable, "-c", DAEMON, f"{folder}/daemon"]).wait()
    multiprocessing.get_context("fork").Process(target=sleep, args=(f"{folder}/forked",)).start()
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1e6)"])
    while not all((folder / name).exists() and (folder / name).read_text() for name in ("daemon", "forked")):
        time.sleep(0.01)

def test_that_passes():
    begin(Path(sys.argv[-1]) / "passes")

def test_that_fails():
    begin(Path(sys.argv[-1]) / "fails")
    raise RuntimeError

def test_that_hangs():
    begin(Path(sys.argv[-1]) / "hangs")
    signal.raise_signal(signal.SIGALRM)  # as pytest-timeout's clock would
"""


@pytest.mark.parametrize(("kind", "code"), [("passes", 0), ("fails", 1), ("hangs", 1)])
def test_a_test_leaves_no_process_behind(tmp_path, kind, code):
    (tmp_path / kind).mkdir()
    (tmp_path / "test_leaving.py").write_text(LEAVING)
    command = [sys.executable, "-m", "pytest", "-p", "nothing_left", "-p", "no:cacheprovider", "--timeout=100000"]
    done = subprocess.run(
        [*command, f"{tmp_path}/test_leaving.py", "-k", f"test_that_{kind}", str(tmp_path)],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    begun = [int((tmp_path / kind / name).read_text()) for name in ("daemon", "forked")]
    assert not any(map(lives, begun))
