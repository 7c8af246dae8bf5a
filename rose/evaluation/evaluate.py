"""The evaluation stage: how well a model tells the answers of held-out pairs apart."""

from pathlib import Path

import pandas

from rose.config.schema import Numerics
from rose.data import chat, files
from rose.errors import RoseError
from rose.evaluation.generation import load
from rose.evaluation.items import Item, prompt_text, write_items
from rose.evaluation.likelihood import pair_log_probs, preference_metrics
from rose.stages.graph import stage


@stage("evaluation", version=2)
def evaluate(
    out: Path,
    batch_tokens: int,
    numerics: Numerics,
    max_length: int,
    base: Path,
    adapter: Path | None,
    zero_shot: Path | None,
    preferences: Path,
) -> None:
    """Writes metrics.json, items.parquet and log_probs.parquet (id and `pair_log_probs`).

    `zero_shot` is the evaluation of the base model, which the others are measured against.
    """
    tokenizer, model = load(base, numerics, adapter)
    pairs = list(files.load(preferences / "test.jsonl"))
    encoded = {pair["id"]: chat.encode_pair(tokenizer, pair, max_length) for pair in pairs}
    answers = {identity: both for identity, both in encoded.items() if both is not None}
    if not answers:
        raise RoseError(
            f"model.max_length={max_length}: no answer of the {len(pairs)} test pairs fits; allow more tokens"
        )
    log_probs = pair_log_probs(model, list(answers.values()), batch_tokens)
    log_probs.insert(0, "id", list(answers))
    log_probs.to_parquet(out / "log_probs.parquet", index=False)
    reference = None if zero_shot is None else pandas.read_parquet(zero_shot / "log_probs.parquet")
    items = [Item(pair["id"], prompt_text(pair["prompt"]), pair["subtask"]) for pair in pairs if pair["id"] in answers]
    counts = {"test_pairs": len(answers), "test_pairs_dropped": len(pairs) - len(answers)}
    write_items(out, items, preference_metrics(log_probs, reference), counts)
