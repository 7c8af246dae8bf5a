"""The method, stage by stage. Read this file first.

Nothing is computed here: each node names a stage and what it is made from, and `rose.stages.build`
computes what is asked for and missing. Jobs whose inputs are the same share stages, so a sweep over
methods and ratios warms up and takes the pool's gradients once. `rose.keys` leaves out of a stage's
key what cannot change its outcome.
"""

from typing import Any

from rose import keys
from rose.config.choices import Dtype, JudgeKind, Keep, Lesson, Opponent, Representation, Target, Until
from rose.config.schema import Config, Model, Projection
from rose.data import chat, planting, pool, preferences
from rose.diagnostics.nodes import checks
from rose.errors import RoseError
from rose.evaluation import answers, evaluate, questions, rewards, tasks, verdicts
from rose.gradients import features
from rose.methods import answer_states, embedding, hidden, losses, readout, scores, selection
from rose.models import loading, quantized
from rose.stages.graph import Node
from rose.stages.kinds import MEASURES, ZERO_SHOT, all_of, numbered
from rose.training import bare, base_model, finetune, pairs, trial, warmup

Nodes = dict[str, Node]  # by what a job calls them: `rose.stages.kinds`


def stages(config: Config) -> Nodes:
    """The stages of one job, in order."""
    nodes = _data(config)
    nodes |= _gradients(config, nodes)
    nodes |= _forward_passes(config, nodes)
    nodes |= _choice(config, nodes)
    nodes |= _student(config, nodes)
    nodes |= _measures(config, nodes)
    nodes |= _first_looks(config, nodes)
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
    rows: dict[str, Any] = {"tokens": nodes["tokens"], "warmup": warm}
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
                    taken = Node(features.pool_cosines, **reading, **rows, **at, **part)
            pooled[numbered("features", number, epochs, shard)] = taken
    return {"warmup": warm, **pooled, **targets}


def _forward_passes(config: Config, nodes: Nodes) -> Nodes:
    """What a method without per-example gradients looks at: hidden states, embeddings, losses."""
    if config.method.lesson is not Lesson.selection:
        return {}
    model, tokens = config.model, nodes["tokens"]
    frozen: dict[str, Any] = {"numerics": model.numerics, "base": nodes["base"]}
    untuned = {"losses": Node(losses.row_losses, adapter=None, tokens=tokens, **frozen)}
    match config.method.representation:
        case Representation.readout:
            objective = keys.linear(config.method, config.preference)
            frozen |= {"dim": config.projection.dim, "seed": config.projection.seed}
            pair_rows = {"max_length": model.max_length, "preferences": nodes["preferences"]}
            pair_rows |= keys.pair_format(config.preference)
            rows = Node(readout.pool_readout, dtype=config.features.dtype, tokens=tokens, **frozen)
            return {
                "readout": rows,
                "target_readout": Node(readout.pair_readout, objective=objective, **pair_rows, **frozen),
            }
        case Representation.hidden:
            pair_rows = {"max_length": model.max_length, "preferences": nodes["preferences"]}
            targets = Node(hidden.pair_states, **pair_rows, **frozen)
            return {"hidden": Node(hidden.pool_states, tokens=tokens, **frozen), "target_hidden": targets}
        case Representation.answer_states:
            pair_rows = {"max_length": model.max_length, "preferences": nodes["preferences"]}
            frozen |= {"layer": config.method.layer}
            targets = Node(answer_states.pair_states, **pair_rows, **frozen)
            rows = Node(answer_states.pool_states, tokens=tokens, **frozen)
            return {"answer_states": rows, "target_answer_states": targets}
        case Representation.embeddings:
            source = embedding.source(config.method)
            encoder: dict[str, Any] = {"encoder": source, "fingerprint": loading.fingerprint(source)}
            rows = Node(embedding.pool_embeddings, tokens=tokens, pool=nodes["pool"], **encoder)
            targets = Node(embedding.pair_embeddings, preferences=nodes["preferences"], **encoder)
            return {"embeddings": rows, "target_embeddings": targets}
        case Representation.perplexity:
            return untuned
        case Representation.ifd:
            return untuned | {"answer_losses": Node(losses.answer_losses, tokens=tokens, **frozen)}
        case Representation.loss_drop:
            lesson = Lesson.pairs_sft if config.method.target is Target.chosen else Lesson.pairs_dpo
            tuned = _tuned_on_pairs(config, model, lesson, nodes["base"], nodes["preferences"])
            after = Node(losses.row_losses, adapter=tuned, tokens=tokens, **frozen)
            return untuned | {str(lesson): tuned, "tuned_losses": after}
        case Representation.reward:
            judge = keys.ranking(config.method, config.judge)
            source = {"judge": judge, "fingerprint": verdicts.fingerprint(judge)}
            return {"rewards": Node(rewards.pool_rewards, pool=nodes["pool"], **source)}
    return {}


