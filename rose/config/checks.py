"""Which values go together: told before the first job starts, not after its warm-up."""

import re
from functools import reduce
from typing import Any

from rose.config.choices import (
    IN_ITS_OWN_WORDS,
    Amount,
    Balance,
    Estimator,
    JudgeKind,
    Keep,
    Lesson,
    Quantization,
    Representation,
    Rule,
    Target,
)
from rose.config.ranges import NAMES, OR_AUTO, RANGES
from rose.config.schema import Config, Judge, Method, Model, Selection, Training
from rose.errors import RoseError
from rose.shares import rounded

BLIND = (Rule.random, Rule.balanced)  # rules that look at nothing
DRAWS = (*BLIND, Rule.resample)  # rules that need a seed
SIMILARITY = (Representation.gradients, Representation.readout, Representation.hidden, Representation.embeddings)
AIMED = (Representation.gradients, Representation.readout, Representation.loss_drop)  # at a part of each pair


def check(config: Config) -> None:
    """Raises RoseError for a value outside its range, or for values that contradict one another."""
    for key, (holds, allowed) in RANGES.items():
        value = reduce(lambda part, name: getattr(part, name, None), key.split("."), config)
        if value is not None and not holds(value):
            raise RoseError(f"{key}={value}: must be {allowed}")
    _size("features.batch_tokens", config.features.batch_tokens)
    _size("evaluation.batch_tokens", config.evaluation.batch_tokens)
    _divides("warmup", config.warmup)
    _divides("finetune", config.finetune)
    _embedded("model", config.model, config)
    if config.student is not None:
        _embedded("student", config.student, config)
    _unread(config)
    if config.projection.dim < 1 and config.projection.kind != "none":
        raise RoseError(f"projection.dim={config.projection.dim}: must be 1 or more")
    if config.features.batch_tokens == "auto" and config.features.shards > 1:
        fault = "shards take their rows by the batches of the whole pool, which must be the same on every machine"
        raise RoseError(f"features.batch_tokens=auto: must be a number beside features.shards; {fault}")
    if not config.outputs.strip():
        raise RoseError("outputs=: must name a folder")
    if config.name is not None and not re.fullmatch(r"\w[\w.-]*", config.name):
        raise RoseError(f"name={config.name}: must be letters, digits, _, . and -, as it names a folder")
    _ranking(config, config.method)
    _amount(config.method, config.selection)
    _candidates(config)
    _planted(config)
    _manners(config)
    _judge(config.judge, config.preference.pairs.world is not None)


def _ranking(config: Config, method: Method) -> None:
    """What the method needs, by itself and of other groups."""
    if config.projection.kind == "none" and method.representation is Representation.readout:
        raise RoseError("projection.kind=none: method.representation=readout is always projected; must be another")
    _method(method)
    if method.representation is Representation.reward:
        _ranks(method, config.judge)
    if config.features.keep is Keep.stream and method.representation is Representation.gradients:
        _streams(method)
    checkpoints, epochs = method.checkpoints or 1, config.warmup.epochs
    if checkpoints > epochs:
        fault = f"the warm-up has a checkpoint an epoch, warmup.epochs={epochs}"
        raise RoseError(f"method.checkpoints={checkpoints}: {fault}")


def _candidates(config: Config) -> None:
    """Whether the cheap method can rank, and leaves as many rows as are to be selected."""
    cheap, share, method, asked = config.candidates.method, config.candidates.share, config.method, config.selection
    if cheap is None or method.lesson is not Lesson.selection:
        return
    if cheap.lesson is not Lesson.selection:
        raise RoseError(f"candidates.method.name={cheap.name}: ranks no rows; must be a method that does")
    try:
        _ranking(config, cheap)
    except RoseError as error:
        raise RoseError(f"candidates{'.' if f'{error}'.startswith('method.') else ': '}{error}") from error
    if method.share is Amount.matched:
        raise RoseError(f"candidates={cheap.name}: method={method.name} draws from the whole pool; must be none")
    world, few = config.dataset.world, f"more rows than candidates.share={share} leaves"
    if asked.count and world and asked.count > (most := rounded(share, world.rows)):
        raise RoseError(f"selection.count={asked.count}: {few}; must be at most {most}")
    by_ratio = method.share is Amount.selection and not (asked.count or asked.tokens or asked.slice)
    if by_ratio and asked.ratio > share:
        raise RoseError(f"selection.ratio={asked.ratio}: {few}; must be at most {share}, or candidates=none")


