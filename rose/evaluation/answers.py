"""The answers stage: what a model says to the test prompts."""

import json
from pathlib import Path

from rose.config.schema import Evaluation, Numerics
from rose.data import files
from rose.evaluation.generation import generate, load
from rose.stages.disk import write_lines
from rose.stages.graph import stage


@stage("answers", version=2)
def answer(
    out: Path,
    evaluation: Evaluation,
    numerics: Numerics,
    max_length: int,
    base: Path,
    adapter: Path | None,
    preferences: Path,
) -> None:
    """Writes answers.jsonl, a row a test pair: {"id", "subtask", "prompt", "answer", "reference"}.

    A prompt is answered once, whatever the number of its pairs; `reference` is each pair's chosen
    answer to it, without what a chosen conversation goes on with.
    """
    tokenizer, model = load(base, numerics, adapter)
    pairs = list(files.load(preferences / "test.jsonl"))
    prompts = {json.dumps(pair["prompt"]): pair["prompt"] for pair in pairs}
    texts = generate(model, tokenizer, list(prompts.values()), max_length, evaluation)
    answers = dict(zip(prompts, texts, strict=True))
    rows = [
        {"id": pair["id"], "subtask": pair["subtask"], "prompt": pair["prompt"]}
        | {"answer": answers[json.dumps(pair["prompt"])], "reference": pair["chosen"][0]["content"]}
        for pair in pairs
    ]
    write_lines(out / "answers.jsonl", rows)
