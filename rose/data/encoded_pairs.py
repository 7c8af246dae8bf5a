"""The target pairs as the model reads them."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from rose.config.choices import PairFormat
from rose.data import files
from rose.data.chat import encode_pair
from rose.data.published import encode_published
from rose.data.rows import DroppedRow, EncodedPair, PreferencePair
from rose.errors import RoseError

ENCODERS = {PairFormat.template: encode_pair, PairFormat.published: encode_published}


def encoded_pairs(
    tokenizer: PreTrainedTokenizerBase, file: Path, max_length: int, format: PairFormat = PairFormat.template
) -> tuple[list[PreferencePair], list[EncodedPair], list[DroppedRow]]:
    """Target pairs, each one's two encoded answers, and those that cannot be encoded."""
    pairs: list[PreferencePair] = []
    encoded: list[EncodedPair] = []
    dropped: list[DroppedRow] = []
    for pair in files.load(file):
        try:
            both = ENCODERS[format](tokenizer, pair, max_length)
            reason = f"nothing left of an answer at model.max_length={max_length}"
        except ValueError as error:
            both, reason = None, str(error)
        if both is None:
            dropped.append({"id": pair["id"], "reason": reason})
        else:
            pairs.append(pair)
            encoded.append(both)
    if not pairs:
        why = dropped[0]["reason"]
        raise RoseError(f"model.max_length={max_length}: none of the {len(dropped)} target pairs fits ({why})")
    return pairs, encoded, dropped
