"""The layouts in which preference data are published, each turned into our own row."""

import json
import math
import re
from typing import Any, cast
from urllib.parse import urlsplit

from rose.data.bad_rows import BadRow
from rose.data.files import FileRow, row_id
from rose.data.messages import as_messages, as_prompt, followed, given, is_answer, opened, texts, transcript
from rose.data.rows import Message, PreferencePair

Sides = tuple[list[Message], list[Message], list[Message]]  # prompt, chosen, rejected

RESERVED = ("id", "score", "length", "planted")
SUBTASK = "all"  # of pairs that name none
UNBOUNDED = 2.0**1000  # a ratio to nothing; JSON has no infinity


def parse(row: FileRow, scored: bool = False) -> list[PreferencePair]:
    """The pairs that `row` holds; "score_ratio" is there where votes are. Raises BadRow.

    `scored` says that the ratio is read: then votes that are no numbers are refused.
    """
    values = row.values
    if {"history", "human_ref_A", "human_ref_B"} <= values.keys():
        pairs = [_shp(row, scored)]
    elif {"question", "answers"} <= values.keys():
        pairs = _stack_exchange(row)
    elif {"chosen", "rejected"} <= values.keys():
        pairs = [_pair(row, scored)]
    else:
        raise BadRow(
            "needs chosen and rejected (with prompt, or the whole conversation in both), "
            "SHP's history, human_ref_A and human_ref_B, or Stack Exchange's question and answers; "
            f"found {', '.join(values) or 'no columns'}"
        )
    for pair in pairs:
        _check(pair)
    return pairs


def _check(pair: PreferencePair) -> None:
    if not isinstance(pair["subtask"], str):
        raise BadRow(f"subtask is {json.dumps(pair['subtask'])[:60]}: must be a text")
    if pair["subtask"] in RESERVED:
        raise BadRow(f"subtask is {pair['subtask']!r}: a column of scores.parquet has that name, choose another")
    if not any(message["content"].strip() for message in pair["prompt"]):
        raise BadRow("prompt is empty")
    for name in ("chosen", "rejected"):
        answer = pair[name]
        if not answer or any(m["role"] == "assistant" and not m["content"].strip() for m in answer):
            raise BadRow(f"{name} has an empty answer")
        if not any(map(is_answer, answer)):
            raise BadRow(f"{name} has no answer to learn: each has weight 0 or train=false")
        if answer[0]["role"] != "assistant":
            raise BadRow(f"{name} begins with role={answer[0]['role']!r} after the prompt: must be assistant")
    if texts(pair["chosen"]) == texts(pair["rejected"]):
        raise BadRow("chosen and rejected are the same")


def _pair(row: FileRow, scored: bool) -> PreferencePair:
    """TRL's layouts (texts or messages, prompt given or implied) and HH-RLHF's transcripts."""
    other = dict(row.values)
    prompt, chosen, rejected = _sides({name: other.pop(name, None) for name in ("prompt", "chosen", "rejected")})
    prompt = [Message(role=each["role"], content=each["content"]) for each in opened(other, prompt)]
    other.pop("id", None)
    subtask = other.pop("subtask", None)
    named = {"id": row_id(row), "subtask": SUBTASK if subtask is None else subtask}
    pair = {**named, "prompt": prompt, "chosen": chosen, "rejected": rejected, **other}
    return cast(PreferencePair, pair | _ratio(other, scored))


def _ratio(values: dict[str, Any], scored: bool) -> dict[str, float]:
    """The score_ratio of a row's votes or scores, if it has any.

    It is chosen over rejected, so .9 against .1 is 9. Of the rejected there may be no votes or
    fewer: whole numbers up to 0 count as 1 vote, 6 against -2 is 6. A score above 0 against one
    that is not, such as .5 against 0, is UNBOUNDED. A chosen one that is not above 0 has a ratio
    that is not either, and is clear of nothing.
    """
    try:
        if {"score_chosen", "score_rejected"} <= values.keys():
            chosen, rejected = (_number(values[name], name) for name in ("score_chosen", "score_rejected"))
            if rejected > 0:
                return {"score_ratio": min(chosen / rejected, UNBOUNDED)}
            votes = chosen <= 0 or (chosen.is_integer() and rejected.is_integer())
            return {"score_ratio": chosen if votes else UNBOUNDED}
        if values.get("score_ratio") is not None or (scored and "score_ratio" in values):
            return {"score_ratio": _number(values["score_ratio"], "score_ratio")}
    except BadRow:
        if scored:
            raise
    return {}


