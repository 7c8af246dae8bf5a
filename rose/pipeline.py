"""The method, stage by stage. Read this file first.

Nothing is computed here: each node names a stage and what it is made from, and `rose.stages.build`
computes what is asked for and missing. Jobs whose inputs are the same share stages, so a sweep over
methods and ratios warms up and takes the pool's gradients once. `rose.keys` leaves out of a stage's
key what cannot change its outcome.
"""

from dataclasses import replace
from typing import Any

from rose import keys
from rose.config.choices import JudgeKind, Keep, Lesson, Opponent, Representation, Target
from rose.config.schema import Config, Model, Projection
from rose.data import chat, planting, pool, preferences
from rose.diagnostics.looks import first_looks
from rose.diagnostics.nodes import checks
from rose.evaluation import answers, evaluate, questions, rewards, tasks, verdicts
from rose.gradients import features
from rose.methods import answer_states, candidates, embedding, hidden, losses, readout, scores, selection
from rose.models import loading
from rose.stages.graph import Node, ordered
from rose.stages.kinds import CANDIDATES, MEASURES, ZERO_SHOT, all_of, numbered
from rose.training import bare, base_model, finetune, pairs, warmup

Nodes = dict[str, Node]  # by what a job calls them: `rose.stages.kinds`


def stages(config: Config) -> Nodes:
    """The stages of one job, in order."""
    nodes = _data(config)
    nodes |= _candidates(config, nodes)
    nodes |= _gradients(config, nodes)
    nodes |= _forward_passes(config, nodes)
    nodes |= _choice(config, nodes)
    nodes |= _student(config, nodes)
    nodes |= _measures(config, nodes)
    nodes |= first_looks(config, nodes)
    return nodes | checks(config, nodes)


def _data(config: Config) -> Nodes:
    """The model that selects, what it selects from and what for; the pool in its tokens."""
    base, data, target = _frozen(config.model), config.dataset, config.preference.pairs
    source = preferences.fingerprint(target)
    rows = Node(pool.read_pool, dataset=keys.dataset(data), source=pool.fingerprint(data), label=keys.label(data))
    nodes, planted = {"base": base}, {}
    if target.planted or config.plant.faults:
        nodes["whole_pool"] = rows
    if target.planted:
        rows = nodes["aside"] = Node(planting.set_aside, aside=config.plant.aside, seed=config.plant.seed, pool=rows)
        planted = {"faults": target.faults or config.plant.faults, "aside": rows}
    if config.plant.faults:
        rows = Node(planting.plant, plant=config.plant, pool=rows)
    nodes["pool"] = rows
    pairs = {"pairs": keys.pairs(target), "source": source, "label": keys.label(target)}
    nodes["preferences"] = Node(preferences.read_preferences, **pairs, **planted)
    nodes["tokens"] = Node(chat.tokenize, max_length=config.model.max_length, base=base, pool=nodes["pool"])
    return nodes


def _frozen(model: Model) -> Node:
    """A base model as it comes."""
    source = {"base": model.base, "fingerprint": loading.fingerprint(model.base)}
    return Node(base_model.prepare, **source, **keys.template(model), label=model.name)


def _candidates(config: Config, nodes: Nodes) -> Nodes:
    """A cheap method's ranking, and the rows that are left to the job's own; nothing where all of them are."""
    cheap = config.candidates.method
    if cheap is None or config.method.lesson is not Lesson.selection:
        return {}
    first = replace(config, method=cheap)
    parts = _gradients(first, nodes)
    parts |= _forward_passes(first, nodes | parts)
    scored = _scored(first, nodes | parts)
    needed = ordered(scored)
    read: dict[str, Any] = {"tokens": nodes["tokens"], "pool": nodes["pool"]}
    best = Node(candidates.best_share, share=config.candidates.share, scores=scored, **read)
    named = {f"{CANDIDATES}{name}": node for name, node in parts.items() if node in needed and name != "warmup"}
    return named | {f"{CANDIDATES}scores": scored, "candidates": best}


