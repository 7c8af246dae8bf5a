"""The evaluation stage: how well a model tells the answers of the held-out pairs apart, by their likelihood."""

from pathlib import Path

import pandas

from rose.config.schema import Numerics
from rose.data import chat, files
from rose.errors import RoseError
from rose.evaluation.items import Item, prompt_text, write_items
from rose.evaluation.likelihood import pair_log_probs, preference_metrics
from rose.models import loading
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

    `adapter=None` is the base model without any fine-tuning, whose own evaluation `zero_shot` is what the others are
    measured against.
    """
    tokenizer, model = loading.load_tokenizer(base), loading.load_model(base, numerics)
    if adapter is not None:
        model = loading.load_adapter(model, adapter)
    pairs = list(files.load(preferences / "test.jsonl"))
    encoded = [chat.encode_pair(tokenizer, pair, max_length) for pair in pairs]
    kept = [pair for pair, both in zip(pairs, encoded, strict=True) if both is not None]
    if not kept:
        raise RoseError(
            f"model.max_length={max_length}: no answer of the {len(pairs)} test pairs fits; allow more tokens"
        )
    own = pair_log_probs(model, [both for both in encoded if both is not None], batch_tokens)
    reference = None if zero_shot is None else pandas.read_parquet(zero_shot / "log_probs.parquet")
    items = [Item(pair["id"], prompt_text(pair["prompt"]), pair["subtask"]) for pair in kept]
    own.insert(0, "id", [item.id for item in items])
    own.to_parquet(out / "log_probs.parquet", index=False)
    dropped = {"test_pairs": len(kept), "test_pairs_dropped": len(pairs) - len(kept)}
    write_items(out, items, preference_metrics(own, reference), dropped)
