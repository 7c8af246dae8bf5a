"""An OpenAI-compatible endpoint, asked many things at once; replies are kept by what was asked."""

import json
import logging
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from rose.config.schema import Judge
from rose.errors import RoseError, one_line
from rose.progress import track
from rose.stages.disk import write_json

log = logging.getLogger(__name__)

TYPED = ("model", "messages", "response_format")  # servers know more than the client does


class Reply(NamedTuple):
    text: str | None  # None where there was none
    refusal: str | None  # what the model or the endpoint said instead
    tokens_input: int
    tokens_output: int


def identity(judge: Judge) -> str:
    """Whose model it is: two endpoints may call different models by one name.

    `judge.endpoint`, a name that mirrors share, or the address without user, password and query.
    """
    if judge.endpoint:
        return judge.endpoint
    address = urlsplit(judge.base_url or "")
    return f"{address.scheme}://{address.netloc.rpartition('@')[2].lower()}{address.path.rstrip('/')}"


def digest(judge: Judge, request: dict[str, Any]) -> str:
    """sha256 of who is asked, and all that is: model, messages, parameters."""
    asked = {"endpoint": identity(judge), "request": request}
    return sha256(json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def ask_all(judge: Judge, requests: Sequence[dict[str, Any]]) -> dict[str, Reply]:
    """The reply to each chat request, by its `digest`; only what `judge.cache` lacks is asked for.

    Too many requests, server errors and silence are met with `judge.retries` further tries, waiting
    longer each time. Raises RoseError when the endpoint still fails; replies stay in the cache.
    """
    wanted = {digest(judge, request): request for request in requests}
    replies = {name: reply for name in wanted if (reply := _cached(_path(judge, name))) is not None}
    missing = {name: request for name, request in wanted.items() if name not in replies}
    if not missing:
        return replies
    log.info("judge: %d replies kept from before, %d to ask %s for", len(replies), len(missing), judge.model)
    return replies | _ask_missing(judge, missing)


def _ask_missing(judge: Judge, requests: dict[str, dict[str, Any]]) -> dict[str, Reply]:
    import openai  # late: half a second that few jobs need

    key = os.environ.get(judge.key_variable) or "none"  # the client wants one, whatever the server
    stay = openai.DefaultHttpxClient(follow_redirects=False)  # prompts go where it is said to
    client = openai.OpenAI(
        base_url=judge.base_url, api_key=key, max_retries=judge.retries, timeout=judge.timeout, http_client=stay
    )
    replies, stop = {}, threading.Event()

    def work(request: dict[str, Any], path: Path) -> Reply | None:
        if stop.is_set():
            return None
        try:
            return _ask(client, request, path)
        except BaseException:
            stop.set()  # before this thread takes the next request
            raise

    try:
        with client, ThreadPoolExecutor(judge.concurrency) as pool:
            futures = {pool.submit(work, request, _path(judge, name)): name for name, request in requests.items()}
            try:
                for future in track(as_completed(futures), "verdicts", len(futures)):
                    replies[futures[future]] = future.result()
            finally:
                stop.set()
                pool.shutdown(cancel_futures=True)
    except openai.OpenAIError as error:
        missing = sum(not _path(judge, name).exists() for name in requests)
        raise RoseError(_failure(judge, error, missing)) from error
    return replies


def _ask(client: Any, request: dict[str, Any], path: Path) -> Reply:
    """One reply, kept if it is a chat completion."""
    import openai

    try:
        more = {name: value for name, value in request.items() if name not in TYPED}
        completion = client.chat.completions.create(**{name: request[name] for name in TYPED}, extra_body=more)
        choice = completion.choices[0]
        message, usage = choice.message, completion.usage
    except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
        return Reply(None, one_line(error, 200), 0, 0)
    except (ValueError, TypeError, AttributeError, IndexError):  # of whatever the body holds
        return Reply(None, None, 0, 0)
    filtered = "content filter" if choice.finish_reason == "content_filter" else None
    refusal = getattr(message, "refusal", None) or filtered
    tokens = [getattr(usage, name, None) or 0 for name in ("prompt_tokens", "completion_tokens")]
    reply = Reply(message.content, refusal, *tokens)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"request": request, "reply": reply._asdict()})
    return reply


def _path(judge: Judge, name: str) -> Path:
    return Path(judge.cache) / name[:2] / f"{name}.json"


def _cached(path: Path) -> Reply | None:
    try:
        return Reply(**json.loads(path.read_text())["reply"])
    except FileNotFoundError:
        return None


def _failure(judge: Judge, error: Exception, missing: int) -> str:
    response = getattr(error, "response", None)
    if response is not None and 300 <= response.status_code < 400:
        return (
            f"judge.base_url={judge.base_url}: redirects to {response.headers.get('location', 'nowhere')[:200]}, "
            "where nothing was sent; if you trust that address, give it as judge.base_url"
        )
    refused = response is not None and response.status_code in (401, 403)
    hint = f"; is the key in the environment variable {judge.key_variable}?" if refused else ""
    return (
        f"judge.base_url={judge.base_url}: no verdict from judge.model={judge.model} after {judge.retries} retries "
        f"({one_line(error, 200)}){hint}; {missing} replies are missing, and the same command asks for those only"
    )