def _gradients(config: Config, nodes: Nodes) -> Nodes:
    """A short warm-up, then at each checkpoint that counts the gradients of the target pairs and the pool."""
    model, settings, projection = config.model, config.features, _projection(config)
    frozen: dict[str, Any] = {"numerics": model.numerics, "base": nodes["base"]}
    warm = Node(warmup.warm_up, warmup=config.warmup, lora=model.lora, tokens=nodes["tokens"], **frozen)
    epochs = config.warmup.epochs
    method = keys.method(config.method, epochs)
    pair_rows: dict[str, Any] = {"max_length": model.max_length, "preferences": nodes["preferences"], "warmup": warm}
    pair_rows |= {"objective": keys.objective(method, config.preference), "projection": projection}
    pair_rows |= keys.pair_format(config.preference)
    rows: dict[str, Any] = {"tokens": _seen(nodes), "warmup": warm}
    shards = [(part, settings.shards) for part in range(1, settings.shards + 1)] if settings.shards > 1 else [None]
    pooled, targets = {}, {}
    for number in range(1 + epochs - (method.checkpoints or epochs), epochs + 1):
        at: dict[str, Any] = frozen | {"checkpoint": number}
        aims = targets[numbered("targets", number, epochs)] = Node(features.pair_features, **pair_rows, **at)
        for shard in shards:
            part: dict[str, Any] = {"shard": shard} if shard else {}
            match settings.keep:
                case Keep.store:
                    reading = {"features": settings, "projection": projection}
                    taken = Node(features.pool_features, **reading, **rows, **at, **part)
                case Keep.stream:
                    reading = {"adam": settings.adam, "batch_tokens": settings.batch_tokens, "targets": aims}
                    reading |= keys.first_tokens(settings)
                    taken = Node(features.pool_cosines, **reading, **rows, **at, **part)
            pooled[numbered("features", number, epochs, shard)] = taken
    return {"warmup": warm, **pooled, **targets}


def _forward_passes(config: Config, nodes: Nodes) -> Nodes:
    """What a method without per-example gradients looks at: hidden states, embeddings, losses."""
    if config.method.lesson is not Lesson.selection:
        return {}
    model, tokens, pool = config.model, _seen(nodes), _seen(nodes, "pool")
    frozen: dict[str, Any] = {"numerics": model.numerics, "base": nodes["base"]}
    layer = keys.method(config.method, config.warmup.epochs).layer
    one_pass = {"one_pass": Node(hidden.pool_pass, layer=layer, tokens=tokens, **frozen)}
    match config.method.representation:
        case Representation.readout:
            return _readouts(config, nodes)
        case Representation.hidden:
            pair_rows = {"max_length": model.max_length, "preferences": nodes["preferences"]}
            return one_pass | {"target_hidden": Node(hidden.pair_states, **pair_rows, **frozen)}
        case Representation.answer_states:
            pair_rows = {"max_length": model.max_length, "preferences": nodes["preferences"]}
            targets = Node(answer_states.pair_states, layer=layer, **pair_rows, **frozen)
            return one_pass | {"target_answer_states": targets}
        case Representation.embeddings:
            source = embedding.source(config.method)
            encoder: dict[str, Any] = {"encoder": source, "fingerprint": loading.fingerprint(source)}
            rows = Node(embedding.pool_embeddings, tokens=tokens, pool=pool, **encoder)
            targets = Node(embedding.pair_embeddings, preferences=nodes["preferences"], **encoder)
            return {"embeddings": rows, "target_embeddings": targets}
        case Representation.perplexity:
            return one_pass
        case Representation.ifd:
            return one_pass | {"answer_losses": Node(losses.answer_losses, tokens=tokens, **frozen)}
        case Representation.loss_drop:
            lesson = Lesson.pairs_sft if config.method.target is Target.chosen else Lesson.pairs_dpo
            tuned = _tuned_on_pairs(config, model, lesson, nodes["base"], nodes["preferences"])
            after = Node(losses.row_losses, adapter=tuned, tokens=tokens, **frozen)
            return one_pass | {str(lesson): tuned, "tuned_losses": after}
        case Representation.reward:
            judge = keys.ranking(config.method, config.judge)
            source = {"judge": judge, "fingerprint": verdicts.fingerprint(judge)}
            return {"rewards": Node(rewards.pool_rewards, pool=pool, **source)}
    return {}


