"""The layouts in which preference data are published, a function each, which returns a row's pairs.

A pair that has votes keeps them as score_chosen and score_rejected, or as score_ratio.
"""

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from rose.config.choices import PairLayout
from rose.data.bad_rows import BadRow, given, kind
from rose.data.files import FileRow, row_id
from rose.data.layouts import Layout
from rose.data.messages import answers_in, as_messages, as_prompt, asked, followed, numbered, opened, texts, transcript
from rose.data.rows import Message

Sides = tuple[list[Message], list[Message], list[Message]]  # prompt, chosen, rejected
Pairs = list[dict[str, Any]]

SUBTASK = "all"  # of pairs that name none
GATHERED = "rows of its prompt"  # a column that no file has: all rows of one prompt, for what has an answer a row
TURN_OF_HELPSTEER = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")


def _sided(row: FileRow, columns: list[str]) -> Pairs:
    """TRL's layouts (texts or messages, prompt given or implied), HH-RLHF's, and others' names for the prompt.

    Of several rejected answers each makes a pair.
    """
    other = dict(row.values)
    question = columns[0] if len(columns) == 3 else "prompt"
    before = other.pop(question, None)
    if question in ("instruction", "conversations"):
        before = asked(other, before, question, more=("input",) if question == "instruction" else ())
    chosen, rejected = other.pop("chosen"), answers_in(other.pop("rejected"))
    other.pop("id", None)
    names = numbered(row_id(row), len(rejected))
    subtask = other.pop("subtask", None)
    pairs = []
    for name, each in zip(names, rejected, strict=True):
        more = dict(other)
        prompt, better, worse = _sides(before, chosen, each)
        prompt = [Message(role=message["role"], content=message["content"]) for message in opened(more, prompt)]
        named = {"id": name, "subtask": SUBTASK if subtask is None else subtask}
        pairs.append({**named, "prompt": prompt, "chosen": better, "rejected": worse, **more})
    return pairs


def _sides(prompt: Any, chosen: Any, rejected: Any) -> Sides:
    both = (chosen, rejected) if isinstance(chosen, str) and isinstance(rejected, str) else ()
    if both and (prompt is None or all(text.startswith("\n\nHuman:") for text in both)):
        chosen, rejected = transcript(chosen, "chosen"), transcript(rejected, "rejected")
    chosen, rejected = _answer(chosen, "chosen"), _answer(rejected, "rejected")
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


def _nectar(row: FileRow, columns: list[str]) -> Pairs:
    """berkeley-nest/Nectar: answers have a rank, 1 is the best; it is set against each of the others."""
    answers = _objects(row.values["answers"], "answers", "answer and rank")
    ranks = [number_of(answer.get("rank"), "rank") for answer in answers]
    return _best_first(row, [answer.get("answer") for answer in answers], [-rank for rank in ranks], "answer", "rank")


def _safe_rlhf(row: FileRow, columns: list[str]) -> Pairs:
    """PKU-Alignment/PKU-SafeRLHF by better_response_id; safer_response_id is another question."""
    better = _one_of(row.values["better_response_id"], "better_response_id", (0, 1), "0 or 1")
    return [_pair(row, columns[0], f"response_{better}", f"response_{1 - better}")]


def _by_strength(row: FileRow, columns: list[str]) -> Pairs:
    """nvidia/HelpSteer2 (preference/) and HelpSteer3: below 0 the first answer is the better one."""
    question, first, second, name = columns
    strength = number_of(row.values[name], name)
    if strength == 0:
        raise BadRow(f"{name} is 0: neither answer is the better one")
    return [_pair(row, question, *((first, second) if strength < 0 else (second, first)))]


def _arena(row: FileRow, columns: list[str]) -> Pairs:
    """lmsys/chatbot_arena_conversations: two whole conversations, and which model won."""
    sides = {name: as_messages(row.values[f"conversation_{name}"], f"conversation_{name}") for name in ("a", "b")}
    winner = row.values["winner"]
    if winner not in ("model_a", "model_b"):
        raise BadRow(f"winner is {kind(winner)}: neither answer is the better one (model_a or model_b)")
    better, worse = ("a", "b") if winner == "model_a" else ("b", "a")
    prompt, chosen, rejected = _split(sides[better], sides[worse])
    if not prompt:
        raise BadRow("conversation_a and conversation_b begin differently: the answers are not to one prompt")
    name = row.values.get("id") or row.values.get("question_id") or row.name
    prompt = opened(dict(row.values), prompt, whole=True)
    return [{"id": str(name), "subtask": SUBTASK, "prompt": prompt, "chosen": chosen, "rejected": rejected}]


