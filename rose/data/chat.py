"""Conversations as tokens: the one place that knows chat templates, answer masks and truncation."""

import json
import logging
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow
from datasets.table import MemoryMappedTable
from transformers import PreTrainedTokenizerBase

from rose.data import calls, files
from rose.data.calls import END, START
from rose.data.dropping import kept
from rose.data.rows import DroppedRow, EncodedPair, EncodedRow, Message, PoolRow, PreferencePair
from rose.errors import RoseError
from rose.models import loading
from rose.models.batching import IGNORED, Encoded
from rose.progress import track
from rose.stages.graph import stage

log = logging.getLogger(__name__)

TULU = (  # line breaks as expressions: transformers' Jinja eats one that follows a block
    "{{ first }}{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] }}"
    "{{ (eos_token if message['role'] == 'assistant' else '') + '\n' }}{% endfor %}"
)
# for templates that print the date: a stage must not read the clock
TODAY = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}"
SYSTEM = "\ufdd2"  # as calls.START and calls.END, a code point that Unicode keeps out of texts


def encode(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], max_length: int, tools: str | None = None
) -> Encoded | None:
    """One training row: loss on every answer that is to be learned, and its end of turn; cut on the right.

    `tools` is a pool row's JSON list of them. None when no label is left that has a token before it.
    Raises RoseError if the template refuses the messages, or does not show what they say of tools.
    """
    ids, labels = _encode(tokenizer, messages, 0, tools)
    row: Encoded = {"input_ids": ids[:max_length], "labels": labels[:max_length]}
    return row if _learns(row) else None


def encode_pair(tokenizer: PreTrainedTokenizerBase, row: PreferencePair, max_length: int) -> EncodedPair | None:
    """Chosen and rejected of a preference row; loss on the answer after the prompt only.

    A pair that is too long loses the left of its prompt (after a BOS token), by the same amount in
    both, so that the answers survive and see the same prompt. The prompt keeps a quarter of
    `max_length`, or all of itself if shorter: a longer answer is cut on the right. None when
    nothing is left to learn or the two answers, so cut, are the same.
    """
    sides = [_encode(tokenizer, row["prompt"] + row[name], len(row["prompt"])) for name in ("chosen", "rejected")]
    starts = [_first_label(labels) for _, labels in sides]
    prompt = max(starts)
    longest = max(len(ids) - start for (ids, _), start in zip(sides, starts, strict=True))
    answer = min(longest, max_length - min(prompt, max_length // 4))
    pair: list[Encoded] = []
    for (ids, labels), start in zip(sides, starts, strict=True):
        before = _cut_left(tokenizer, ids[:start], max_length - answer)
        stop = start + answer
        pair.append(Encoded(input_ids=before + ids[start:stop], labels=[IGNORED] * len(before) + labels[start:stop]))
    chosen, rejected = pair
    if not (_learns(chosen) and _learns(rejected)) or chosen["input_ids"] == rejected["input_ids"]:
        return None
    return chosen, rejected


def encode_answer(tokenizer: PreTrainedTokenizerBase, prompt: list[Message], answer: str, max_length: int) -> Encoded:
    """A prompt and an answer; loss on the answer only. Too long, the prompt loses its left."""
    ids, labels = _encode(tokenizer, [*prompt, {"role": "assistant", "content": answer}], len(prompt))
    start = _first_label(labels)
    before = _cut_left(tokenizer, ids[:start], max(1, max_length - len(ids[start:])))
    return Encoded(input_ids=before + ids[start:], labels=[IGNORED] * len(before) + labels[start:])


def said(messages: list[Message]) -> str:
    """The text of a conversation, whoever says it; calls of tools as JSON."""
    return "\n".join(message["content"] + calls.said(message) for message in messages)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: list[Message], max_length: int) -> list[int]:
    """What precedes an answer in training; too long, it loses its left, but no BOS.

    A template's own generation prompt may be something else, such as one without the empty thoughts
    that the template puts before an answer.
    """
    # a letter: the space that precedes an answer is, as a rule, in one token with it
    ids, labels = _encode(tokenizer, [*messages, {"role": "assistant", "content": "I"}], len(messages))
    return _cut_left(tokenizer, ids[: _first_label(labels)], max_length)


def turn_ends(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[str]]:
    """Where an answer is over: special tokens, and texts where the template has no such token there.

    What is learned as the end of a turn, and what begins the next one where nothing ends it.
    """
    ids, texts = [], []
    for end in dict.fromkeys((end_of_turn(tokenizer), next_turn(tokenizer))):
        if found := special(tokenizer, end):
            ids.append(tokenizer.convert_tokens_to_ids(found.group()))
        else:  # as the tokenizer writes it: some know no line breaks
            texts.append(str(tokenizer.decode(tokenizer(end, add_special_tokens=False)["input_ids"])).rstrip())
    return ids, [text for text in texts if text]


@stage("tokens", version=1)
def tokenize(out: Path, max_length: int, base: Path, pool: Path) -> None:
    """Writes rows/ (a saved Dataset, an EncodedRow each) and dropped.jsonl (a DroppedRow a line).

    Streams: memory does not grow with the pool. Raises RoseError if no row is left.
    """
    dropped = out / "dropped.jsonl"
    dropped.touch()
    saved = save_rows(out, _rows(loading.load_tokenizer(base), pool / "pool.jsonl", max_length, dropped))
    lost: list[DroppedRow] = list(files.load(dropped))
    if not saved:
        raise RoseError(f"model.max_length={max_length}: no row of the pool is left to train on ({lost[0]['reason']})")
    if lost:
        log.warning("tokens: dropped %d of %d rows; reasons in %s", len(lost), len(lost) + saved, dropped.name)


def save_rows(out: Path, rows: Iterator[EncodedRow]) -> int:
    """Streams encoded rows into rows/, a saved Dataset; how many."""
    lists = pyarrow.list_(pyarrow.int32())
    schema = pyarrow.schema({"id": pyarrow.string(), "dataset": pyarrow.string(), "input_ids": lists, "labels": lists})
    stream = out / "rows.arrow"
    with pyarrow.OSFile(str(stream), "wb") as sink, pyarrow.ipc.new_stream(sink, schema) as writer:
        while batch := list(islice(rows, 1000)):
            writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, schema))
    table = MemoryMappedTable.from_file(str(stream))
    datasets.disable_progress_bars()
    # by itself the library names a dataset after the moment it was made
    datasets.Dataset(table, fingerprint="rows").save_to_disk(out / "rows")
    stream.unlink()
    return len(table)