def _readouts(config: Config, nodes: Nodes) -> Nodes:
    """Of the pool and the pairs: by the base model, or by those of the warm-up's checkpoints that count."""
    model, method, epochs = config.model, config.method, config.warmup.epochs
    frozen: dict[str, Any] = {"numerics": model.numerics, "base": nodes["base"]}
    frozen |= {"dim": config.projection.dim, "seed": config.projection.seed}
    pairs: dict[str, Any] = {"max_length": model.max_length, "preferences": nodes["preferences"]}
    pairs |= {"objective": keys.linear(method, config.preference), **keys.pair_format(config.preference)}
    rows = {"dtype": config.features.dtype, "tokens": _seen(nodes), **keys.first_tokens(config.features)}
    last, made = method.checkpoints, {}
    for which in [(number, epochs) for number in range(1 + epochs - last, epochs + 1)] if last else [(1, 1)]:
        at = {"warmup": nodes["warmup"], "checkpoint": which[0]} if last else {}
        made[numbered("readout", *which)] = Node(readout.pool_readout, **rows, **frozen, **at)
        made[numbered("target_readout", *which)] = Node(readout.pair_readout, **pairs, **frozen, **at)
    return made


def _choice(config: Config, nodes: Nodes) -> Nodes:
    """Representation × rule → a score a row → the best rows; nothing where no rows are trained on."""
    if config.method.lesson is not Lesson.selection:
        return {}
    stages = {"scores": _scored(config, nodes)}
    if "candidates" in nodes:
        stages["own_scores"] = stages["scores"]
        read: dict[str, Any] = {"scores": stages["own_scores"], "tokens": nodes["tokens"], **_faults(config, nodes)}
        stages["scores"] = Node(candidates.scores_in_pool, **read)
    amount = keys.selection(config.method, config.selection, config.warmup, config.finetune)
    in_world = config.dataset.world is not None
    known: dict[str, Any] = {"planted": True} if config.plant.faults else {}
    choosing: dict[str, Any] = {"selection": amount, "in_world": in_world, **known}
    stages["selection"] = Node(selection.select, scores=stages["scores"], pool=nodes["pool"], **choosing)
    return stages


def _scored(config: Config, nodes: Nodes) -> Node:
    """A score for each row that the method sees."""
    method, parts = keys.method(config.method, config.warmup.epochs), _representation(config, nodes)
    planted = {} if "candidates" in nodes else _faults(config, nodes)
    rows: dict[str, Any] = {"tokens": _seen(nodes), "representation": parts, **planted}
    return Node(scores.score, method=method, label=method.name, **rows)


def _seen(nodes: Nodes, otherwise: str = "tokens") -> Node:
    """What a method sees of the pool: its candidates, where a cheaper one has chosen some."""
    return nodes.get("candidates", nodes[otherwise])


def _faults(config: Config, nodes: Nodes) -> Nodes:
    """Where it is known which rows have a planted fault."""
    return {"planted": nodes["pool"]} if config.plant.faults else {}


def _student(config: Config, nodes: Nodes) -> Nodes:
    """The model that is fine-tuned, on what the method says: as a rule the one that selected."""
    student = config.student or config.model
    model = _frozen(student)
    tokens = Node(chat.tokenize, max_length=student.max_length, base=model, pool=nodes["pool"])
    stages = {"student_base": model, "student_tokens": tokens}
    match config.method.lesson:
        case Lesson.selection:
            trained = {"training": config.finetune, "lora": student.lora, "numerics": student.numerics, "base": model}
            stages["finetune"] = Node(finetune.fine_tune, tokens=tokens, selection=nodes["selection"], **trained)
        case Lesson.pairs_sft | Lesson.pairs_dpo:
            stages["finetune"] = _tuned_on_pairs(config, student, config.method.lesson, model, nodes["preferences"])
    return stages


def _measures(config: Config, nodes: Nodes) -> Nodes:
    """What is asked of the fine-tuned model, and of the base model, whom it meets."""
    before = _asked(config, nodes, adapter=None, before={})
    zero_shot = {ZERO_SHOT[name]: node for name, node in before.items()}
    after = _asked(config, nodes, nodes["finetune"], before) if "finetune" in nodes else before
    return after | zero_shot


