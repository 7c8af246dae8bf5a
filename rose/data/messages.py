"""What a row says, as messages: what can be honoured is, and the rest refused by its name."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from rose.data.bad_rows import BadRow, given, kind
from rose.data.calls import as_calls
from rose.data.rows import Message, ToolCall

ROLES = ("system", "user", "assistant", "tool")
CALLED = {  # other words for them: ShareGPT's and OpenAI's
    **{"human": "user", "gpt": "assistant", "function_call": "assistant", "observation": "tool"},
    **{"developer": "system", "function": "tool"},
}
OF_RESULTS = ("name", "tool_call_id")  # what a tool's result says beside its text
SPEAKERS = {"Human": "user", "Assistant": "assistant"}
TURN = r"(?:^|\n\n)(Human|Assistant):"
LEARNED = ("weight", "train", "training", "trainable", "loss")  # keys by which files say whether a message is learned
# What a model would be shown or taught beside the texts: of a row or a message, and of a message alone.
BESIDE = (
    *("tools", "functions", "documents", "chat_template_kwargs", "reasoning_content"),
    *("image", "images", "audio", "audios", "video", "videos"),
)
SPOKEN = (*BESIDE, "reasoning", "thinking", "refusal")


def as_messages(value: object, name: str, role: str | None = None) -> list[Message]:
    """Checked messages; with `role`, a text stands for a message of it. Raises BadRow.

    Role and content alone are kept, and `train` where an answer is not to be learned.
    """
    if role is not None and isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, list):
        kinds = "a list of messages" if role is None else "a text or a list of messages"
        raise BadRow(f"{name} is {kind(value)}: must be {kinds}")
    if not value:
        raise BadRow(f"{name} is an empty list")
    return [_message(message, f"{name}, message {number}") for number, message in enumerate(value, 1)]


def _message(value: object, place: str) -> Message:
    """A message in OpenAI's words (role, content) or ShareGPT's (from, value)."""
    if not isinstance(value, dict):
        raise BadRow(f"{place} is {kind(value)}: must have role and content")
    said = value.get("role") or value.get("from")
    role = CALLED.get(said, said) if isinstance(said, str) else None
    if not isinstance(said, str) or role not in ROLES:
        key, words = ("role", ROLES) if value.get("role") or "from" not in value else ("from", (*ROLES, *CALLED))
        raise BadRow(f"{place}: {key}={said!r} must be one of {', '.join(words)}")
    refuse(value, SPOKEN, f"{place}: ")
    key = "value" if value.get("content") is None and ("value" in value or "from" in value) else "content"
    content = value.get(key)
    calls = _calls(value, said, key, place)
    if calls and (content is None or said == "function_call"):
        content = ""
    message: Message = {"role": role, "content": _text(content, f"{place}: {key}")}
    if calls:
        message["tool_calls"] = calls
    if role == "tool":
        named = {name: str(value[name]) for name in OF_RESULTS if given(value.get(name))}
        message = cast(Message, {**message, **named})
    return message if _learned(value, role, place) else {**message, "train": False}


def _calls(message: Mapping[str, Any], said: str, content: str, place: str) -> list[ToolCall]:
    """What a message calls: its tool_calls, or a function_call, which ShareGPT has in a text's place, `content`."""
    names = {name: message[name] for name in ("tool_calls", "function_call") if given(message.get(name))}
    if said == "function_call":
        names[content] = message.get(content)
    for name, value in names.items():
        if CALLED.get(said, said) != "assistant":
            raise BadRow(f"{place}: {name} is {kind(value)}, but only an assistant calls tools")
        return as_calls(value, f"{place}: {name}")
    return []


def _text(content: object, place: str) -> str:
    """A text; of a list of parts those that are texts, a line each. Raises BadRow for other kinds of parts."""
    parts = content if isinstance(content, list) else [content]
    for number, part in enumerate(parts, 1):
        if isinstance(part, dict) and part.get("type", "text") != "text":
            fault = "is not supported; only texts are: write it into one, or take it out of the file"
            raise BadRow(f"{place}, part {number}: type={part['type']!r} {fault}")
    said = [part.get("text") if isinstance(part, dict) and isinstance(content, list) else part for part in parts]
    texts = [text for text in said if isinstance(text, str)]
    if not said or len(texts) < len(said):
        raise BadRow(f"{place} is {kind(content)}, must be a text")
    return "\n".join(texts)


def _learned(message: Mapping[str, Any], role: str, place: str) -> bool:
    """Whether nothing says that an answer is not to be learned; of other messages none ever is."""
    said = {key: message[key] for key in LEARNED if given(message.get(key))}
    for key, value in said.items():
        if value not in (0, 1):
            raise BadRow(f"{place}: {key} is {kind(value)}, must be 0 or 1 (false or true)")
        if value and role != "assistant":
            raise BadRow(f"{place}: {key} is {kind(value)}, but only an assistant's messages are learned; leave it out")
    return role != "assistant" or all(said.values())


def is_answer(message: Message) -> bool:
    """Whether there is something to learn from it."""
    return says_something(message) and message.get("train", True)


def says_something(message: Message) -> bool:
    """Whether it is an answer that is a text, or calls a tool."""
    return message["role"] == "assistant" and (bool(message["content"].strip()) or "tool_calls" in message)


def of_tools(message: Message) -> bool:
    """Whether it calls a tool, or is a tool's result."""
    return message["role"] == "tool" or "tool_calls" in message