def _choice(config: Config, nodes: Nodes) -> Nodes:
    """Representation × rule → a score a row → the best rows; nothing where no rows are trained on."""
    if config.method.lesson is not Lesson.selection:
        return {}
    method, parts = keys.method(config.method, config.warmup.epochs), _representation(config, nodes)
    planted = {"planted": nodes["pool"]} if config.plant.faults else {}
    scored = Node(
        scores.score, method=method, tokens=nodes["tokens"], representation=parts, label=method.name, **planted
    )
    amount = keys.selection(config.method, config.selection, config.warmup, config.finetune)
    in_world = config.dataset.world is not None
    known: dict[str, Any] = {"planted": True} if config.plant.faults else {}
    best = Node(selection.select, selection=amount, in_world=in_world, scores=scored, pool=nodes["pool"], **known)
    return {"scores": scored, "selection": best}


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


def _first_looks(config: Config, nodes: Nodes) -> Nodes:
    """What nothing rests on, made before anything is trained or measured (`rose.run.early`)."""
    model, student, what = config.model, config.student, config.method.representation
    selects = config.method.lesson is Lesson.selection
    per_example = selects and what is Representation.gradients
    adapts = (Representation.gradients, Representation.loss_drop)
    reads = selects and what in (
        *adapts,
        Representation.perplexity,
        Representation.ifd,
        Representation.readout,
        Representation.hidden,
        Representation.answer_states,
    )
    answer, trained, looks = _longest_answer(config, nodes), "finetune" in nodes, {}
    if student is None:
        looks["trial"] = _trial("model", model, trained, per_example, answer, nodes["base"])
    else:
        if reads:
            looks["trial"] = _trial("model", model, what in adapts, per_example, None, nodes["base"])
        looks["student_trial"] = _trial("student", student, trained, False, answer, nodes["student_base"])
    if config.tasks.path:
        asked = {"tasks": keys.tasks(config.tasks), "source": questions.fingerprint(config.tasks)}
        looks["questions"] = Node(questions.read_ahead, label=config.tasks.name, **asked)
    return {name: node for name, node in looks.items() if node is not None}


def _trial(
    name: str, model: Model, adapted: bool, per_example: bool, answer: tuple[str, int] | None, base: Node
) -> Node | None:
    """One short row through a model; one that is made here has been trained just so. RoseError: it cannot be."""
    lora = model.lora if adapted else None
    if adapted and model.numerics.dtype == Dtype.float16:
        fault = "small gradients vanish in it, as no loss is scaled in training"
        raise RoseError(f"{name}.numerics.dtype=float16: {fault}; must be bfloat16 or float32 where a model is trained")
    quantized.refuse(model.base, model.numerics.quantization, loading.device(), name)
    bare.refuse(model.base, lora, model.max_length, answer, name)
    if model.base.pretraining is not None:
        return None
    settings = {"lora": lora, "per_example": per_example, "numerics": model.numerics, "base": base}
    return Node(trial.try_out, max_length=model.max_length, answer=answer, **settings)


def ranking(config: Config) -> str | None:
    """The reward model that ranks the pool; None with other methods."""
    ranks = config.method.representation is Representation.reward
    return keys.ranking(config.method, config.judge).model if ranks else None


def _longest_answer(config: Config, nodes: Nodes) -> tuple[str, int] | None:
    """The key of what lets answers be longest, and its value; None where nothing is answered."""
    answers = {}
    if "verdicts" in nodes or config.until is Until.answers:
        answers["evaluation.max_new_tokens"] = config.evaluation.max_new_tokens
    if "tasks" in nodes:
        answers["tasks.max_new_tokens"] = config.tasks.max_new_tokens
    return max(answers.items(), key=lambda each: each[1], default=None)


def _representation(config: Config, nodes: Nodes) -> tuple:
    """What the method's representation is made of: the arguments of its function in `rose.methods`."""
    match config.method.representation:
        case Representation.gradients:
            return config.preference.normalize, all_of("features", nodes), all_of("targets", nodes)
        case Representation.readout:
            return config.preference.normalize, nodes["readout"], nodes["target_readout"]
        case Representation.hidden:
            return nodes["hidden"], nodes["target_hidden"]
        case Representation.answer_states:
            return nodes["answer_states"], nodes["target_answer_states"]
        case Representation.embeddings:
            return nodes["embeddings"], nodes["target_embeddings"]
        case Representation.words | Representation.ngrams:
            return nodes["pool"], nodes["preferences"]
        case Representation.perplexity:
            return (nodes["losses"],)
        case Representation.ifd:
            return nodes["losses"], nodes["answer_losses"]
        case Representation.loss_drop:
            return nodes["losses"], nodes["tuned_losses"]
        case Representation.reward:
            return (nodes["rewards"],)
        case Representation.column:
            return (nodes["pool"],)
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
    gradients = config.method.representation is Representation.gradients
    size = bare.adapter_size(config.model.base, config.model.lora) if gradients else None
    return keys.projection(config.projection, config.features.keep, size)


def result(nodes: Nodes) -> str:
    """The names of the stages that measure a job's model: jobs of the same result are one measurement."""
    return " ".join(nodes[name].name for name in MEASURES if name in nodes)
