"""What of a group of settings can change an outcome, for those of which a stage may read less.

What is not read is as conf/_base has it: the artifacts of whoever never touched it keep their
names. A key of a judge that is not read is None.
"""

from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rose.config import CONF, choices
from rose.config.data import Dataset, Pairs, Preference
from rose.config.schema import (
    Config,
    Evaluation,
    Features,
    Judge,
    Method,
    Model,
    Projection,
    Selection,
    Tasks,
    Training,
    Warmup,
)
from rose.errors import RoseError
from rose.gradients.objectives import Loss, Objective
from rose.gradients.projection import fits

# a key of conf/method and its value → the other keys that are read because of it
METHOD_READS: dict[tuple[str, Any], tuple[str, ...]] = {
    ("lesson", "selection"): ("representation", "rule", "share"),
    ("representation", "gradients"): ("target", "balance", "checkpoints", "estimator", "whiten"),
    ("representation", "readout"): ("target", "balance", "checkpoints", "estimator", "whiten"),
    ("representation", "hidden"): ("pooling", "estimator", "whiten"),
    ("representation", "answer_states"): ("layer", "estimator"),
    ("representation", "embeddings"): ("encoder", "estimator", "whiten"),
    ("representation", "ngrams"): ("buckets", "smoothing", "per_ngram"),
    ("representation", "loss_drop"): ("target",),
    ("representation", "reward"): ("reward_model",),
    ("representation", "column"): ("column",),
    ("balance", "segments"): ("segments",),
    ("estimator", "gist"): ("components",),
    ("estimator", "shapley"): ("neighbours",),
    ("whiten", True): ("ridge",),
    ("rule", "greedy"): ("candidates",),
    **{("rule", rule): ("seed",) for rule in ("random", "balanced", "resample")},
}
JUDGE_READS: dict[choices.JudgeKind, tuple[str, ...]] = {
    choices.JudgeKind.reward_world: ("manners",),
    choices.JudgeKind.reward_model: ("model", "revision", "dtype", "max_length", "batch_tokens"),
    choices.JudgeKind.llm: ("model", "request", "price_input", "price_output"),
    choices.JudgeKind.none: (),
}


def method_reads(method: Method) -> set[str]:
    """The keys of conf/method that a method as it is set reads."""
    reads = ["name", "lesson"]
    for key in reads:  # grows as it goes
        reads += METHOD_READS.get((key, getattr(method, key)), ())
    return set(reads)


def selecting(config: Config) -> list[Method]:
    """The methods that rank rows in a job: its own, and the cheap one that finds the candidates."""
    if config.method.lesson is not choices.Lesson.selection:
        return []
    return [method for method in (config.method, config.candidates.method) if method is not None]


def method(method: Method, epochs: int) -> Method:
    """Without what the method does not read, nor a number of checkpoints that is all of the warm-up's `epochs`.

    (Of a readout null is no such number, but the base model.) What becomes of the ranking, share
    and lesson, is the key of other stages.
    """
    unread = {field.name for field in fields(method)} - method_reads(method) | {"share", "lesson"}
    neutral = {key: _base(Method)[key] for key in unread - {"seed"}} | ({"seed": None} if "seed" in unread else {})
    kept = replace(method, **neutral)
    every = kept.representation is choices.Representation.gradients and kept.checkpoints == epochs
    return replace(kept, checkpoints=None) if every else kept


def objective(method: Method, preference: Preference) -> Objective:
    """The objective that a method and a preference group come to, without the keys that cancel.

    A DPO (SimPO) gradient is a positive scalar, which holds β and the reference (γ), times the gradient of the
    summed (mean) log-probability contrast: with each pair brought to unit norm, or balanced, the scalar is
    gone. IPO's scalar, 2(margin − 1/2β), can be negative and stays unless balanced.
    """
    balance = choices.Balance(method.balance)
    common = {
        "balance": balance,
        "segments": method.segments if balance is choices.Balance.segments else None,
        "first_tokens": preference.first_tokens,
    }
    if method.target == choices.Target.chosen:
        return Objective(Loss.sft, **common)
    loss, reference = choices.PreferenceLoss(preference.loss), choices.Reference(preference.reference)
    can_turn = loss in (choices.PreferenceLoss.ipo, choices.PreferenceLoss.ipo_mean)
    cancels = preference.normalize == choices.Normalize.per_pair and not can_turn
    if balance is not choices.Balance.none or cancels or loss is choices.PreferenceLoss.contrast:
        mean = loss in (choices.PreferenceLoss.simpo, choices.PreferenceLoss.ipo_mean)
        return Objective(Loss.simpo if mean else Loss.contrast, **common)
    if loss is choices.PreferenceLoss.simpo:
        return Objective(Loss.simpo, preference.beta, gamma=preference.gamma, **common)
    return Objective(Loss(loss), preference.beta, None if reference is choices.Reference.none else reference, **common)


def linear(method: Method, preference: Preference) -> Objective:
    """The same for what sees no log-probability, only slopes. Raises RoseError for a loss that needs more."""
    found = objective(method, preference)
    if found.beta is not None:
        raise RoseError(
            f"preference.loss={preference.loss}: does not go with method.representation={method.representation} and "
            f"preference.normalize={preference.normalize}; contrast does, or dpo or simpo with normalize=per_pair"
        )
    return found


