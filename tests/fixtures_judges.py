"""Chat endpoints for tests, and the judge that asks them."""

import threading
from collections.abc import Callable, Iterator

import pytest
from chat_endpoint import SECRET, Server

from rose.config.compose import typed
from rose.config.schema import Judge


@pytest.fixture
def serve() -> Iterator[Callable[[Callable], Server]]:
    """serve(behave) -> a running chat endpoint that answers so."""
    servers = []

    def start(behave: Callable) -> Server:
        servers.append(Server(behave))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def judge(composed, tmp_path, monkeypatch) -> Judge:
    """A chat model as judge, whose `base_url` a test sets."""
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    own = [f"outputs={tmp_path}", "judge=llm", "judge.model=m"]
    own += ["judge.base_url=http://unset", "judge.key_variable=JUDGE_KEY", "judge.retries=2", "judge.timeout=3000"]
    return typed(composed(*own)).judge