def _rows(tokenizer: PreTrainedTokenizerBase, pool: Path, max_length: int, dropped: Path) -> Iterator[EncodedRow]:
    rows = track(files.load(pool), "tokens", files.count(pool))
    nothing, drop = f"no answer token within {max_length} tokens", partial(files.append, dropped)

    def in_tokens(row: PoolRow) -> Encoded | None:
        return encode(tokenizer, row["messages"], max_length, row.get("tools"))

    for row, encoded in kept(rows, in_tokens, nothing, drop):
        yield {"id": row["id"], "dataset": row["dataset"], **encoded}


def _encode(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], first: int, tools: str | None = None
) -> tuple[list[int], list[int]]:
    """ids and labels of the whole conversation; answers among `messages[first:]` are labelled.

    The text is tokenized in one piece, as pieces would come out differently at their seams; a token
    is labelled if any of its characters belongs to an answer.
    """
    if not tokenizer.is_fast:
        raise RoseError(
            f"{tokenizer.name_or_path}: needs a fast tokenizer, to know which characters a token stands for"
        )
    text, spans = _answers(tokenizer, _stripped(messages), first, tools)
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, labels = encoding["input_ids"], [IGNORED] * len(encoding["input_ids"])
    lefts, rights = ([offset[side] for offset in encoding["offset_mapping"]] for side in (0, 1))
    for start, stop in spans:  # both ascend: a conversation of thousands of turns takes no longer for it
        inside = slice(bisect_right(rights, start), bisect_left(lefts, stop))
        labels[inside] = ids[inside]
    return ids, labels


def _answers(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], first: int, tools: str | None
) -> tuple[str, list[tuple[int, int]]]:
    """The rendered conversation and the character range of each answer, end-of-turn included.

    Answers are found by rendering with marks around them, which holds for any template that prints
    them whole; those that call tools by `calls.span`. System turns have a mark at their end, lest one
    is lost.
    """
    learned = [i for i, each in enumerate(messages) if i >= first and each["role"] == "assistant" and _trains(each)]
    calling = [index for index in learned if "tool_calls" in messages[index]]
    marked = [_marked(each, i in learned and i not in calling) for i, each in enumerate(messages)]
    rendered = render(tokenizer, marked, tools)
    if rendered.count(SYSTEM) < sum(SYSTEM in message["content"] for message in marked):
        raise RoseError("the chat template leaves out a system turn of this conversation")
    pieces = re.split(f"[{START}{END}]", rendered.replace(SYSTEM, ""))
    text = "".join(pieces)
    if len(pieces) != 2 * (len(learned) - len(calling)) + 1 or text != render(tokenizer, messages, tools):
        raise RoseError("the chat template changes or leaves out an answer of this conversation")
    spans, position = [], 0
    for before, answer in zip(pieces[:-1:2], pieces[1::2], strict=True):
        start = position + len(before)
        position = start + len(answer)
        spans.append((start, position))
    spans = _with_ends(tokenizer, text, spans)
    if tools and text == render(tokenizer, messages):
        raise RoseError("the chat template takes no tools, which this row has")
    write = partial(render, tokenizer, tools=tools)
    calls.all_shown(write, messages)
    spans += [calls.span(write, messages, index, text, end_of_turn(tokenizer).strip()) for index in calling]
    return text, sorted(spans)