def _sides(values: dict[str, Any]) -> Sides:
    prompt, chosen, rejected = values["prompt"], values["chosen"], values["rejected"]
    both = (chosen, rejected) if isinstance(chosen, str) and isinstance(rejected, str) else ()
    if both and (prompt is None or all(text.startswith("\n\nHuman:") for text in both)):
        chosen, rejected = transcript(chosen, "chosen"), transcript(rejected, "rejected")
    chosen = as_messages(chosen, "chosen", "assistant")
    rejected = as_messages(rejected, "rejected", "assistant")
    if chosen[0]["role"] != "assistant" and rejected[0]["role"] != "assistant":
        shared, chosen, rejected = _split(chosen, rejected)
        prompt = as_prompt(prompt, "prompt") if given(prompt) else []
        return followed(prompt, shared, "chosen"), chosen, rejected
    return as_prompt(prompt, "prompt"), chosen, rejected


def _split(chosen: list[Message], rejected: list[Message]) -> Sides:
    """Two whole conversations: the prompt is what they share."""
    shared = 0
    for one, other in zip(chosen, rejected, strict=False):
        if texts([one]) != texts([other]):
            break
        shared += 1
    if shared == len(chosen) == len(rejected):
        raise BadRow("chosen and rejected are the same")
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _shp(row: FileRow, scored: bool) -> PreferencePair:
    """stanfordnlp/SHP: labels is 1 where A is preferred, else 0; domain is subreddit and split."""
    values = row.values
    label = values.get("labels")
    if isinstance(label, bool) or label not in (0, 1, "0", "1"):
        raise BadRow(f"labels is {json.dumps(label)[:60]}: must be 1 (A preferred) or 0")
    chosen, rejected = ("A", "B") if int(label) else ("B", "A")
    name = "-".join(str(values[key]) for key in ("post_id", "c_root_id_A", "c_root_id_B") if values.get(key))
    pair: PreferencePair = {
        "id": name or row.name,
        "subtask": re.sub(r"_(train|validation|test)$", "", str(values.get("domain") or SUBTASK)),
        "prompt": as_messages(values["history"], "history", "user"),
        "chosen": as_messages(values[f"human_ref_{chosen}"], f"human_ref_{chosen}", "assistant"),
        "rejected": as_messages(values[f"human_ref_{rejected}"], f"human_ref_{rejected}", "assistant"),
    }
    published = {"score_ratio": values["score_ratio"]} if "score_ratio" in values else {}
    return cast(PreferencePair, pair | _ratio(published, scored))


def _stack_exchange(row: FileRow) -> list[PreferencePair]:
    """HuggingFaceH4/stack-exchange-preferences: the best answer against each of a lower pm_score.

    pm_score is about log₂(1 + votes), so the votes' ratio is about 2 to the difference. Texts stay
    HTML, as published.
    """
    values = row.values
    answers = values["answers"]
    if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
        raise BadRow("answers must be a list of objects with text and pm_score")
    scores = [_number(answer.get("pm_score"), "pm_score") for answer in answers]
    if not answers or min(scores) == max(scores):
        raise BadRow("has no two answers of different pm_score")
    best = scores.index(max(scores))
    site, name = _site(values.get("metadata")), f"{values.get('qid') or row.name}"
    return [
        {
            "id": f"{site}-{name}-{best}-{index}",
            "subtask": site,
            "prompt": as_messages(values["question"], "question", "user"),
            "chosen": as_messages(answers[best].get("text"), "text", "assistant"),
            "rejected": as_messages(answer.get("text"), "text", "assistant"),
            "score_ratio": 2.0 ** min(scores[best] - score, 1000),
            "metadata": values.get("metadata"),
        }
        for index, (answer, score) in enumerate(zip(answers, scores, strict=True))
        if score < scores[best]
    ]


def _site(metadata: object) -> str:
    """The site's short name, from the addresses kept for attribution."""
    links = metadata if isinstance(metadata, list) else [metadata]
    hosts = [_host(link) for link in links if isinstance(link, str)]
    return next((host.removesuffix(".com").removesuffix(".stackexchange") for host in hosts if host), SUBTASK)


def _host(link: str) -> str | None:
    try:
        return urlsplit(link).hostname
    except ValueError:  # an address that is none
        return None


def _number(value: Any, name: str) -> float:
    """A CSV file has numbers as text."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise BadRow(f"{name} is {json.dumps(value)[:60]}: must be a number")
    return number
