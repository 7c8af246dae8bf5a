"""An OpenAI-compatible endpoint, asked many things at once; replies are kept by what was asked."""

import json
import logging
import os
import threading
from collections import Counter
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

FORMAT_WORDS = ("response_format", "response format", "json_schema", "json_object", "schema")  # of who knows no such
REPEATED = (408, 409, 429)  # and all from 500: what the client asks again after
TYPED = ("model", "messages", "response_format")  # servers know more than the client does


class Reply(NamedTuple):
    text: str | None  # None where there was none
    refusal: str | None  # what the model or the endpoint said instead
    tokens_input: int
    tokens_output: int
    finish: str | None = None  # why it ended, as the endpoint says


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
    longer each time; the log says so of the first of each kind, and at the end how many there were.
    Raises RoseError when the endpoint still fails; replies stay in the cache.
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
    tries = _Tries(judge)
    hooks = {"response": [_unmasked, tries.see]}

    class Client(openai.DefaultHttpxClient):
        def send(self, *args: Any, **options: Any) -> Any:
            try:
                return super().send(*args, **options)
            except Exception as error:
                tries.failed(type(error).__name__)
                raise

    for library in ("openai", "httpx", "httpx2"):  # a line a request, and none says why
        logging.getLogger(library).setLevel(logging.WARNING)
    stay = Client(follow_redirects=False, event_hooks=hooks)  # prompts go where it is said to
    client = openai.OpenAI(
        base_url=judge.base_url, api_key=key, max_retries=judge.retries, timeout=judge.timeout, http_client=stay
    )
    replies, stop = {}, threading.Event()

    def work(request: dict[str, Any], path: Path) -> Reply | None:
        if stop.is_set():
            return None
        try:
            return _ask(client, _forms(judge, request), path)
        except BaseException:
            stop.set()  # before this thread takes the next request
            raise

    try:
        with client, ThreadPoolExecutor(judge.concurrency) as pool:
            futures = {pool.submit(work, request, _path(judge, name)): name for name, request in requests.items()}
            try:
                for future in track(as_completed(futures), f"judge {judge.model}", len(futures), "replies"):
                    replies[futures[future]] = future.result()
            finally:
                stop.set()
                pool.shutdown(cancel_futures=True)
    except openai.OpenAIError as error:
        missing = sum(not _path(judge, name).exists() for name in requests)
        raise RoseError(_failure(judge, error, missing)) from error
    finally:
        tries.sum_up()
    unkept = sum(not _path(judge, name).exists() for name in requests)
    if unkept:
        log.warning("judge: %d replies are empty, cut off or no completion; the next run asks for them again", unkept)
    return replies


class _Tries:
    """Counts the tries that failed and may be repeated, by what they met."""

    def __init__(self, judge: Judge):
        self.judge, self.met, self.lock = judge, Counter[str](), threading.Lock()

    def see(self, response: Any) -> None:
        if _repeated(response):
            self.failed(f"{response.status_code} {response.reason_phrase}".strip())

    def failed(self, kind: str) -> None:
        with self.lock:
            self.met[kind] += 1
            first = self.met[kind] == 1
        if first:
            message = "judge: %s: met %s, so it asks again, up to judge.retries=%d times, later each time%s"
            log.warning(message, self.judge.base_url, kind, self.judge.retries, _slower(self.judge, kind))

    def sum_up(self) -> None:
        if self.met.total() > len(self.met):
            log.warning(
                "judge: %d tries failed: %s", self.met.total(), ", ".join(f"{n} {k}" for k, n in self.met.items())
            )


def _repeated(response: Any) -> bool:
    """Whether the client asks again after it; None: there was no answer."""
    return response is None or response.status_code in REPEATED or response.status_code >= 500


