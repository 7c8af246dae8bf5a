"""Target pairs as the code of ROSE (arXiv 2412.00631) writes them: preference.format=published."""

from typing import Any

from transformers import PreTrainedTokenizerBase

from rose.data.rows import EncodedPair, Message, PreferencePair
from rose.errors import RoseError
from rose.models.batching import IGNORED, Encoded

PROMPT = 256  # tokens that are left of the prompt of a pair that is too long
SPEAKERS = {"user": "\n\nHuman: ", "assistant": "\n\nAssistant: "}


def encode_published(tokenizer: PreTrainedTokenizerBase, row: PreferencePair, max_length: int) -> EncodedPair | None:
    r"""Chosen and rejected after a transcript, "\n\nHuman: …\n\nAssistant:" and " …"; no template, no BOS.

    Prompt and answers are tokenized apart, and each of them ends with an EOS token, unless it has
    one already; loss on the answers and their EOS. Where the prompt and the longer answer exceed
    `max_length`, 256 tokens of the prompt stay (half of `max_length`, if that is less): its last
    ones if it has several turns, as HH-RLHF's have, else its first ones, without its EOS. Where they
    still exceed it, both answers are cut on the right, to what such a prompt would leave. Texts are
    not stripped. None when the two answers, so cut, are the same. Raises RoseError for what has no
    place in such a transcript.
    """
    before, *answers = (_with_eos(tokenizer, text) for text in _texts(row))
    left = min(PROMPT, max_length // 2)
    longest = max(map(len, answers))
    if len(before) + longest > max_length:
        before = before[-left:] if len(row["prompt"]) > 1 else before[:left]
    if len(before) + longest > max_length:
        answers = [answer[: max_length - left] for answer in answers]
    chosen, rejected = (
        Encoded(input_ids=before + answer, labels=[IGNORED] * len(before) + answer) for answer in answers
    )
    return None if chosen == rejected else (chosen, rejected)


def _texts(row: PreferencePair) -> tuple[str, str, str]:
    """The transcript that precedes the answers, and the two."""
    (chosen, *more), (rejected, *others) = row["chosen"], row["rejected"]
    if more or others:
        raise RoseError("preference.format=published: an answer of several turns has no place in it; say template")
    prompt = "".join(map(_turn, row["prompt"]))
    return f"{prompt}\n\nAssistant:", f" {chosen['content']}", f" {rejected['content']}"


def _turn(message: Message) -> str:
    if message["role"] not in SPEAKERS:
        raise RoseError(f"preference.format=published: role={message['role']} has no place in it; say template")
    return SPEAKERS[message["role"]] + message["content"]


def _with_eos(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    if tokenizer.eos_token_id is None:
        raise RoseError(f"preference.format=published: {tokenizer.name_or_path} has no EOS token; say template")
    encoding: Any = tokenizer(text, add_special_tokens=False, verbose=False)
    ids: list[int] = encoding["input_ids"]
    eos: Any = tokenizer.eos_token_id
    return ids if eos in ids else [*ids, eos]
