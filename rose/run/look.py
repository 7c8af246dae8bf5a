"""What a file is taken for.

Its layout, rows, turns and roles, why rows are refused or dropped, and with a model its lengths in
tokens and the first row as the model sees it: what is learned stands between ⟦ and ⟧. FILE is whatever
dataset.path may be; it is read as a pool, as preference pairs, or as both where its columns fit both.
"""

import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy
from transformers import PreTrainedTokenizerBase

from rose import keys
from rose.config import CONF
from rose.config.choices import OnBadRow
from rose.config.compose import one_job, typed
from rose.config.schema import Config
from rose.data import calls, chat, files, pool, pool_layouts, preference_formats
from rose.data.bad_rows import BadRow, given
from rose.data.encoded_pairs import ENCODERS
from rose.data.files import FileRow, Location
from rose.data.rows import Message, PoolRow, PreferencePair
from rose.data.sources import Split
from rose.errors import RoseError
from rose.models import loading
from rose.models.batching import IGNORED, Encoded
from rose.run.names import register_resolvers
from rose.training.base_model import prepare

WHOLE = 1 << 40  # tokens: nothing is cut
REASONS = 5  # that are printed


class Kind(NamedTuple):
    """How rows of one kind are read and shown."""

    name: str
    layout: Callable[[FileRow], str]  # raises BadRow
    rows: Callable[[Iterable[FileRow]], Iterable[FileRow]]  # as the job reads them
    parse: Callable[[FileRow], list[Any]]
    messages: Callable[[Any], list[Message]]
    encode: Callable[[PreTrainedTokenizerBase, Any, int], Sequence[Encoded] | None]
    columns: set[str]  # of its rows; what else a row has is shown to no model
    on_bad_row: str  # the key that says what a job does at a bad row


def look(path: str, config: Config, tokenizer: PreTrainedTokenizerBase | None) -> Iterator[str]:
    """The lines to print. RoseError where no row of the file has a layout."""
    location = Location("dataset.path", path, list(config.dataset.files), config.dataset.revision, Split.train)
    kinds, refusals = _kinds(config), dict[str, str]()  # the first of each kind
    found = {kind.name: Counter[str]() for kind in kinds}
    for row in files.read_rows(location):
        for kind in kinds:
            try:
                found[kind.name][kind.layout(row)] += 1
            except BadRow as error:
                refusals.setdefault(kind.name, f"{row.place}: {error}")
    fitting = [kind for kind in kinds if found[kind.name]]
    if not fitting:
        first = dict.fromkeys(refusals.values())  # once where it is the file that is broken
        told = [f"as {name}: {refusal}" for name, refusal in refusals.items()] if len(first) > 1 else [*first]
        raise RoseError("; ".join(told) or f"{path}: has no rows")
    for kind in fitting:
        yield f"{path}: {kind.name}, layout {files.counts(found[kind.name])}"
        yield from _described(kind, location, config.model.max_length, tokenizer)


def _kinds(config: Config) -> list[Kind]:
    layout, encode = config.preference.pairs.layout, ENCODERS[config.preference.format]
    return [
        Kind(
            "a pool",
            lambda row: pool_layouts.layout_of(_values(row)),
            lambda rows: rows,
            pool.parse,
            lambda row: row["messages"],
            lambda tokenizer, row, length: _one(chat.encode(tokenizer, row["messages"], length, row.get("tools"))),
            set(PoolRow.__annotations__),
            "dataset.on_bad_row",
        ),
        Kind(
            "preference pairs",
            lambda row: preference_formats.layout_of(_values(row), layout)[0],
            partial(preference_formats.gathered, layout=layout),
            partial(preference_formats.parse, layout=layout),
            lambda row: row["prompt"] + row["chosen"],
            encode,
            {*PreferencePair.__annotations__, "score_chosen", "score_rejected"},
            "preference.pairs.on_bad_row",
        ),
    ]