def _slower(judge: Judge, met: str) -> str:
    """What helps against a server that cannot keep up; empty where that is not the trouble."""
    if "Timeout" in met:
        return (
            f"; a reply has judge.timeout={judge.timeout:g} s, and judge.concurrency={judge.concurrency} are asked for"
        )
    return f"; judge.concurrency={judge.concurrency} are asked at once" if met.startswith("429") else ""


def _forms(judge: Judge, request: dict[str, Any]) -> list[dict[str, Any]]:
    """The request, and plainer ones for endpoints that know no schema: they read it in the prompt."""
    wanted = request.get("response_format")
    if "response_format" in judge.request or wanted is None:
        return [request]
    first, *rest = request["messages"]
    schema = json.dumps(wanted["json_schema"]["schema"])
    told = {**first, "content": f"{first['content']}\n\nThe JSON is of this schema: {schema}"}
    plain = {**request, "messages": [told, *rest]}
    unformatted = {name: value for name, value in plain.items() if name != "response_format"}
    return [request, {**plain, "response_format": {"type": "json_object"}}, unformatted]


def _unmasked(response: Any) -> None:
    """An error that a gateway sends with status 200 is met as the error it is."""
    if response.status_code != 200:
        return
    try:
        body = json.loads(response.read())
        error = body.get("error") or ((body.get("choices") or [{}])[0] or {}).get("error")
    except (ValueError, AttributeError, TypeError, KeyError):
        return
    if error or body.get("object") == "error":
        code = str((error if isinstance(error, dict) else body).get("code"))
        response.status_code = int(code) if code.isdigit() and 400 <= int(code) <= 599 else 502


def _ask(client: Any, forms: list[dict[str, Any]], path: Path) -> Reply:
    """One reply, kept if it is a whole chat completion; a form that is not taken is asked in the next."""
    import openai

    request, *plainer = forms
    try:
        typed = {name: request[name] for name in TYPED if name in request}
        more = {name: value for name, value in request.items() if name not in TYPED}
        completion = client.chat.completions.create(**typed, extra_body=more)
        choice = completion.choices[0]
        message, usage = choice.message, completion.usage
    except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
        if plainer and any(word in str(error).lower() for word in FORMAT_WORDS):
            return _ask(client, plainer, path)
        return Reply(None, _said(error), 0, 0)
    except (ValueError, TypeError, AttributeError, IndexError):  # of whatever the body holds
        return Reply(None, None, 0, 0)
    filtered = "content filter" if choice.finish_reason == "content_filter" else None
    refusal = getattr(message, "refusal", None) or filtered
    tokens = [getattr(usage, name, None) or 0 for name in ("prompt_tokens", "completion_tokens")]
    reply = Reply(message.content, refusal, tokens[0], tokens[1], choice.finish_reason)
    if refusal is None and (not reply.text or reply.finish == "length"):
        return reply
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


def _said(error: Exception) -> str:
    """In one line; the client leaves out a body whose error is a text alone."""
    response, text = getattr(error, "response", None), one_line(error, 200)
    bare = response is not None and text.endswith(f"Error code: {response.status_code}")
    return f"{text} - {' '.join(response.text.split())[:200]}" if bare and response is not None else text


def _failure(judge: Judge, error: Exception, missing: int) -> str:
    response = getattr(error, "response", None)
    if response is not None and 300 <= response.status_code < 400:
        return (
            f"judge.base_url={judge.base_url}: redirects to {response.headers.get('location', 'nowhere')[:200]}, "
            "where nothing was sent; if you trust that address, give it as judge.base_url"
        )
    refused = response is not None and response.status_code in (401, 403)
    after = f" after {judge.retries} retries" if _repeated(response) else ""
    hint = _slower(judge, f"{getattr(response, 'status_code', '')} {type(error).__name__}".strip())
    if refused:
        hint = f"; is the key in the environment variable {judge.key_variable}?"
    return (
        f"judge.base_url={judge.base_url}: no verdict from judge.model={judge.model}{after} "
        f"({_said(error)}){hint}; {missing} replies are missing, and the same command asks for those only"
    )
