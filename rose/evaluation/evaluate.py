"""The evaluation stage: how good is a model on the held-out pairs, and in the world by the exact reward."""

import json
from pathlib import Path

from rose import models
from rose.artifacts import stage, write_json
from rose.config import Evaluation, Numerics
from rose.data import chat, world
from rose.errors import RoseError
from rose.evaluation import generation, likelihood


@stage("evaluation", version=1)
def evaluate(
    out: Path,
    evaluation: Evaluation,
    numerics: Numerics,
    max_length: int,
    in_world: bool,
    base: Path,
    adapter: Path | None,
    preferences: Path,
) -> None:
    """Writes metrics.json; `adapter=None` is the base model without any fine-tuning.

    In the world also answers.jsonl: one sampled answer a test prompt, its exact reward and the reference answer's.
    """
    tokenizer, model = models.load_tokenizer(base), models.load_model(base, numerics)
    if adapter is not None:
        model = models.load_adapter(model, adapter)
    with open(preferences / "test.jsonl") as file:
        pairs = [json.loads(line) for line in file]
    encoded = [chat.encode_pair(tokenizer, pair, max_length) for pair in pairs]
    kept = [pair for pair in encoded if pair is not None]
    if not kept:
        raise RoseError(
            f"model.max_length={max_length}: no answer of the {len(pairs)} test pairs fits; allow more tokens"
        )
    metrics = {"test_pairs": len(kept), "test_pairs_dropped": len(pairs) - len(kept)}
    metrics |= likelihood.preference_metrics(model, kept, evaluation.batch_tokens)
    if in_world:
        answers = generation.answer(model, tokenizer, [pair["prompt"] for pair in pairs], max_length, evaluation)
        rewarded = [_rewarded(pair, answer) for pair, answer in zip(pairs, answers, strict=True)]
        (out / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rewarded))
        metrics |= reward_metrics(rewarded)
    write_json(out / "metrics.json", metrics)


def reward_metrics(answers: list[dict]) -> dict[str, float]:
    """Mean reward, and the win rate against the reference answers (a tie counts half)."""
    wins = [
        (row["reward"] > row["reference_reward"]) + 0.5 * (row["reward"] == row["reference_reward"]) for row in answers
    ]
    return {
        "reward": sum(row["reward"] for row in answers) / len(answers),
        "win_rate": sum(wins) / len(wins),
    }


def _rewarded(pair: dict, answer: str) -> dict:
    prompt, reference = pair["prompt"][-1]["content"], pair["chosen"][-1]["content"]
    return {
        "id": pair["id"],
        "prompt": prompt,
        "answer": answer,
        "reward": world.reward(prompt, answer),
        "reference": reference,
        "reference_reward": world.reward(prompt, reference),
    }