def _method(method: Method) -> None:
    """Which rules and targets go with which representation."""
    misfit = f"does not go with method.representation={method.representation}"
    if (method.rule in BLIND) != (method.representation is Representation.none):
        raise RoseError(f"method.rule={method.rule}: {misfit}; random and balanced go with none, and only they")
    if method.rule is Rule.greedy and method.representation not in SIMILARITY:
        raise RoseError(f"method.rule=greedy: {misfit}; it needs one of {', '.join(SIMILARITY)}")
    ridge = method.estimator is Estimator.ridge
    if method.representation is Representation.answer_states and method.estimator not in (
        Estimator.inner,
        Estimator.ridge,
    ):
        raise RoseError(f"method.estimator={method.estimator}: {misfit}; must be inner or ridge")
    if ridge and method.representation is not Representation.answer_states:
        raise RoseError(f"method.estimator=ridge: {misfit}; it needs answer_states")
    if method.representation is Representation.readout and method.balance is Balance.segments:
        raise RoseError(f"method.balance=segments: {misfit}; must be none or tokens")
    if method.rule in DRAWS and method.seed is None:
        raise RoseError("method.seed=null: a random choice needs a seed")
    if method.representation in AIMED and method.target is None:
        raise RoseError(f"method.target=null: {misfit}; must be one of {', '.join(Target)}")
    if method.representation is Representation.embeddings and not method.encoder:
        raise RoseError("method.encoder=null: representation=embeddings needs a model folder or a hub id")
    if method.representation is Representation.column and not method.column:
        raise RoseError("method.column=null: representation=column needs the name of a number that the rows have")


def _ranks(method: Method, judge: Judge) -> None:
    """Which reward model is meant."""
    if not method.reward_model and judge.kind is not JudgeKind.reward_model:
        fault = "representation=reward needs a folder or hub id, or judge=reward_model and its judge.model"
        raise RoseError(f"method.reward_model=null: {fault}")


def _streams(method: Method) -> None:
    """What needs no more of the pool's gradients than how well each row agrees with each target."""
    compares = {
        "whiten=true": method.whiten,
        f"estimator={method.estimator}": method.estimator is not Estimator.inner,
        f"rule={method.rule}": method.rule is Rule.greedy,
    }
    for setting, does in compares.items():
        if does:
            raise RoseError(f"features.keep=stream: method.{setting} compares pool rows; it needs features.keep=store")


def _amount(method: Method, selection: Selection) -> None:
    count, tokens, part = selection.count, selection.tokens, selection.slice
    if count and tokens:
        raise RoseError(f"selection.tokens={tokens}: cannot be given beside selection.count, one of the two")
    if part and (count or tokens):
        raise RoseError(f"selection.slice={part}: cannot be given beside selection.count or selection.tokens")
    if part and part > selection.slices:
        raise RoseError(f"selection.slice={part}: must not exceed selection.slices={selection.slices}")
    if method.share is Amount.matched and (count or tokens or part):
        raise RoseError(f"method={method.name}: matches a selection.ratio, not selection.count, .tokens or .slice")
    shortest, longest = selection.min_length, selection.max_length
    if shortest and longest and shortest > longest:
        raise RoseError(f"selection.min_length={shortest}: must not exceed selection.max_length={longest}")


def _embedded(name: str, model: Model, config: Config) -> None:
    """What a model made here can be, and what it can read: it knows the world's words alone."""
    if model.lora.targets is None:
        raise RoseError(f"{name}.lora.targets=None: must be {NAMES[1]}")
    pretraining, key = model.base.pretraining, f"{name}.base.pretraining"
    quantization = model.numerics.quantization
    if quantization != Quantization.none and model.numerics.sharded:
        fault = f"cannot share out the weights of {name}.numerics.quantization={quantization}; must be one or the other"
        raise RoseError(f"{name}.numerics.sharded=true: {fault}")
    if pretraining is None:
        return
    _divides(f"{key}.training", pretraining.training)
    if pretraining.width % (2 * pretraining.heads):  # rotary positions turn a head's numbers in twos
        raise RoseError(f"{key}.width={pretraining.width}: must be an even multiple of {key}.heads={pretraining.heads}")
    option = "model@student" if name == "student" else name
    remedy = f"{option}=local {name}.base.path=FOLDER_OR_HUB_ID"
    if model.base.path is not None:
        raise RoseError(f"{name}.base.path={model.base.path}: {option}={model.name} does not read it; say {remedy}")
    if quantization != Quantization.none:
        fault = f"{option}={model.name} is made here, in full; say none, or {remedy}"
        raise RoseError(f"{name}.numerics.quantization={quantization}: {fault}")
    for group, data, world in (
        ("dataset", config.dataset, config.dataset.world),
        ("preference", config.preference, config.preference.pairs.world or config.preference.pairs.planted or None),
    ):
        if world is None:
            fault = f"{option}={model.name} knows the words of the embedded world alone"
            raise RoseError(f"{group}={data.name}: {fault}; for other data say {remedy}")


