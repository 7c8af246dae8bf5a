"""What a job calls its stages, and what each is to whom: the one table of their names.

`shared` stages are no method's own cost. `measures`: its metrics and items are the model's result.
`copied` goes into the job's folder. `student`: run by the model that is fine-tuned; `backward`:
takes gradients, so that it costs more. Where a job has a stage several times, it calls them by kind
and number: "features 3 of 4", "features 3 of 4 shard 1 of 8".
"""

from typing import NamedTuple

from rose.stages.graph import Node


class Kind(NamedTuple):
    shared: bool = False
    measures: bool = False
    check: bool = False  # made for a person to read; nothing rests on it
    student: bool = False
    backward: bool = False
    copied: str | None = None  # a file's name, or a pattern of those of an adapter
    curve: bool = False  # its log.jsonl is part of the job's


KINDS = {
    "base": Kind(shared=True, curve=True),
    **dict.fromkeys(("pool", "whole_pool", "aside", "preferences", "tokens"), Kind(shared=True)),
    **dict.fromkeys(("questions", "trial"), Kind(shared=True)),
    "student_trial": Kind(shared=True, student=True),
    "warmup": Kind(backward=True, curve=True),
    **dict.fromkeys(("features", "targets", "pairs_sft", "pairs_dpo"), Kind(backward=True)),
    **dict.fromkeys(("one_pass", "target_hidden", "embeddings", "target_embeddings"), Kind()),
    **dict.fromkeys(("target_answer_states", "readout", "target_readout"), Kind()),
    **dict.fromkeys(("answer_losses", "tuned_losses", "rewards"), Kind()),
    **dict.fromkeys(("candidates", "own_scores"), Kind()),
    "scores": Kind(copied="scores.parquet"),
    "selection": Kind(copied="selected.jsonl"),
    **dict.fromkeys(("student_base", "student_tokens"), Kind(shared=True)),
    "finetune": Kind(student=True, backward=True, copied="adapter_*", curve=True),
    "evaluation": Kind(shared=True, measures=True, student=True),
    "answers": Kind(shared=True, student=True),
    "verdicts": Kind(shared=True, measures=True),
    "tasks": Kind(shared=True, measures=True, student=True),
    **dict.fromkeys(("zero_shot", "zero_shot_answers", "zero_shot_tasks"), Kind(shared=True, student=True)),
    "zero_shot_verdicts": Kind(shared=True),
    **dict.fromkeys(("leakage", "momentum", "held_out", "fidelity"), Kind(check=True)),
    **dict.fromkeys(("sample", "sample_features", "sample_targets", "projection_error"), Kind(check=True)),
    "planted": Kind(check=True, copied="planted.json"),
    "diagnostics": Kind(check=True, copied="diagnostics.json"),
}
# before the name of a stage that is made once more, of other answers than the pool's
HELD_OUT, PLANTED = "held_out_", "planted_"
CANDIDATES = "candidates_"  # of the cheap method that ranks the pool first
MEASURES = tuple(name for name, kind in KINDS.items() if kind.measures)
ZERO_SHOT = {name: "zero_shot" if name == "evaluation" else f"zero_shot_{name}" for name in (*MEASURES, "answers")}


def own_cost(name: str) -> bool:
    """Whether a stage is part of what a method itself costs."""
    kind = KINDS.get(kind_of(name).removeprefix(CANDIDATES))
    return not (name.startswith((HELD_OUT, PLANTED)) or (kind and (kind.shared or kind.check)))


def numbered(kind: str, number: int, count: int, shard: tuple[int, int] | None = None) -> str:
    """What a job calls one of `count` stages of a kind, or a shard of it: which, of how many."""
    name = kind if count == 1 else f"{kind} {number} of {count}"
    return name if shard is None else f"{name} shard {shard[0]} of {shard[1]}"


def kind_of(name: str) -> str:
    """The kind without a number."""
    return name.partition(" ")[0]


def part_of(name: str) -> str:
    """What a stage's cost is counted under: its kind; what finds the candidates is one part."""
    return "candidates" if name.startswith(CANDIDATES) else kind_of(name)


def number_of(name: str) -> str:
    """The number alone, as "3 of 4"; "" where there is one such stage."""
    return name.partition(" ")[2]


def unsharded(name: str) -> str:
    """The same of all shards."""
    return name.partition(" shard ")[0]


def all_of(kind: str, nodes: dict[str, Node]) -> tuple[Node, ...]:
    """Of a job's nodes those of a kind, in order."""
    return tuple(node for name, node in nodes.items() if kind_of(name) == kind)