def _described(
    kind: Kind, location: Location, max_length: int, tokenizer: PreTrainedTokenizerBase | None
) -> Iterator[str]:
    turns, roles, lengths, dropped, cut, first = [], Counter[str](), [], Counter[str](), 0, None
    others = Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        skipped = Path(folder) / "skipped.jsonl"
        source = kind.rows(files.read_rows(location))
        for row in files.sift(source, kind.parse, kind.on_bad_row, OnBadRow.skip, skipped):
            messages = kind.messages(row)
            turns.append(len(messages))
            roles.update(message["role"] for message in messages)
            others.update(name for name in row.keys() - kind.columns if given(row[name]))
            shown: Any = messages
            if tokenizer is not None:
                shown, length, reason = _in_tokens(kind, tokenizer, row, max_length)
                dropped.update([reason] if reason else [])
                lengths += [length] if length else []
                cut += length > max_length
            first = first or shown
        refused = list(files.load(skipped)) if skipped.exists() else []
    dropped.update(each["reason"] for each in refused)
    yield f"  rows     {len(turns)}"
    if turns:
        yield f"  turns    {min(turns)} to {max(turns)}, {numpy.mean(turns):.1f} on average"
    yield f"  roles    {files.counts(roles) or 'none'}"
    if others:
        yield f"  unread   {files.counts(others)}: columns that are kept, but shown to no model"
    if lengths:
        low, middle, high = numpy.percentile(lengths, (0, 50, 95))
        spread = f"{low:.0f} to {max(lengths)}, median {middle:.0f}, 95 % at most {high:.0f}"
        yield f"  tokens   {spread}; {cut} are longer than model.max_length={max_length}"
    where = f", the first in {refused[0]['file']}, line {refused[0]['line']}" if refused else ""
    stops = f": a job stops there, unless {kind.on_bad_row}=skip" if refused else ""
    yield f"  dropped  {dropped.total()}{where}{stops}"
    yield from (f"           {count}: {reason}" for reason, count in dropped.most_common(REASONS))
    if len(dropped) > REASONS:
        yield f"           and {len(dropped) - REASONS} other reasons"
    if first:
        yield "  the first row as the model sees it:" if tokenizer else "  the first row (model= shows it in tokens):"
        yield from (_marked(tokenizer, each) if tokenizer else _plain(each) for each in first)


def _in_tokens(
    kind: Kind, tokenizer: PreTrainedTokenizerBase, row: Any, max_length: int
) -> tuple[Sequence[Encoded] | None, int, str | None]:
    """The row as it is trained on, its whole length, and why it is dropped, if it is."""
    try:
        whole = kind.encode(tokenizer, row, WHOLE)
        length = max((len(each["input_ids"]) for each in whole or ()), default=0)
        fits = whole if length <= max_length else kind.encode(tokenizer, row, max_length)
    except RoseError as error:
        return None, 0, str(error)
    return fits, length, None if fits else f"nothing is left to learn within model.max_length={max_length}"


def _marked(tokenizer: PreTrainedTokenizerBase, row: Encoded) -> str:
    """The tokens as text, each run of labelled ones between marks."""
    pairs = zip(row["input_ids"], row["labels"], strict=True)
    runs = itertools.groupby(pairs, key=lambda pair: pair[1] != IGNORED)
    texts = ((learned, str(tokenizer.decode([token for token, _ in run]))) for learned, run in runs)
    return "".join(f"⟦{text}⟧" if learned else text for learned, text in texts)


def _plain(message: Message) -> str:
    return f"[{message['role']}] {message['content']}{calls.said(message)}"


def _values(row: FileRow) -> dict[str, Any]:
    if row.error is not None:
        raise row.error
    return row.values


def _one(row: Encoded | None) -> list[Encoded] | None:
    return None if row is None else [row]


def _tokenizer(config: Config) -> PreTrainedTokenizerBase:
    """As the job's stages have it."""
    base = config.model.base
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), base, loading.fingerprint(base), **keys.template(config.model))
        return loading.load_tokenizer(Path(folder))


def _overrides(path: str, given: list[str]) -> list[str]:
    """Those of a job that reads the file; a model is one of conf/model, a folder or a hub id."""
    data = [f"{group}=local" for group in ("dataset", "preference")]
    data += [f"{group}.path={_quoted(path)}" for group in ("dataset", "preference")]
    model = next((text.partition("=")[2] for text in given if text.startswith("model=")), None)
    others = [text for text in given if not text.startswith("model=")]
    if model is not None and (CONF / "model" / f"{model}.yaml").exists():
        return [*data, f"model={model}", *others]
    return [*data, "model=local", f"model.base.path={_quoted(model or 'none')}", *others]


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def show(path: str, overrides: list[str]) -> None:
    """Prints what the file is taken for."""
    register_resolvers()
    config = typed(one_job(_overrides(path, overrides)))
    has_model = any(text.startswith("model=") for text in overrides)
    for line in look(path, config, _tokenizer(config) if has_model else None):
        print(line)