def _asked(config: Config, nodes: Nodes, adapter: Node | None, before: Nodes) -> Nodes:
    """What is asked of one model; `before`: what was asked of the base model, if this is another."""
    model, judge, settings = config.student or config.model, config.judge, config.evaluation
    asked: dict[str, Any] = {"numerics": model.numerics, "max_length": model.max_length}
    asked |= {"base": nodes["student_base"], "adapter": adapter}
    of_pairs: dict[str, Any] = asked | {"preferences": nodes["preferences"]}
    measured: dict[str, Any] = {"batch_tokens": settings.batch_tokens, "zero_shot": before.get("evaluation")}
    stages = {
        "evaluation": Node(evaluate.evaluate, **measured, **of_pairs),
        "answers": Node(answers.answer, evaluation=keys.evaluation(settings), **of_pairs),
    }
    if judge.kind is not JudgeKind.none:
        stages["verdicts"] = Node(
            verdicts.judge_answers,
            judge=keys.judge(judge),
            fingerprint=verdicts.fingerprint(judge),
            shares_model=verdicts.shares_model(judge, config.model.base, ranking(config)),
            answers=stages["answers"],
            opponent=None if judge.opponent is Opponent.reference else (before or stages)["answers"],
        )
    if config.tasks.path:
        asked |= {"tasks": keys.tasks(config.tasks), "source": questions.fingerprint(config.tasks)}
        stages["tasks"] = Node(tasks.solve, batch_tokens=settings.batch_tokens, label=config.tasks.name, **asked)
    return stages


def ranking(config: Config) -> str | None:
    """The reward model that ranks the pool; None with other methods."""
    ranks = [method for method in keys.selecting(config) if method.representation is Representation.reward]
    return keys.ranking(ranks[0], config.judge).model if ranks else None


def _representation(config: Config, nodes: Nodes) -> tuple:
    """What the method's representation is made of: the arguments of its function in `rose.methods`."""
    match config.method.representation:
        case Representation.gradients:
            return config.preference.normalize, all_of("features", nodes), all_of("targets", nodes)
        case Representation.readout:
            if config.method.checkpoints is None:
                return config.preference.normalize, nodes["readout"], nodes["target_readout"]
            return config.preference.normalize, all_of("readout", nodes), all_of("target_readout", nodes)
        case Representation.hidden:
            return nodes["one_pass"], nodes["target_hidden"]
        case Representation.answer_states:
            return nodes["one_pass"], nodes["target_answer_states"]
        case Representation.embeddings:
            return nodes["embeddings"], nodes["target_embeddings"]
        case Representation.words | Representation.ngrams:
            return _seen(nodes, "pool"), nodes["preferences"]
        case Representation.perplexity:
            return (nodes["one_pass"],)
        case Representation.ifd:
            return nodes["one_pass"], nodes["answer_losses"]
        case Representation.loss_drop:
            return nodes["one_pass"], nodes["tuned_losses"]
        case Representation.reward:
            return (nodes["rewards"],)
        case Representation.column:
            return (_seen(nodes, "pool"),)
        case _:  # lengths, none
            return ()


def _tuned_on_pairs(config: Config, model: Model, lesson: Lesson, frozen: Node, preferences: Node) -> Node:
    """An adapter trained on the target pairs: on their chosen answers, or by DPO."""
    settings = {"training": config.finetune, "lora": model.lora, "numerics": model.numerics}
    settings |= {"max_length": model.max_length, "base": frozen, "preferences": preferences}
    if lesson is Lesson.pairs_sft:
        return Node(pairs.tune_on_chosen, **settings)
    return Node(pairs.tune_by_dpo, beta=config.preference.beta, **settings)


def _projection(config: Config) -> Projection:
    """Refuses a width that the method's gradients do not have, where that is known already."""
    gradients = any(method.representation is Representation.gradients for method in keys.selecting(config))
    size = bare.adapter_size(config.model.base, config.model.lora) if gradients else None
    return keys.projection(config.projection, config.features.keep, size)


def result(nodes: Nodes) -> str:
    """The names of the stages that measure a job's model: jobs of the same result are one measurement."""
    return " ".join(nodes[name].name for name in MEASURES if name in nodes)
