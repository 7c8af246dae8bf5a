"""The rows that the stages pass around, as they lie in a stage's .jsonl files; rows of files may have more columns."""

from typing import NotRequired, TypedDict


class Message(TypedDict):
    role: str
    content: str


class PoolRow(TypedDict):
    """A row of pool.jsonl: a conversation to learn from, and the columns its file had besides."""

    id: str
    dataset: str  # its source
    messages: list[Message]
    useful: NotRequired[bool]  # known of the embedded world's rows


class PreferencePair(TypedDict):
    """A row of target.jsonl or test.jsonl: two answers to one prompt, and the columns its file had besides."""

    id: str
    subtask: str
    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    score_ratio: NotRequired[float]  # votes of chosen over votes of rejected


class DroppedRow(TypedDict):
    """A row of dropped.jsonl: a pool row or preference pair that a stage goes without."""

    id: str
    reason: str


class Encoded(TypedDict):
    """labels[t] is input_ids[t] where the model is to learn it (from the tokens before t), else IGNORED."""

    input_ids: list[int]
    labels: list[int]


class EncodedRow(Encoded):
    """A pool row in the model's tokens."""

    id: str
    dataset: str


EncodedPair = tuple[Encoded, Encoded]  # chosen, rejected