def _paired(row: FileRow, columns: list[str]) -> Pairs:
    """lvwerra/stack-exchange-paired: response_j is the better one."""
    metadata = row.values.get("metadata")
    return [{**_pair(row, *columns), "subtask": _site(metadata), "metadata": metadata}]


def _stack_exchange(row: FileRow, columns: list[str]) -> Pairs:
    """HuggingFaceH4/stack-exchange-preferences: the best answer against each of a lower pm_score.

    pm_score is about log₂(1 + votes), so the votes' ratio is about 2 to the difference. Texts stay
    HTML, as published.
    """
    values = row.values
    answers = _objects(values["answers"], "answers", "text and pm_score")
    scores = [number_of(answer.get("pm_score"), "pm_score") for answer in answers]
    better = _better(scores, "pm_score")
    site, name = _site(values.get("metadata")), f"{values.get('qid') or row.name}"
    prompt = opened(dict(values), as_messages(values["question"], "question", "user"))
    return [
        {
            "id": f"{site}-{name}-{best}-{worse}",
            "subtask": site,
            "prompt": prompt,
            "chosen": as_messages(answers[best].get("text"), "text", "assistant"),
            "rejected": as_messages(answers[worse].get("text"), "text", "assistant"),
            "score_ratio": 2.0 ** min(scores[best] - scores[worse], 1000),
            "metadata": values.get("metadata"),
        }
        for best, worse in better
    ]


def _shp(row: FileRow, columns: list[str]) -> Pairs:
    """stanfordnlp/SHP: labels is 1 where A is preferred, else 0; domain is subreddit and split."""
    values, others = row.values, {name: value for name, value in row.values.items() if name != "history"}
    label = _one_of(values.get("labels"), "labels", (0, 1), "1 (A preferred) or 0")
    chosen, rejected = ("A", "B") if label else ("B", "A")
    name = "-".join(str(values[key]) for key in ("post_id", "c_root_id_A", "c_root_id_B") if values.get(key))
    pair = {
        "id": name or row.name,
        "subtask": re.sub(r"_(train|validation|test)$", "", str(values.get("domain") or SUBTASK)),
        "prompt": opened(others, as_messages(values["history"], "history", "user")),
        "chosen": as_messages(values[f"human_ref_{chosen}"], f"human_ref_{chosen}", "assistant"),
        "rejected": as_messages(values[f"human_ref_{rejected}"], f"human_ref_{rejected}", "assistant"),
    }
    return [pair | ({"score_ratio": values["score_ratio"]} if "score_ratio" in values else {})]


def _one_a_row(row: FileRow, columns: list[str]) -> Pairs:
    """Rows of one answer each, which `gathered` has put together by their prompt: the best against each worse one."""
    _, answer, name = columns
    rows = row.values.get(GATHERED, [row.values])
    scores = [score_of(each, name) for each in rows]
    what = f"{name} to its prompt"
    return _best_first(row, [each[answer] for each in rows], scores, answer, what, votes=name != "label")


def score_of(values: Mapping[str, Any], name: str) -> float:
    """What a row says of its one answer: a label, or a number. Raises BadRow."""
    if name == "label":
        truth = {"true": 1.0, "1": 1.0, "false": 0.0, "0": 0.0}.get(str(values[name]).strip().lower())
        if truth is None:
            raise BadRow(f"label is {kind(values[name])}: must be true or false")
        return truth
    return number_of(values[name], name)


def _best_first(
    row: FileRow, answers: list[Any], scores: list[float], name: str, what: str, votes: bool = False
) -> Pairs:
    """The best of a prompt's answers against each worse one; with the scores where they are `votes`."""
    values = dict(row.values)
    prompt = opened(values, _prompt(values, "prompt"))
    pairs = []
    for best, worse in _better(scores, what):
        pair = {"id": f"{row_id(row)}-{best}-{worse}", "subtask": values.get("subtask") or SUBTASK, "prompt": prompt}
        pair |= {"chosen": _answer(answers[best], name), "rejected": _answer(answers[worse], name)}
        pairs.append(pair | ({"score_chosen": scores[best], "score_rejected": scores[worse]} if votes else {}))
    return pairs


