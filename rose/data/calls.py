"""Tools: what a row says of them, and where a chat template writes that they are called.

Rows keep calls as OpenAI writes them, arguments and the list of tools as JSON: so a column has one
type whatever the tools are. A template is given objects.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from os.path import commonprefix
from typing import Any

from rose.data.bad_rows import BadRow, given, kind
from rose.data.rows import Message, ToolCall
from rose.errors import RoseError

START, END = "\ufdd0", "\ufdd1"  # code points that Unicode keeps out of texts
Writer = Callable[[list[Message]], str]  # renders a conversation


def take_tools(values: dict[str, Any]) -> str | None:
    """The tools that a row offers, taken out of its columns, as a JSON list. Raises BadRow."""
    columns = {name: values.pop(name, None) for name in ("tools", "functions")}
    columns = {name: _unpacked(value) for name, value in columns.items() if given(_unpacked(value))}
    if len(columns) > 1:
        raise BadRow("functions stands beside tools: leave one out")
    for name, value in columns.items():
        tools = [_function(tool) for tool in value] if isinstance(value, list) else []
        if not tools or not all(tools):
            raise BadRow(f"{name} is {kind(value)}: must be a list of functions, each with a name")
        return json.dumps([{"type": "function", "function": tool} for tool in tools], ensure_ascii=False)
    return None


def as_calls(value: object, place: str) -> list[ToolCall]:
    """Calls of tools: OpenAI's, or objects with name and arguments, or JSON of either. Raises BadRow."""
    calls = _unpacked(value)
    found = [_call(call) for call in (calls if isinstance(calls, list) else [calls])]
    if not found or None in found:
        raise BadRow(f"{place} is {kind(value)}: must be calls, each with a function's name and a JSON object")
    return [call for call in found if call is not None]


def said(message: Message) -> str:
    """A message's calls as JSON; nothing where there are none."""
    return "".join("\n" + json.dumps(call["function"], ensure_ascii=False) for call in message.get("tool_calls", []))


def for_template(message: Message) -> Any:
    """The message with its calls' arguments as objects, which templates write as JSON."""
    if "tool_calls" not in message:
        return message
    calls = [(call, call["function"]) for call in message["tool_calls"]]
    opened = [{**call, "function": {**of, "arguments": json.loads(of["arguments"])}} for call, of in calls]
    return {**message, "tool_calls": opened}


def all_shown(write: Writer, messages: list[Message]) -> None:
    """Raises RoseError where a template leaves out a call, what is said beside it, or a tool's result."""
    marked, marks = [], []

    def mark(text: str) -> str:
        marks.append(f"{START}{len(marks)}{END}")
        return f"{text}{marks[-1]}"

    for message in messages:
        calls = message.get("tool_calls", [])
        if (calls or message["role"] == "tool") and message["content"].strip():
            message = Message(**{**message, "content": mark(message["content"])})
        marked.append(_renamed(message, [mark(call["function"]["name"]) for call in calls]))
    text = write(marked) if marks else ""
    if not all(each in text for each in marks):
        raise RoseError("the chat template leaves out a call of a tool, or its result")


def span(write: Writer, messages: list[Message], index: int, text: str, end: str) -> tuple[int, int]:
    """Where in the conversation's `text` the message `index` stands, which calls tools, `end` of turn included.

    It begins where a plain answer in its place would. It ends with what follows its last call both
    here and where nothing comes after it.
    """
    message = messages[index]
    *names, last = (call["function"]["name"] for call in message.get("tool_calls", []))
    named = [*messages[:index], _renamed(message, [*names, f"{START}{last}"])]
    before, _, rest = write([*named, *messages[index + 1 :]]).partition(START)
    own = _common(rest, write(named).partition(START)[2]).rstrip()
    stop = own.rindex(end) + len(end) if end and end in own else len(own)
    return _begin(write, messages, index, text), len(before) + stop


def _begin(write: Writer, messages: list[Message], index: int, text: str) -> int:
    """A template may refuse a plain answer before a result, or write another thing before the last answer."""
    plain = Message(role="assistant", content=START)
    for turns in ([*messages[:index], plain, *messages[index + 1 :]], [*messages[:index], plain]):
        with suppress(RoseError):
            before = write(turns).partition(START)[0]
            if text.startswith(before.rstrip()):
                return len(_common(text, before))
    raise RoseError("the chat template writes a call of a tool where no answer would stand")


def _common(one: str, other: str) -> str:
    """What both texts begin with."""
    return commonprefix([one, other])  # noqa: RUF071 — character by character is what is wanted


def _renamed(message: Message, names: list[str]) -> Message:
    """The message with other names in its calls."""
    calls = list(zip(message.get("tool_calls", []), names, strict=True))
    if not calls:
        return message
    return {**message, "tool_calls": [{**call, "function": {**call["function"], "name": name}} for call, name in calls]}


def _call(value: object) -> ToolCall | None:
    function = _function(value)
    arguments = _unpacked(function.get("arguments") or {})
    if not function or not isinstance(arguments, dict):
        return None
    written = json.dumps(arguments, ensure_ascii=False)
    call: ToolCall = {"type": "function", "function": {"name": function["name"], "arguments": written}}
    if isinstance(value, dict) and isinstance(value.get("id"), str):
        call["id"] = value["id"]
    return call


def _function(value: object) -> dict[str, Any]:
    """What has a name: a function, or OpenAI's object around it; nothing where neither is there."""
    inside = (value.get("function") or value) if isinstance(value, dict) else None
    return (
        _filled(inside) if isinstance(inside, dict) and isinstance(inside.get("name"), str) and inside["name"] else {}
    )


def _filled(value: Any) -> Any:
    """Without nulls: a table's column has every name that any of its rows has."""
    if isinstance(value, dict):
        return {name: _filled(item) for name, item in value.items() if item is not None}
    return [_filled(item) for item in value] if isinstance(value, list) else value


def _unpacked(value: object) -> Any:
    """What a text says as JSON; the text itself where it is none, or holds half of a character."""
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):
            whole = json.loads(value)
            json.dumps(whole, ensure_ascii=False, allow_nan=False).encode("utf-8")
            return whole
    return value