def as_prompt(value: object, name: str) -> list[Message]:
    r"""What precedes an answer. A text is one user message, but "\n\nHuman: …\n\nAssistant:" is its turns.

    What stands before the first of them is the system prompt. Raises BadRow.
    """
    if not isinstance(value, str) or not re.search(r"^\n\nHuman:|(?:^|\n\n)Human:.*\n\nAssistant:\s*$", value, re.S):
        return as_messages(value, name, "user")
    first = re.search(r"(?:^|\n\n)Human:", value)
    assert first is not None
    before, turns = value[: first.start()].strip(), transcript(value[first.start() :], name)
    if turns[-1] == {"role": "assistant", "content": ""}:
        turns.pop()
    if turns[-1]["role"] == "assistant":
        raise BadRow(f"{name} ends in the midst of an answer: must end in 'Assistant:', or after a user's turn")
    return [Message(role="system", content=before), *turns] if before else turns


def asked(values: dict[str, Any], prompt: object, name: str, more: tuple[str, ...] = ()) -> list[Message]:
    """A prompt that goes on in columns of their own, `more`, which are taken out of `values`. Raises BadRow."""
    messages = as_prompt(prompt, name)
    for column in more:
        text = values.pop(column, None)
        if given(text):
            messages[-1]["content"] += "\n\n" + as_messages(text, column, "user")[0]["content"]
    return messages


def answers_in(value: Any) -> list[Any]:
    """The answers of a column: one, or a list of texts, or of lists of messages."""
    several = isinstance(value, list) and len(value) > 0 and all(isinstance(each, str | list) for each in value)
    return value if several else [value]


def numbered(name: str, count: int) -> list[str]:
    """The ids of what a row holds `count` of: its own, or its own and a number."""
    return [name] if count == 1 else [f"{name}-{number}" for number in range(1, count + 1)]


def transcript(text: str, name: str) -> list[Message]:
    r"""The messages of "\n\nHuman: …\n\nAssistant: …"; turns of one speaker in a row become one."""
    before, *turns = re.split(TURN, text)
    if before.strip() or not turns:
        raise BadRow(f"{name} is a text without a prompt: must be a transcript 'Human: … Assistant: …', or give prompt")
    messages: list[Message] = []
    for speaker, content in zip(turns[::2], turns[1::2], strict=True):
        role, content = SPEAKERS[speaker], content.strip()
        if messages and messages[-1]["role"] == role:
            content = f"{messages.pop()['content']}\n\n{content}".strip()
        messages.append({"role": role, "content": content})
    return messages


def opened(values: dict[str, Any], messages: list[Message], whole: bool = False) -> list[Message]:
    """The messages after the system prompt and the earlier turns that have columns of their own.

    These are taken out of `values`; `whole` says that the messages leave no room for earlier turns.
    Raises BadRow.
    """
    refuse(values, BESIDE, "")
    columns = {name: values.pop(name, None) for name in ("system", "system_prompt", "history")}
    columns = {name: value for name, value in columns.items() if given(value)}
    own = messages[:1] if messages and messages[0]["role"] == "system" else []
    rest = messages[len(own) :]
    history = _history(columns.pop("history")) if "history" in columns else []
    if history and whole:
        raise BadRow("history stands beside a whole conversation: put its turns there, or leave it out")
    for name, value in columns.items():
        system = as_messages(value, name, "system")
        if own and texts(own) != texts(system):
            raise BadRow(f"{name} is {kind(value)}, but there is another system prompt: leave one out")
        own = own or system
    return [*own, *history, *rest]


def _history(value: object) -> list[Message]:
    """Earlier turns: messages, a transcript, or [question, answer] each."""
    if isinstance(value, str) and re.match(TURN, value):
        return transcript(value, "history")
    if not isinstance(value, list):
        raise BadRow(f"history is {kind(value)}: must be a list of [question, answer], or of messages")
    if all(isinstance(turn, dict) for turn in value):
        return as_messages(value, "history")
    turns: list[Message] = []
    for number, turn in enumerate(value, 1):
        if not (isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn)):
            raise BadRow(f"history, turn {number} is {kind(turn)}: must be [question, answer]")
        turns += [Message(role="user", content=turn[0]), Message(role="assistant", content=turn[1])]
    return turns


def followed(prompt: list[Message], turns: list[Message], name: str) -> list[Message]:
    """Prompt and turns as one conversation; the turns may begin with the prompt, or with its end.

    Raises BadRow where both have a message of their own in one place.
    """
    asked, said = texts(prompt), texts(turns)
    for common in range(min(len(asked), len(said)), 0, -1):
        if asked[-common:] == said[:common]:
            return prompt + turns[common:]
    if any(said[start : start + len(asked)] == asked for start in range(len(said))):
        return turns
    joint = (asked[-1][0], said[0][0]) if asked and said else ()
    if joint and joint[1] != "assistant" and joint not in (("system", "user"), ("assistant", "user")):
        raise BadRow(f"prompt and {name} disagree: {name} must go on from prompt or repeat it; leave prompt out")
    return prompt + turns


def refuse(values: Mapping[str, Any], names: tuple[str, ...], place: str) -> None:
    """Raises BadRow for what would not reach the model."""
    for name in names:
        value = values.get(name)
        if given(value) and value is not False:
            remedy = "is not supported; write it into the text, or take it out of the file"
            raise BadRow(f"{place}{name} is {kind(value)}: {remedy}")


def unread(values: Mapping[str, Any]) -> Iterator[str]:
    """The keys of a row's messages that nothing reads, such as messages.name."""
    for column, messages in values.items():
        for message in messages if isinstance(messages, list) else ():
            if isinstance(message, dict) and ("role" in message or "from" in message):
                known = ("role", "from", "content", "value", "tool_calls", "function_call", *LEARNED)
                said = str(message.get("role") or message.get("from"))
                known += OF_RESULTS if CALLED.get(said, said) == "tool" else ()
                yield from (f"{column}.{key}" for key in message if key not in known and given(message[key]))


def texts(messages: list[Message]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"].strip()) for message in messages]