def _pair(row: FileRow, question: str, chosen: str, rejected: str) -> dict[str, Any]:
    """The pair that three columns hold; HelpSteer3 names a domain."""
    values = dict(row.values)
    return {
        "id": row_id(row),
        "subtask": values.get("subtask") or values.get("domain") or SUBTASK,
        "prompt": opened(values, _prompt(values, question)),
        "chosen": _answer(values[chosen], chosen),
        "rejected": _answer(values[rejected], rejected),
    }


def _prompt(values: dict[str, Any], name: str) -> list[Message]:
    """A prompt in any of its forms; HelpSteer's have marks between their turns."""
    value = values[name]
    if isinstance(value, str) and TURN_OF_HELPSTEER.search(value):
        first, *turns = TURN_OF_HELPSTEER.split(value)
        pairs = [("User", first), *zip(turns[::2], turns[1::2], strict=True)]
        return [Message(role=role.lower(), content=text) for role, text in pairs if text.strip()]
    return as_prompt(value, name)


def _answer(value: object, name: str) -> list[Message]:
    return as_messages([value] if isinstance(value, dict) else value, name, "assistant")


def _better(scores: list[float], what: str) -> list[tuple[int, int]]:
    """The places of the best answer and of each worse one."""
    if not scores or min(scores) == max(scores):
        raise BadRow(f"has no two answers of different {what}")
    best = scores.index(max(scores))
    return [(best, place) for place, score in enumerate(scores) if score < scores[best]]


def _one_of(value: Any, name: str, allowed: tuple[int, ...], said: str) -> int:
    """A CSV file has numbers as text, and a table with gaps whole numbers as 1.0."""
    with suppress(BadRow):
        if (number := number_of(value, name)) in allowed:
            return int(number)
    raise BadRow(f"{name} is {json.dumps(value)[:60]}: must be {said}")


def _objects(value: object, name: str, what: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise BadRow(f"{name} must be a list of objects with {what}")
    return value


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


def number_of(value: Any, name: str) -> float:
    """A CSV file has numbers as text."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise BadRow(f"{name} is {json.dumps(value)[:60]}: must be a number")
    return number


# what is read of a row beside its layout's columns
BESIDE = (
    *("id", "subtask", "domain", "metadata", "system", "system_prompt", "history", "input", "labels", "question_id"),
    *("qid", "post_id", "c_root_id_A", "c_root_id_B", "score_ratio", "score_chosen", "score_rejected", GATHERED),
)
LAYOUTS: dict[str, Layout] = {
    PairLayout.pairs: Layout(("prompt", "chosen", "rejected"), _sided),
    PairLayout.hh: Layout(("chosen", "rejected"), _sided),
    PairLayout.orca: Layout(("question|input", "chosen", "rejected"), _sided, ("prompt", "instruction")),
    PairLayout.alpaca: Layout(("instruction", "chosen", "rejected"), _sided, ("prompt",)),
    PairLayout.sharegpt: Layout(("conversations", "chosen", "rejected"), _sided, ("prompt",)),
    PairLayout.nectar: Layout(("prompt", "answers"), _nectar),
    PairLayout.safe_rlhf: Layout(("prompt", "response_0", "response_1", "better_response_id"), _safe_rlhf),
    PairLayout.helpsteer: Layout(("prompt", "response", "helpfulness"), _one_a_row),
    PairLayout.helpsteer2: Layout(("prompt", "response_1", "response_2", "preference_strength"), _by_strength),
    PairLayout.helpsteer3: Layout(("context", "response1", "response2", "overall_preference"), _by_strength),
    PairLayout.kto: Layout(("prompt", "completion", "label"), _one_a_row),
    PairLayout.arena: Layout(("conversation_a", "conversation_b", "winner"), _arena),
    PairLayout.shp: Layout(("history", "human_ref_A", "human_ref_B"), _shp),
    PairLayout.stack_exchange: Layout(("question", "answers"), _stack_exchange),
    PairLayout.stack_exchange_paired: Layout(("question", "response_j", "response_k"), _paired),
}