def _unread(config: Config) -> None:
    """Where data come from, said beside a world that is generated."""
    dataset, pairs, unread = config.dataset, config.preference.pairs, {}
    if dataset.world is not None:
        unread |= {"dataset.path": dataset.path, "dataset.files": dataset.files}
    if pairs.world is not None:
        unread |= {"preference.path": pairs.path, "preference.test_path": pairs.test_path}
        unread |= {"preference.pairs.files": pairs.files, "preference.pairs.test_files": pairs.test_files}
        unread |= {"preference.pairs.layout": pairs.layout}
    for key, value in unread.items():
        if value:
            group = key.partition(".")[0]
            raise RoseError(f"{key}={value}: {group}=world does not read it; say {group}=local")


def _planted(config: Config) -> None:
    """Pairs that are made from rows need rows, and a fault."""
    pairs, plant = config.preference.pairs, config.plant
    unread = [str(fault) for fault in (*plant.faults, *pairs.faults) if fault not in IN_ITS_OWN_WORDS]
    if unread and config.model.base.pretraining is not None:
        fault = f"brings words that model={config.model.name} does not know; it can read {', '.join(IN_ITS_OWN_WORDS)}"
        raise RoseError(f"plant.faults={list(map(str, plant.faults))}: {unread[0]} {fault}")
    if not pairs.planted:
        if plant.aside:
            fault = "only preference=planted makes pairs from rows that are set aside"
            raise RoseError(f"plant.aside={plant.aside}: {fault}; must be 0")
        if pairs.faults:
            fault = "only preference=planted reads it"
            raise RoseError(f"preference.pairs.faults={list(map(str, pairs.faults))}: {fault}; must be []")
        return
    if not (pairs.faults or plant.faults):
        fault = "preference=planted needs a fault"
        raise RoseError(f"preference.pairs.faults=[]: {fault}; say plant=mixed, or preference.pairs.faults=[swap]")
    if not plant.aside:
        fault = "preference=planted makes its pairs from rows that are set aside"
        raise RoseError(f"plant.aside=0: {fault}; must be 1 or more")
    read = {"path": pairs.path, "test_path": pairs.test_path}
    read |= {"pairs.files": pairs.files, "pairs.test_files": pairs.test_files, "pairs.layout": pairs.layout}
    for key, value in read.items():
        if value:
            raise RoseError(f"preference.{key}={value}: preference=planted does not read it; say preference=local")


def _manners(config: Config) -> None:
    """A pool, model or judge of one world and pairs of another do not know each other's words."""
    parts = {
        "dataset.world": config.dataset.world,
        "preference.pairs.world": config.preference.pairs.world,
        "model.base.pretraining": config.model.base.pretraining,
        "student.base.pretraining": config.student and config.student.base.pretraining,
        "judge": config.judge if config.judge.kind is JudgeKind.reward_world else None,
    }
    settings = [(f"{key}.manners", part.manners) for key, part in parts.items() if part is not None]
    if len({manners for _, manners in settings}) > 1:
        first, *rest = (f"{key}={manners}" for key, manners in settings)
        raise RoseError(f"{first}: must be the same as {', '.join(rest)}; world.manners sets them all")


def _judge(judge: Judge, in_world: bool) -> None:
    """What each kind of judge cannot do without."""
    needs = {JudgeKind.reward_model: ("model",), JudgeKind.llm: ("model", "base_url")}.get(judge.kind, ())
    for name in needs:
        value = getattr(judge, name)
        if not value:
            raise RoseError(f"judge.{name}={value}: judge.kind={judge.kind} needs one")
    if judge.kind is JudgeKind.reward_world and not in_world:
        fault = "knows only the prompts of preference=world"
        raise RoseError(f"judge=reward_world: {fault}; for others: reward_model, llm, none")


def _size(key: str, value: Any) -> None:
    """A number or auto: the schema lets it be anything, null too, which no range looks at."""
    if value is None:
        raise RoseError(f"{key}=null: must be {OR_AUTO[1]}")


def _divides(name: str, training: Training) -> None:
    step, part = training.batch_size, training.micro_batch_size
    _size(f"{name}.micro_batch_size", part)
    if part != "auto" and step % part:
        raise RoseError(f"{name}.micro_batch_size={part}: must divide {name}.batch_size={step}")