def projection(projection: Projection, keep: choices.Keep, size: int | None) -> Projection:
    """Streamed features have no projection; none has neither a width nor a seed.

    `size` is the gradients' width where it is known already. Raises RoseError where the projection is wider.
    """
    if keep is choices.Keep.stream or projection.kind == choices.ProjectionKind.none:
        return Projection(choices.ProjectionKind.none, dim=0, seed=0)
    if size is not None:
        fits(projection.dim, size)
    return Projection(projection.kind, projection.dim, projection.seed)


def selection(method: Method, selection: Selection, warmup: Warmup, finetune: Training) -> Selection:
    """What is really selected, without what cannot matter: the seed, and the ratio beside what replaces it.

    share=everything (`method=full`) takes every row that passes the filters. share=matched takes as many rows as a
    gradient method's whole cost would have trained on: its warm-up, one pass over the pool a checkpoint (forward and
    backward, as training) and its fine-tuning, at `finetune.epochs` passes a row; at most the whole pool.
    """
    whole = replace(selection, ratio=1.0, seed=0, slices=selection.slices if selection.slice else 1)
    if method.share is choices.Amount.everything:
        return replace(whole, count=None, tokens=None, per_source=None, slice=None, slices=1)
    if method.share is choices.Amount.matched:
        spent = (1 + warmup.ratio) * warmup.epochs / finetune.epochs
        return replace(whole, ratio=min(1.0, selection.ratio + spent))
    return whole if selection.count or selection.tokens or selection.slice else replace(whole, ratio=selection.ratio)


def evaluation(evaluation: Evaluation) -> Evaluation:
    """Greedy answers do not depend on the seed."""
    return replace(evaluation, seed=0) if evaluation.temperature == 0 else evaluation


def judge(judge: Judge) -> Judge:
    """What a judge does not read cannot change its verdicts."""
    in_key = {field.name for field in fields(judge) if field.metadata.get("in_key", True)}
    unread = in_key - {"kind", "opponent", *JUDGE_READS[judge.kind]}
    return replace(judge, **dict.fromkeys(unread))


def ranking(method: Method, settings: Judge) -> Judge:
    """The reward model that ranks rows, as the judge that it would be."""
    own = {"model": method.reward_model, "revision": None} if method.reward_model else {}
    kind, opponent = choices.JudgeKind.reward_model, choices.Opponent.reference
    return judge(replace(settings, kind=kind, opponent=opponent, **own))


def template(model: Model) -> dict[str, Any]:
    """Nothing where a template is told nothing, and system turns that it does not take are folded."""
    told: dict[str, Any] = {"chat_template_kwargs": model.chat_template_kwargs} if model.chat_template_kwargs else {}
    return told if model.system is choices.SystemTurns.fold else told | {"system": model.system}


def first_tokens(features: Features) -> dict[str, int]:
    """Nothing where all of a pool row's labelled tokens count."""
    return {} if features.tokens is None else {"first_tokens": features.tokens}


def pair_format(preference: Preference) -> dict[str, choices.PairFormat]:
    """Nothing where target pairs are written by the chat template."""
    return {} if preference.format == choices.PairFormat.template else {"format": preference.format}


def dataset(dataset: Dataset) -> Dataset:
    """Without what a world or a local file does not read; a seed is for what is drawn."""
    read = {"name": label(dataset), "revision": _revision(dataset)}
    if dataset.per_source is None:
        read["seed"] = _base(Dataset).seed
    if dataset.world is not None:
        read["on_bad_row"] = choices.OnBadRow.stop
    return replace(dataset, **read)


def pairs(pairs: Pairs) -> Pairs:
    """The same of preference pairs, of which a share is held out where there is no file of test pairs."""
    base, read = _base(Preference).pairs, {"revision": _revision(pairs)}
    held_out = pairs.world is None and pairs.test_path is None
    if not held_out:
        read["test_share"] = base.test_share
    if not held_out and pairs.shots is None and pairs.tests is None:
        read["seed"] = base.seed
    if pairs.world is not None or pairs.planted:
        read |= {"on_bad_row": choices.OnBadRow.stop, "layout": None}
    return replace(pairs, **read)


def tasks(tasks: Tasks) -> Tasks:
    """The same of questions; all of them, without examples, leave nothing to draw."""
    drawn = tasks.limit is not None or tasks.shots
    seed = tasks.seed if drawn else _base(Tasks).seed
    return replace(tasks, revision=_revision(tasks), seed=seed)


def label(rows: Dataset | Pairs) -> str:
    """What a directory of rows is called: the same rows are in the same place, whatever the data's name."""
    return "local" if rows.world is None else "world"


def _revision(rows: Dataset | Pairs | Tasks) -> str | None:
    """Only a hub dataset has one."""
    return None if rows.path is None or Path(rows.path).expanduser().exists() else rows.revision


@cache
def _base(group: type) -> DictConfig:
    """What a group's options share, typed by its schema."""
    values = OmegaConf.load(CONF / "_base" / f"{group.__name__.lower()}.yaml")
    config = OmegaConf.merge(OmegaConf.structured(group), values)
    assert isinstance(config, DictConfig)
    return config
