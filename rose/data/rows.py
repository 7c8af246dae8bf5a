"""The rows that stages pass around, as they lie in their .jsonl files."""

from typing import NotRequired, TypedDict

from rose.models.batching import Encoded


class Function(TypedDict):
    name: str
    arguments: str  # a JSON object


class ToolCall(TypedDict):
    id: NotRequired[str]
    type: str
    function: Function


class Message(TypedDict):
    role: str
    content: str
    train: NotRequired[bool]  # False: an answer that is read, but not learned
    tool_calls: NotRequired[list[ToolCall]]  # of an answer
    name: NotRequired[str]  # of a tool's result: which one's
    tool_call_id: NotRequired[str]


class Conversation(TypedDict):
    id: str
    messages: list[Message]


class PoolRow(Conversation):
    """A row of pool.jsonl: a conversation to learn from, and its file's other columns."""

    dataset: str  # its source
    tools: NotRequired[str]  # those that may be called: a JSON list, for the chat template
    useful: NotRequired[bool]  # known of the embedded world's rows
    planted: NotRequired[str]  # the fault that it was given (rose.data.planting)
    control: NotRequired[str]  # the fault that it could have been given


class PreferencePair(TypedDict):
    """A row of target.jsonl or test.jsonl: a prompt, two answers, and its file's other columns."""

    id: str
    subtask: str
    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    score_ratio: NotRequired[float]  # votes of chosen over votes of rejected
    planted: NotRequired[str]  # the fault of the rejected answer
    metadata: NotRequired[object]  # of Stack Exchange: links for attribution


class DroppedRow(TypedDict):
    """A row of dropped.jsonl: a pool row or preference pair that a stage goes without."""

    id: str
    reason: str


class EncodedRow(Encoded):
    """A pool row in the model's tokens."""

    id: str
    dataset: str


EncodedPair = tuple[Encoded, Encoded]  # chosen, rejected