def _with_ends(tokenizer: PreTrainedTokenizerBase, text: str, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Answers together with what ends their turns."""
    ends = [end_of_turn(tokenizer)]
    if ends[0] and not all(text.startswith(ends[0], stop) for _, stop in spans):
        ends.append(next_turn(tokenizer))  # OLMo 3's last answer ends otherwise than those before
    return [(start, stop + next((len(end) for end in ends if text.startswith(end, stop)), 0)) for start, stop in spans]


def _marked(message: Message, learned: bool) -> Message:
    role, content = message["role"], message["content"]
    if role == "system" and (said := content.rstrip()):  # before white space, which some templates strip
        return Message(role=role, content=f"{said}{SYSTEM}{content[len(said) :]}")
    return Message(role=role, content=f"{START}{content}{END}") if learned else message


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the template puts after an answer, up to a special token: `<|im_end|>`, ` </s>`, …"""
    turn: list[Message] = [{"role": "user", "content": "?"}, {"role": "assistant", "content": f"!{END}"}]
    return _to_special(tokenizer, render(tokenizer, turn).partition(END)[2])


def next_turn(tokenizer: PreTrainedTokenizerBase) -> str:
    """The same where a user's turn follows: that one's beginning, if nothing ends an answer."""
    turns: list[Message] = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": f"!{END}"},
        {"role": "user", "content": f"{START}?"},
    ]
    return _to_special(tokenizer, render(tokenizer, turns).partition(END)[2].partition(START)[0])


def _to_special(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    match = special(tokenizer, text)
    return text[: match.end()] if match else text.rstrip()


def special(tokenizer: PreTrainedTokenizerBase, text: str) -> re.Match[str] | None:
    """The first special token in a text."""
    added: Any = tokenizer.get_added_vocab  # every tokenizer's method, which their base class lacks
    marks = [re.escape(token) for token in added() if token.strip()]
    return re.search("|".join(sorted(marks, key=len, reverse=True)), text) if marks else None


def render(tokenizer: PreTrainedTokenizerBase, messages: list[Message], tools: str | None = None) -> str:
    """The conversation as its template writes it. Raises RoseError where it refuses, or has none."""
    first, template = "", TULU
    if tokenizer.chat_template:
        template = tokenizer.get_chat_template()
        template = TODAY + template if "strftime_now" in template else template
    elif tokenizer.eos_token is None:
        raise RoseError(f"{tokenizer.name_or_path}: has neither a chat template nor an EOS token to end an answer")
    elif tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]:
        first = tokenizer.bos_token
    conversation = [calls.for_template(message) for message in messages]
    more: dict[str, Any] = {"tools": json.loads(tools)} if tools else {}
    try:
        text = tokenizer.apply_chat_template(conversation, chat_template=template, tokenize=False, first=first, **more)
    except Exception as err:  # a template is a program of other people, which may fail in any way
        raise RoseError(f"the chat template refuses this conversation ({' '.join(str(err).split())})") from err
    assert isinstance(text, str)
    return text


def _stripped(messages: list[Message]) -> list[Message]:
    """Answers without outer white space: some templates strip it, none should learn it."""
    return [
        {**message, "content": message["content"].strip()} if message["role"] == "assistant" else message
        for message in messages
    ]


def _cut_left(tokenizer: PreTrainedTokenizerBase, ids: list[int], length: int) -> list[int]:
    if len(ids) <= length:
        return ids
    head = ids[:1] if length > 1 and ids[0] == tokenizer.bos_token_id else []
    return head + ids[len(ids) - length + len(head) :]


def _first_label(labels: list[int]) -> int:
    return next((i for i, label in enumerate(labels) if label != IGNORED), len(labels))


def _trains(message: Message) -> bool:
    return message.get("train", True)


def _learns(row: Encoded) -> bool:
    return any(label != IGNORED for label in row["labels"][1:])
