"""A server over HTTP that answers chat requests in known ways."""

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = "key-that-must-not-be-written"  # noqa: S105
SECTION = re.compile(r"\[\[(?P<name>[A-Z ]+) (?P<mark>\w+)\]\]\n(?P<text>.*?)\n\[\[END (?P=name) (?P=mark)\]\]", re.S)


class Server(ThreadingHTTPServer):
    """Answers each chat request by `behave(request, number)` → body, (status, body, headers…), or None for silence
    until it is closed.
    """

    daemon_threads = True

    def __init__(self, behave: Callable):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave, self.requests, self.keys, self.lock = behave, [], set(), threading.Lock()
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def server_close(self):
        self.closing.set()
        super().server_close()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(request)
            self.server.keys.add(self.headers["Authorization"])
            number = len(self.server.requests)
        said = self.server.behave(request, number)
        if said is None:
            self.server.closing.wait()
            return
        status, body, *headers = said if isinstance(said, tuple) else (200, said)
        self.send_response(status)
        for header in headers:
            self.send_header(*header)
        self.send_header("Content-Type", "application/json")
        self.send_header("retry-after-ms", "1")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


def completion(content: str | None, refusal: str | None = None, finish: str = "stop") -> str:
    message = {"role": "assistant", "content": content, "refusal": refusal}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
                      | {"usage": usage})  # fmt: skip


def says(winner: str) -> str:
    return completion(json.dumps({"reason": "so it seems", "winner": winner}))


def shown(request: dict) -> dict[str, str]:
    """What the judge was shown: REQUEST, ANSWER A, ANSWER B."""
    return {found["name"]: found["text"] for found in SECTION.finditer(request["messages"][1]["content"])}


def honest(request: dict, number: int) -> str:
    """Prefers what is called good, wherever it stands."""
    parts = shown(request)
    good = [name for name in "AB" if "good" in parts[f"ANSWER {name}"]]
    return says(good[0] if len(good) == 1 else "tie")
