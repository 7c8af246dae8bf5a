"""Pairs as the model reads them."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from rose.config.choices import PairFormat
from rose.data import files
from rose.data.chat import encode_pair
from rose.data.dropping import kept
from rose.data.published import encode_published
from rose.data.rows import DroppedRow, EncodedPair, PreferencePair
from rose.errors import RoseError

ENCODERS = {PairFormat.template: encode_pair, PairFormat.published: encode_published}


def encoded_pairs(
    tokenizer: PreTrainedTokenizerBase, file: Path, max_length: int, format: PairFormat = PairFormat.template
) -> tuple[list[PreferencePair], list[EncodedPair], list[DroppedRow]]:
    """The pairs of a file, each one's two encoded answers, and those that nothing is left of."""
    dropped: list[DroppedRow] = []
    found = list(encodable(tokenizer, files.load(file), max_length, dropped, format))
    if not found:
        why = f" ({dropped[0]['reason']})" if dropped else ""
        raise RoseError(f"model.max_length={max_length}: none of the {len(dropped)} {file.stem} pairs fits{why}")
    return [pair for pair, _ in found], [both for _, both in found], dropped


def encodable(
    tokenizer: PreTrainedTokenizerBase,
    pairs: Iterable[PreferencePair],
    max_length: int,
    dropped: list[DroppedRow],
    format: PairFormat = PairFormat.template,
) -> Iterator[tuple[PreferencePair, EncodedPair]]:
    """Each pair with its two encoded answers, as far as `pairs` are read; the others join `dropped`."""
    nothing = f"nothing is left of an answer, or of their difference, at model.max_length={max_length}"
    return kept(pairs, lambda pair: ENCODERS[format](tokenizer, pair, max_length), nothing, dropped.append)
