"""What a row says, as messages: what can be honoured is, and the rest refused by its name."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from rose.data.bad_rows import BadRow
from rose.data.rows import Message

ROLES = ("system", "user", "assistant")
SPEAKERS = {"Human": "user", "Assistant": "assistant"}
TURN = r"(?:^|\n\n)(Human|Assistant):"
LEARNED = ("weight", "train", "training", "trainable", "loss")  # keys by which files say whether a message is learned
# What a model would be shown or taught beside the texts: of a row or a message, and of a message alone.
BESIDE = (
    *("tools", "functions", "documents", "chat_template_kwargs", "reasoning_content"),
    *("image", "images", "audio", "audios", "video", "videos"),
)
SPOKEN = (*BESIDE, "tool_calls", "function_call", "reasoning", "thinking", "refusal")


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
    if not isinstance(value, dict):
        raise BadRow(f"{place} is {kind(value)}: must have role and content")
    if value.get("role") not in ROLES:
        raise BadRow(f"{place}: role={value.get('role')!r} must be one of {', '.join(ROLES)}")
    refuse(value, SPOKEN, f"{place}: ")
    if not isinstance(value.get("content"), str):
        raise BadRow(f"{place}: content is {kind(value.get('content'))}, must be a text")
    message: Message = {"role": value["role"], "content": value["content"]}
    return message if _learned(value, place) else {**message, "train": False}


def _learned(message: Mapping[str, Any], place: str) -> bool:
    """Whether nothing says that an answer is not to be learned; of other messages none ever is."""
    said = {key: message[key] for key in LEARNED if given(message.get(key))}
    for key, value in said.items():
        if value not in (0, 1):
            raise BadRow(f"{place}: {key} is {kind(value)}, must be 0 or 1 (false or true)")
        if value and message["role"] != "assistant":
            raise BadRow(f"{place}: {key} is {kind(value)}, but only an assistant's messages are learned; leave it out")
    return message["role"] != "assistant" or all(said.values())


def is_answer(message: Message) -> bool:
    """Whether there is something to learn from it."""
    return message["role"] == "assistant" and bool(message["content"].strip()) and message.get("train", True)


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
            if isinstance(message, dict) and "role" in message:
                known = ("role", "content", *LEARNED)
                yield from (f"{column}.{key}" for key in message if key not in known and given(message[key]))


def given(value: object) -> bool:
    """Tables have null, NaN or an empty text where a row has nothing."""
    return value not in (None, "", [], {}) and value == value and not (isinstance(value, str) and not value.strip())


def texts(messages: list[Message]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"].strip()) for message in messages]


def kind(value: object) -> str:
    return "missing or null" if value is None else f"{json.dumps(value)[:40]}"
